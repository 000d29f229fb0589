"""Prove a drop on the meta device before any weight is changed.

Two models without weights are built, from the old configuration and from the new. Layer `kept[i]` of the first must be
layer `i` of the second in the classes of its modules, the names and shapes of its tensors, and every plain attribute
(numbers, flags, strings), and so must everything outside the stack. Only positions and counters may differ; they are
returned, to be written into the real model. The new configuration must also be unchanged after its class has saved and
loaded it: some classes override the last layer.
"""

import copy
import struct
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from depthprune.errors import CannotDropError
from depthprune.surgery.config.depth import INDEX_ATTRIBUTES, TRAINING_ONLY_ATTRIBUTES, check_supported, holder
from depthprune.surgery.config.entries import PER_LAYER_LISTS
from depthprune.surgery.config.refusals import check_positions
from depthprune.surgery.modules import REFUSALS, differences, first_line, meta_model, refused_by
from depthprune.surgery.proof.caches import check_caches
from depthprune.surgery.sized_tensors import SIZE_ATTRIBUTES, kept_part
from depthprune.surgery.stacks import FIRST_LAYER_ONLY, ModulePlans, new_names

Shapes = dict[str, tuple[int, ...]]
PLAIN = (bool, int, float, str, type(None))
# Flags outside the stack that record which kinds of layers there are.
FLAGS_OF_KINDS = frozenset({"has_sliding_layers"})
# Numbers outside the stack that depend on its depth and an edited entry.
DERIVED_POSITIONS = frozenset({"first_kv_shared_layer_idx", "global_attn_index"})


@dataclass(frozen=True)
class Setting:
    """An attribute of a module that the drop changes: `setattr(model.get_submodule(path), attribute, value)`."""

    path: str
    attribute: str
    value: Any


@dataclass(frozen=True)
class Checked:
    """The result of a check.

    Args:
        whole: the full model on the meta device.
        model: the cut model on the meta device; its configurations are the ones to use.
        settings: positions, counters and flags to write into a real model, by their names after the drop.
    """

    whole: PreTrainedModel
    model: PreTrainedModel
    settings: tuple[Setting, ...]


def tensor_shapes(model: nn.Module) -> Shapes:
    """Return name → shape of every tensor that save_pretrained would write."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check_drop(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, new_config: PreTrainedConfig, plans: ModulePlans
) -> Checked:
    """Check that `new_config` builds exactly what `plans` leave of `config`.

    Raises:
        CannotDropError: if they differ; the message names the layer, the difference, and what to keep instead.
    """
    fields = config.to_dict()
    for stack, plan in plans.items():
        if plan.dropped:
            check_supported(holder(fields, stack.depth_key))
    check_positions(fields, plans)
    _check_reading(config, new_config)
    old = meta_model(model_class, config)
    try:
        new = meta_model(model_class, new_config)
    except REFUSALS as error:
        raise CannotDropError(
            f"'{config.model_type}' cannot be built with these layers ({first_line(error)}); keep other layers"
        ) from None
    kept, sized = _kept_shapes(old, plans)
    _compare_tensors(kept, tensor_shapes(new), plans, new_config)
    new_modules = dict(new.named_modules())
    settings: list[Setting] = []
    modules = dict(old.named_modules())
    for old_name, name in new_names(modules, plans).items():
        before = modules[old_name]
        if name not in new_modules:
            raise CannotDropError(_explain(name, plans, new_config, f"there is no module '{name}'"))
        after = new_modules[name]
        if not _same_class(before, after) and name.rpartition(".")[2] not in TRAINING_ONLY_ATTRIBUTES:
            what = f"it would be a {type(after).__name__} instead of a {type(before).__name__}"
            raise CannotDropError(_explain(name, plans, new_config, what))
        settings += _compare_attributes(name, before, after, sized, plans, new_config)
    check_caches(old, new)
    return Checked(old, new, tuple(settings))


def _check_reading(config: PreTrainedConfig, new_config: PreTrainedConfig) -> None:
    """Load the new configuration as from a file: a class may change or refuse its entries."""

    def changes(given: PreTrainedConfig) -> list[str]:
        before = given.to_dict()
        return differences(before, type(given).from_dict(copy.deepcopy(before)).to_dict())

    try:
        already = changes(config)
    except REFUSALS:
        return  # a configuration that cannot be loaded unchanged is compared after loading
    try:
        odd = [name for name in changes(new_config) if name not in already]
    except REFUSALS as error:
        raise refused_by(config, error) from None
    if odd:
        raise CannotDropError(
            f"the configuration class of '{config.model_type}' changes {odd[0]} of this plan when it is loaded; "
            "keep other layers (the last one may have to stay)"
        )


def _kept_shapes(old: nn.Module, plans: ModulePlans) -> tuple[Shapes, set[str]]:
    """Return new name → shape of every kept tensor, and the names of those that are sliced."""
    kept: Shapes = {}
    sized: set[str] = set()
    shapes = tensor_shapes(old)
    for name, renamed in new_names(shapes, plans).items():
        part = kept_part(name, shapes[name], plans)
        kept[renamed] = part.shape(shapes[name]) if part else shapes[name]
        if part:
            sized.add(renamed)
    return kept, sized


def _compare_tensors(kept: Shapes, new: Shapes, plans: ModulePlans, config: PreTrainedConfig) -> None:
    for name in sorted(set(kept) | set(new), key=lambda n: (n.count("."), n)):
        if name not in new:
            what = f"'{_inside(name, plans)}' does not exist there"
        elif name not in kept:
            what = f"'{_inside(name, plans)}' is needed there and does not exist"
        elif kept[name] != new[name]:
            what = f"'{_inside(name, plans)}' needs shape {new[name]} there instead of {kept[name]}"
        else:
            continue
        raise CannotDropError(_explain(name, plans, config, what))


def _same_class(one: nn.Module, other: nn.Module) -> bool:
    """Compare classes by name: a module with a parametrised weight has a dynamically created class."""
    return (type(one).__module__, type(one).__qualname__) == (type(other).__module__, type(other).__qualname__)


def _compare_attributes(
    name: str, before: nn.Module, after: nn.Module, sized: set[str], plans: ModulePlans, config: PreTrainedConfig
) -> list[Setting]:
    in_stack = _in_stack(name, plans)
    settings = [] if in_stack else _stale_collections(name, before, after)
    old, new = _plain_attributes(before, in_stack), _plain_attributes(after, in_stack)
    for attribute in sorted(set(old) | set(new)):
        # Outside the stack a module may keep something for each kind of layer (ModernBERT's rotary embedding); what
        # belonged to a kind that is gone is missed by nobody.
        if attribute not in new and not in_stack:
            continue
        one, other = old.get(attribute), new.get(attribute)
        if _same(one, other) or attribute in TRAINING_ONLY_ATTRIBUTES:
            continue
        if attribute in SIZE_ATTRIBUTES and f"{name}.weight" in sized:
            continue
        flag = attribute in FLAGS_OF_KINDS | DERIVED_POSITIONS and not in_stack
        if (
            flag
            or _is_counter(name, attribute, one, other, plans)
            or _is_sliced(name, attribute, one, other, plans)
            or _is_first_flag(name, attribute, one, other, plans)
        ):
            settings.append(Setting(name, attribute, new[attribute]))
            continue
        what = f"'{_inside(f'{name}.{attribute}', plans)}' would change from {one!r} to {other!r}"
        raise CannotDropError(_explain(name, plans, config, what))
    return settings


def _plain_attributes(module: nn.Module, in_stack: bool) -> dict[str, Any]:
    """Return numbers, flags and strings; inside a layer also lists of them, which elsewhere may depend on the depth."""
    kinds = (*PLAIN, tuple, list) if in_stack else PLAIN
    return {k: v for k, v in vars(module).items() if not k.startswith("_") and isinstance(v, kinds) and _is_plain(v)}


def _stale_collections(name: str, before: nn.Module, after: nn.Module) -> list[Setting]:
    """Return lists of layers that a module outside the stack took from its configuration (Mllama)."""
    old, new = ({k: v for k, v in vars(module).items() if _is_collection(v)} for module in (before, after))
    return [Setting(name, key, new[key]) for key in new if key in old and old[key] != new[key] and key[0] != "_"]


def _is_collection(value: Any) -> bool:
    if isinstance(value, dict):
        return all(
            isinstance(key, PLAIN) and (isinstance(item, PLAIN) or _is_collection(item)) for key, item in value.items()
        )
    return isinstance(value, list | tuple | set) and all(isinstance(i, PLAIN) or _is_collection(i) for i in value)


def _is_plain(value: Any) -> bool:
    return all(isinstance(item, PLAIN) for item in value) if isinstance(value, tuple | list) else True


def _same(one: Any, other: Any) -> bool:
    """Compare values; floats have to agree as float32, since they are multiplied with tensors."""
    if type(one) is float and type(other) is float:
        return struct.pack("f", one) == struct.pack("f", other) if max(abs(one), abs(other)) < 3e38 else one == other
    return one == other


def _is_counter(name: str, attribute: str, one: Any, other: Any, plans: ModulePlans) -> bool:
    """Return whether an attribute is a position in the stack or its depth, and not a change of behaviour."""
    if not (type(one) is int and type(other) is int):
        return False
    for stack, plan in plans.items():
        split = stack.layer_of(name)
        if split is not None:
            return attribute in INDEX_ATTRIBUTES and (one, other) == (plan.kept[split[0]], split[0])
    return any(
        (one, other) in ((plan.depth, len(plan.kept)), (plan.depth - 1, len(plan.kept) - 1)) for plan in plans.values()
    )


def _is_sliced(name: str, attribute: str, one: Any, other: Any, plans: ModulePlans) -> bool:
    """Return whether an attribute is a layer's copy of a list with an item per layer (GPT-Neo), sliced to the kept
    ones."""
    if attribute not in PER_LAYER_LISTS or not isinstance(one, list | tuple) or not isinstance(other, list | tuple):
        return False
    found = [plan for stack, plan in plans.items() if stack.layer_of(name) is not None and len(one) == plan.depth]
    return any([one[i] for i in plan.kept] == list(other) for plan in found)


def _is_first_flag(name: str, attribute: str, one: Any, other: Any, plans: ModulePlans) -> bool:
    """Return whether an attribute is the flag by which a new first layer owns what the old one owned."""
    in_first = any((stack.layer_of(name) or (None,))[0] == 0 and 0 in plan.dropped for stack, plan in plans.items())
    return in_first and (one, other) == (False, True) and attribute in FIRST_LAYER_ONLY.values()


def _in_stack(name: str, plans: ModulePlans) -> bool:
    return any(stack.layer_of(name) is not None for stack in plans)


def _inside(name: str, plans: ModulePlans) -> str:
    splits = [split for stack in plans if (split := stack.layer_of(name)) is not None]
    return splits[0][1] if splits else name


def _explain(name: str, plans: ModulePlans, config: PreTrainedConfig, what: str) -> str:
    for stack, plan in plans.items():
        split = stack.layer_of(name)
        if split is None or split[0] >= len(plan.kept):
            continue
        new_index, layer = split[0], plan.kept[split[0]]
        of = f"'{config.model_type}'" if stack.name == "layers" else f"'{config.model_type}' ({stack.name})"
        if new_index == 0 and 0 in plan.dropped:
            return f"dropping layer 0 of {of} makes layer {layer} the first, and {what}; keep layer 0"
        return (
            f"this plan makes layer {layer} of {of} layer {new_index} ({stack.depth_key} "
            f"{plan.depth} → {len(plan.kept)}), and {what}; keep other layers"
        )
    return f"'{config.model_type}' cannot be cut this way: outside the stack, {what}; choose other layers"
