"""Edit the `adapter_config.json` of a PEFT adapter for a drop. No torch, no peft.

PEFT finds the modules of an adapter by the end of their names or by regular expressions, and most entries name no layer
(`q_proj`); they are kept. An entry that refers to a layer by number is replaced by the list of the modules that it
matched, which the adapter's own tensors show, under their new names. So no regular expression has to be parsed.

This holds for LoRA and similar methods. Other methods are refused: nearly all can be merged into the model.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from depthprune.errors import CannotDropError

# The LoRA-like methods: what they add to a module is made of that module's own tensors, whatever its index. Method →
# what the names of those tensors begin with, after the name of the module.
METHODS = {"LORA": "lora_", "LOHA": "hada_", "LOKR": "lokr_"}
# Methods that add an input instead of changing weights, so that there is nothing to merge.
WITH_INPUTS = (
    *("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "ADAPTION_PROMPT", "CPT", "CARTRIDGE"),
)
PATTERNS = ("rank_pattern", "alpha_pattern")
SELECTIONS = ("target_modules", "exclude_modules")
# Entry → its allowed types, and the types of list items.
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

Names = Mapping[str, str | None]  # old name → new name, None if it is dropped


def module_of(tensor: str, method: str) -> str | None:
    """Return the module that an adapter's tensor belongs to, or None if it is not a tensor of the method.

    >>> module_of("model.layers.3.self_attn.q_proj.lora_A.weight", "LORA")
    'model.layers.3.self_attn.q_proj'
    """
    parts = tensor.split(".")
    at = next((i for i, part in enumerate(parts) if part.startswith(METHODS[method])), 0)
    return ".".join(part for part in parts[:at] if part != "base_layer") or None


def cut_config(config: Mapping[str, Any], tensors: Names) -> dict[str, Any]:
    """Return the adapter_config.json of an adapter after a drop.

    Args:
        config: the old one, of one of `METHODS`.
        tensors: old name of every tensor, without `base_model.model.` → its new name.

    Raises:
        CannotDropError: if an entry cannot be rewritten, or no module of the adapter is left.
        re.error: if an entry is used as a regular expression and is not a valid one.
    """
    method = config["peft_type"]
    _check_known(config)
    adapted: dict[str, str | None] = {}
    for old, new in tensors.items():
        if (module := module_of(old, method)) is not None:
            adapted[module] = None if new is None else module_of(new, method)
    if not any(adapted.values()):
        raise CannotDropError("every layer that the adapter changes is dropped, so that nothing of it is left")
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
    """Refuse adapters that repeat layers, depend on the whole model, or refer to a layer in an unknown entry."""
    if config.get("layer_replication"):
        raise CannotDropError("the adapter repeats layers of its model (layer_replication); merge it into the model")
    for key, value in config.items():
        if key in TYPES:
            kinds, items = TYPES[key]
            right = value is None or isinstance(value, kinds)
            if not right or (isinstance(value, list) and not all(type(item) is items for item in value)):
                raise CannotDropError(f"'{key}' is {value!r} in its adapter_config.json; fix that")
        elif key not in NOT_NAMES and not key.startswith("megatron"):
            text = next((text for text in _texts(value) if re.search(r"\w\.\d+(\.|$)", text)), None)
            if text is not None:
                raise CannotDropError(f"'{key}' names '{text}', and there is no rule for it; remove it")


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        return [text for key, item in value.items() for text in (str(key), *_texts(item))]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def _targets(config: Mapping[str, Any], modules: Names) -> dict[str, Any]:
    """Return the entries that select modules: all module names if a number selects, else nothing new."""
    texts = [text for key in SELECTIONS for text in _texts(config.get(key))]
    if config.get("layers_to_transform") in (None, []) and not any(map(NUMBER.search, texts)):
        return {}
    names = sorted(new for new in modules.values() if new is not None)
    spelled = {"target_modules": names, "exclude_modules": None, "layers_to_transform": None, "layers_pattern": None}
    return {key: value for key, value in spelled.items() if key in config}


def _parameters(entries: list[str], modules: Names) -> list[str]:
    """Rewrite `target_parameters`: an entry that refers to a layer becomes the list of those that it matched."""
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
    """Rewrite `modules_to_save`: whole modules, whose names prefix those of their tensors."""
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
    """Expand the entries of a pattern that refer to a layer; the first match counts, so that the order is kept."""
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
