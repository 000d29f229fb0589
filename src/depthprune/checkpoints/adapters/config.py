"""What a drop does to an `adapter_config.json` of PEFT. No torch, no peft.

PEFT finds the modules of an adapter by the end of their names or by regular expressions, and most entries name no
layer (`q_proj`); they stay. An entry that names a layer by number is spelled out: the modules that it meant, which the
adapter's own tensors tell, are listed by their new names. So no regular expression has to be understood.

That rule holds for LoRA and what is like it. Every other method is refused: nearly all can be merged into the model.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from depthprune.errors import CannotDropError

# The LoRA-like methods: what they add to a module is made of that module's own tensors, whatever its index. Method →
# what the names of those tensors begin with, after the name of the module.
METHODS = {"LORA": "lora_", "LOHA": "hada_", "LOKR": "lokr_"}
# Methods that add an input to the model instead of a change of its weights, so that there is nothing to merge.
WITH_INPUTS = (
    *("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "ADAPTION_PROMPT", "CPT", "CARTRIDGE"),
)
PATTERNS = ("rank_pattern", "alpha_pattern")
SELECTIONS = ("target_modules", "exclude_modules")
# Entry → what it may be, and what the items of a list are.
TYPES: dict[str, tuple[tuple[type, ...], type]] = {
    "target_modules": ((str, list), str),
    "exclude_modules": ((str, list), str),
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
        new_config["target_parameters"] = _parameters(parameters, adapted)
    if config.get("modules_to_save"):
        new_config["modules_to_save"] = _saved(config["modules_to_save"], tensors)
    for key in PATTERNS:
        pattern = config.get(key)
        if not isinstance(pattern, Mapping) or not any(map(NUMBER.search, pattern)):
            continue
        if parameters:
            raise CannotDropError(f"'{key}' names layers by number beside target_parameters; name no layer there")
        new_config[key] = _pattern(pattern, modules)
    return new_config


def _check_known(config: Mapping[str, Any]) -> None:
    """Refuse what lays layers out anew, is made anew from the whole model, or names a layer where no rule looks."""
    if config.get("layer_replication"):
        raise CannotDropError("the adapter repeats layers of its model (layer_replication); merge it into the model")
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
    """Return the entries that choose the modules: where a number chooses, all modules by name, else nothing changes."""
    texts = [text for key in SELECTIONS for text in _texts(config.get(key))]
    if config.get("layers_to_transform") in (None, []) and not any(map(NUMBER.search, texts)):
        return {}
    names = sorted(new for new in modules.values() if new is not None)
    spelled = {"target_modules": names, "exclude_modules": None, "layers_to_transform": None, "layers_pattern": None}
    return {key: value for key, value in spelled.items() if key in config}


def _parameters(entries: list[str], modules: Names) -> list[str]:
    """Rewrite `target_parameters`: an entry that names a layer becomes those that it meant."""
    spelled: dict[str, None] = {}
    for entry in entries:
        if not NUMBER.search(entry):
            spelled[entry] = None
            continue
        module, dot, parameter = entry.rpartition(".")
        found = (new for old, new in modules.items() if new is not None and _ends(old, module))
        spelled |= dict.fromkeys(f"{new}{dot}{parameter}" for new in found)
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


def _pattern(pattern: Mapping[str, Any], modules: Names) -> dict[str, Any]:
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


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith("." + end)
