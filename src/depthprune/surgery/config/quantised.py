"""Edit the module names in a configuration's quantisation rules for a drop. No torch.

Names written out are renamed. A pattern, a list or a dictionary that names layers by number cannot be: of
`.*\\.18\\..*` nobody can say whether 18 is a layer or an expert. Where the layers that stay keep their numbers, since
only the last ones go, it still says what it said; elsewhere it is refused.
"""

import re
from collections.abc import Mapping
from typing import Any

from depthprune.errors import CannotDropError
from depthprune.surgery.sized_tensors import SIZED_BY_DEPTH
from depthprune.surgery.stacks import LAYER_INDEX, Stack, StackPlans

SENSES = re.compile("vision|audio")
PLAIN_DTYPES = ("F64", "F32", "F16", "BF16")

RULES = ("quantization_config", "compression_config")
# An entry with layer numbers, and not a size such as block_structure or weight_block_size.
ABOUT_LAYERS = re.compile(r"(^|_)(layers?|blocks?)(_(?!size|structure|shape)|$)")
META = re.compile(r"[*?\[\](){}|\\^$]|^re:|^[+-]:")
ANY_NUMBER = re.compile(r"(\[0-9\]|\\d)[+*]")
# A word before a dot and a number after it, also as the first of a class or a group: layers.3, .[1-4], .(?:1|2).
NUMBER = re.compile(r"(\w*)\.(?:\(\?:|[\[(])*\d")


def edit_rules(config: dict[str, Any], plans: StackPlans) -> None:
    """Rename the modules in the rules of a configuration and of nested ones, in place.

    Raises:
        CannotDropError: if a rule refers to layers by number, and their numbers change.
    """
    for key, value in config.items():
        if key in RULES and isinstance(value, Mapping):
            config[key] = _entries(key, value, plans)
        elif isinstance(value, dict):
            edit_rules(value, plans)


def shifts(plans: StackPlans) -> bool:
    """Return whether a kept layer gets another number."""
    return any(plan.kept != tuple(range(len(plan.kept))) for plan in plans.values())


def check_plain(dtypes: Mapping[str, str], plans: StackPlans) -> None:
    """Refuse quantised tensors outside the stack that have to be sliced: their scales and packing would not fit.

    Args:
        dtypes: of the tensors of the checkpoint by name, as safetensors writes them.

    Raises:
        CannotDropError: if there is one, such as the scales of Gemma-3n's per_layer_model_projection; the message names
            it.
    """
    if not any(plan.dropped and not SENSES.search(stack.depth_key) for stack, plan in plans.items()):
        return
    sized = [end.removesuffix(".weight") for end, *_ in SIZED_BY_DEPTH if end.endswith(".weight")]
    for name, dtype in dtypes.items():
        module, _, last = name.rpartition(".")
        if not any(module == end or module.endswith(f".{end}") for end in sized) or last == "bias":
            continue
        if last != "weight" or dtype not in PLAIN_DTYPES:
            raise CannotDropError(
                f"'{module}' holds a part for every layer and is quantised ('{last}', {dtype}), so that it "
                "cannot be cut along; leave it out of the quantisation"
            )


def _entries(name: str, value: Any, plans: StackPlans) -> Any:
    if isinstance(value, Mapping):
        if value and all(str(key).isdigit() for key in value) and shifts(plans):
            raise _by_number(name, f"'{next(iter(value))}'")
        pairs = ((renamed_module(key, plans), _entries(key, entry, plans)) for key, entry in value.items())
        return {key: entry for key, entry in pairs if key is not None}
    if isinstance(value, list | tuple):
        if ABOUT_LAYERS.search(name) and value:
            a_layer_each = any(plan.dropped and len(value) == plan.depth for plan in plans.values())
            if all(type(item) is int for item in value) and (a_layer_each or shifts(plans)):
                raise _by_number(name, str(value[0]))
        items = (
            renamed_module(item, plans) if isinstance(item, str) else _entries(name, item, plans) for item in value
        )
        return [item for item in items if item is not None]
    if isinstance(value, str):
        renamed = renamed_module(value, plans)
        if renamed is None:
            raise CannotDropError(f"{name} in the quantization_config is '{value}', which is dropped; keep that layer")
        return renamed
    return value


def _by_number(name: str, number: str) -> CannotDropError:
    return CannotDropError(
        f"{name} in the quantization_config refers to layers by number ({number}), and these change; write the names "
        "of the modules out, or drop the last layers only"
    )


def _names_by_number(name: str, plans: StackPlans) -> bool:
    """Return whether a pattern, or a name that begins with a number, could refer to a layer of one of the stacks."""
    if not META.search(name):
        return name.partition(".")[0].isdigit()
    text = ANY_NUMBER.sub("", name.replace("[.]", ".").replace("\\.", ".")).replace("\\d", "0")
    words = {path.rpartition(".")[2] for stack in plans for path in stack.paths}
    return any(word in words or not word.isidentifier() for word in NUMBER.findall(text))


def renamed_module(name: str, plans: StackPlans) -> str | None:
    """Return the new name of a module that a file refers to, with any prefix, or None if it is dropped.

    >>> from depthprune.plan import LayerPlan
    >>> stack = Stack("layers", ("model.layers",), "num_hidden_layers", 4)
    >>> renamed_module("layers.3.mlp", {stack: LayerPlan(4, (1,))})
    'layers.2.mlp'

    Raises:
        CannotDropError: if the name is a pattern that refers to layers by number, and their numbers change.
    """
    parts = name.split(".")
    best: tuple[int, int, Stack] | None = None
    for stack in plans:
        for path in stack.paths:
            own = path.split(".")
            for at, part in enumerate(parts[1:], start=1):
                if LAYER_INDEX.fullmatch(part) and parts[at - 1] == own[-1]:
                    pairs = zip(reversed(parts[:at]), reversed(own), strict=False)
                    shared = next((i for i, (a, b) in enumerate(pairs) if a != b), min(at, len(own)))
                    if best is None or shared > best[0]:
                        best = (shared, at, stack)
    if best is None:
        if shifts(plans) and _names_by_number(name, plans):
            raise CannotDropError(
                f"'{name}' in the quantization_config is a pattern that names a layer by its number, which changes; "
                "write the names of the modules out, or drop the last layers only"
            )
        return name
    _, at, stack = best
    index = plans[stack].new_index(int(parts[at]))
    return None if index is None else ".".join([*parts[:at], str(index), *parts[at + 1 :]])
