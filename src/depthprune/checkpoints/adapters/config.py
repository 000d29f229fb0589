"""What a drop does to an `adapter_config.json` of PEFT. No torch, no peft.

PEFT finds the modules of an adapter by the end of their names or by regular expressions, and most entries name no
layer (`q_proj`); they stay. An entry that names a layer by number is spelled out: the modules that it meant, which the
adapter's own tensors tell, are listed by their new names. So no regular expression has to be understood.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from depthprune.errors import CannotDropError

# Methods whose tensors belong to one module each and do not depend on its index, all tested with peft itself. What
# the names of those tensors begin with, after the name of the module.
METHODS = {
    "LORA": "lora_",
    "ADALORA": "lora_",
    "BOFT": "boft_",
    "C3A": "c3a_",
    "DELORA": "delora_",
    "FOURIERFT": "fourierft_",
    "GRALORA": "gralora_",
    "HIRA": "hira_",
    "HRA": "hra_",
    "IA3": "ia3_",
    "LN_TUNING": "ln_tuning_",
    "LOHA": "hada_",
    "LOKR": "lokr_",
    "MISS": "miss_",
    "OFT": "oft_",
    "ROAD": "road_",
    "VBLORA": "vblora_logits_",
    "VERA": "vera_lambda_",
}
# Methods with an input of their own instead of tensors in the layers.
PROMPTS = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")
PATTERNS = ("rank_pattern", "alpha_pattern", "lambda_pattern", "block_size_pattern", "n_frequency_pattern")
# Entry → what it may be, and what the items of a list are.
TYPES: dict[str, tuple[tuple[type, ...], type]] = {
    "target_modules": ((str, list), str),
    "exclude_modules": ((str, list), str),
    "feedforward_modules": ((str, list), str),
    "modules_to_save": ((list,), str),
    "target_parameters": ((list,), str),
    "layers_to_transform": ((int, list), int),
    "layers_pattern": ((str, list), str),
    **dict.fromkeys(PATTERNS, ((dict,), str)),
}
NOT_NAMES = ("base_model_name_or_path", "revision", "peft_version")
NUMBER = re.compile(r"(?<![A-Za-z0-9_])\d")  # as in layers.3 and (1|2), not as in fc1

Names = Mapping[str, str | None]  # old name → new name, None where it goes


def module_of(tensor: str, method: str) -> str | None:
    """Return the module that a tensor of an adapter belongs to, or None where it is no tensor of the method.

    >>> module_of("model.layers.3.self_attn.q_proj.lora_A.weight", "LORA")
    'model.layers.3.self_attn.q_proj'
    """
    parts = tensor.split(".")
    at = next((i for i, part in enumerate(parts) if part.startswith(METHODS[method])), 0)
    return ".".join(part for part in parts[:at] if part != "base_layer") or None


def cut_config(config: Mapping[str, Any], tensors: Names) -> dict[str, Any]:
    """Return the adapter_config.json for what a drop leaves of an adapter.

    Args:
        config: the old one, of one of `METHODS`.
        tensors: old name of every tensor, without `base_model.model.` → its new name.

    Raises:
        CannotDropError: an entry cannot be rewritten, or nothing is left.
        re.error: an entry that is a pattern is none.
    """
    method = config["peft_type"]
    _check_known(config)
    adapted: dict[str, str | None] = {}
    for old, new in tensors.items():
        if (module := module_of(old, method)) is not None:
            adapted[module] = None if new is None else module_of(new, method)
    if not any(adapted.values()):
        raise CannotDropError("every layer that the adapter changes is dropped, so nothing is left of it")
    new_config = dict(config)
    parameters = config.get("target_parameters") or []
    owners = {name.rpartition(".")[0] for name in parameters}
    modules = {old: new for old, new in adapted.items() if not any(_ends(old, owner) for owner in owners)}
    new_config |= _targets(config, modules)
    if parameters:
        new_config["target_parameters"] = _spelled(parameters, adapted, of=lambda name: name.rpartition("."))
    if config.get("feedforward_modules"):
        new_config["feedforward_modules"] = _selection(config["feedforward_modules"], modules)
    if config.get("modules_to_save"):
        new_config["modules_to_save"] = _saved(config["modules_to_save"], tensors)
    for key in PATTERNS:
        pattern = config.get(key)
        if not isinstance(pattern, Mapping) or not any(map(NUMBER.search, pattern)):
            continue
        if method == "ADALORA":  # names of tensors, with what was kept of their ranks
            new_config[key] = _tensor_pattern(pattern, tensors)
        elif parameters:
            raise CannotDropError(f"'{key}' names layers by number beside target_parameters; name no layer there")
        else:
            new_config[key] = _pattern(key, pattern, modules)
    return new_config


def _check_known(config: Mapping[str, Any]) -> None:
    """Refuse what lays layers out anew, is made anew from the whole model, or names a layer where no rule looks."""
    if config.get("layer_replication"):
        raise CannotDropError("the adapter repeats layers of its model (layer_replication); merge it into the model")
    if config.get("save_projection") is False:
        raise CannotDropError("the adapter was saved without its projection; save it with save_projection=True")
    for key, value in config.items():
        if key in TYPES:
            kinds, items = TYPES[key]
            right = value is None or isinstance(value, kinds)
            if not right or (isinstance(value, list) and not all(type(item) is items for item in value)):
                raise CannotDropError(f"'{key}' is {value!r} in its adapter_config.json; mend that")
        elif key not in NOT_NAMES and not key.startswith("megatron"):
            text = next((text for text in _texts(value) if re.search(r"\w\.\d+(\.|$)", text)), None)
            if text is not None:
                raise CannotDropError(f"'{key}' names '{text}', and no rule says what a drop makes of it; remove it")


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        return [text for key, item in value.items() for text in (str(key), *_texts(item))]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def _targets(config: Mapping[str, Any], modules: Names) -> dict[str, Any]:
    """Return the entries that choose the modules; all of them by name where numbers choose in other ways."""
    chosen, listed = config.get("target_modules"), config.get("layers_to_transform")
    layers = _transformed(config, modules)
    excluded = config.get("exclude_modules") or []
    numbered = any(map(NUMBER.search, [excluded] if isinstance(excluded, str) else excluded))
    if numbered or (listed not in (None, []) and not layers):
        names = sorted(new for new in modules.values() if new is not None)
        spelled = {"target_modules": names, "exclude_modules": None, "layers_to_transform": None}
        return {key: value for key, value in {**spelled, "layers_pattern": None}.items() if key in config}
    if chosen is None:
        return {}
    entries: dict[str, Any] = {"target_modules": _selection(chosen, modules)}
    if layers:
        entries["layers_to_transform"] = layers[0] if isinstance(listed, int) else layers
    return entries


def _transformed(config: Mapping[str, Any], modules: Names) -> list[int]:
    """Return the new `layers_to_transform`; empty where there is none, or none that means the same."""
    listed = config.get("layers_to_transform") or []
    layers: dict[int, int | None] = {}
    for old, new in modules.items():
        before = _layer(config, old)
        after = None if new is None else _layer(config, new)
        if before is not None and layers.setdefault(before, after) != after:
            return []  # stacks that are cut in different ways
    new_layers = {layers.get(layer) for layer in ([listed] if isinstance(listed, int) else listed)}
    return sorted(layer for layer in new_layers if layer is not None)


def _layer(config: Mapping[str, Any], name: str) -> int | None:
    """Return the number that PEFT compares with `layers_to_transform`: the first after a name, or after a pattern."""
    patterns = config.get("layers_pattern") or []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if match := re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", name):
            return int(match[1])
    match = None if patterns else re.match(r".*?\.[^.]*\.(\d+)\.", name)
    return int(match[1]) if match else None


def _selection(value: str | list[str], modules: Names) -> str | list[str]:
    """Return the new value of an entry that selects modules: a regular expression, or ends of names."""
    if isinstance(value, list):
        return _spelled(value, modules, of=lambda name: (name, "", ""))
    if not NUMBER.search(value):
        return value
    return sorted(new for old, new in modules.items() if new is not None and re.fullmatch(value, old))


def _spelled(entries: list[str], names: Names, *, of: Callable[[str], tuple[str, str, str]]) -> list[str]:
    """Replace the entries that name a layer by what they meant; `of` gives the module in an entry and the rest."""
    spelled: dict[str, None] = {}
    for entry in entries:
        if not NUMBER.search(entry):
            spelled[entry] = None
            continue
        module, dot, rest = of(entry)
        for old, new in names.items():
            if new is not None and _ends(old, module):
                spelled[new + dot + rest] = None
    return list(spelled)


def _saved(entries: list[str], tensors: Names) -> list[str]:
    """Rewrite `modules_to_save`: whole modules, whose tensors lie below their names."""
    saved: dict[str, None] = {}
    for entry in entries:
        if not NUMBER.search(entry):
            saved[entry] = None
            continue
        size = len(entry.split("."))
        for old, new in tensors.items():
            parts = old.split(".")
            ends = (at for at in range(size, len(parts)) if ".".join(parts[at - size : at]) == entry)
            if new is not None and (end := next(ends, None)) is not None:
                saved[".".join(new.split(".")[:end])] = None
    return list(saved)


def _pattern(key: str, pattern: Mapping[str, Any], modules: Names) -> dict[str, Any]:
    """Spell out the entries of a pattern that name a layer; the first that matches counts, so the order stays."""
    meant: dict[str, list[str]] = {}
    for old, new in modules.items():
        first = next((entry for entry in pattern if entry == old or re.match(rf"(.*\.)?({entry})$", old)), None)
        if first is not None and new is not None:
            meant.setdefault(first, []).append(new)
    spelled = {}
    for entry, value in pattern.items():
        spelled |= dict.fromkeys(meant.get(entry, []), value) if NUMBER.search(entry) else {entry: value}
    return spelled


def _tensor_pattern(pattern: Mapping[str, Any], tensors: Names) -> dict[str, Any]:
    renamed = {}
    for key, value in pattern.items():
        found = {new for old, new in tensors.items() if _ends(key, old)}
        if len(found) != 1:
            raise CannotDropError(f"rank_pattern names '{key}', which is no tensor of the adapter; save it again")
        if (new := found.pop()) is not None:
            old = next(old for old in tensors if _ends(key, old))
            renamed[key.removesuffix(old) + new] = value
    return renamed


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith("." + end)
