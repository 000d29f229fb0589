"""Prove a drop on the meta device before a weight is touched.

Two models without weights are built, from the old configuration and from the new. Layer `kept[i]` of the first
must be layer `i` of the second in the classes of its modules, the names and shapes of its tensors, and every plain
attribute (numbers, flags, strings), and so must everything outside the stack. Positions and counters are the one
thing that may differ; they are returned, to be written into the real model.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan
from depthprune.surgery.anatomy import INDEX_ATTRIBUTES, TRAINING_ONLY_ATTRIBUTES, Stack
from depthprune.surgery.modules import meta_model

Shapes = dict[str, tuple[int, ...]]
PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Counter:
    """A number in a module that the drop changes: `setattr(model.get_submodule(path), attribute, value)`."""

    path: str
    attribute: str
    value: int


def tensor_shapes(model: nn.Module) -> Shapes:
    """Return name → shape of every tensor that saving the model would consider."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check_drop(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    new_config: PreTrainedConfig,
    plans: dict[Stack, LayerPlan],
) -> list[Counter]:
    """Check that `new_config` builds exactly what `plans` leave of `config`.

    Returns:
        The counters to renumber in a real model, under their names after the drop.

    Raises:
        CannotDropError: they differ; the message names the layer, the difference, and what to keep instead.
    """
    _check_convolution_after_first(config, plans)
    old, new = meta_model(model_class, config), meta_model(model_class, new_config)
    kept_modules = kept_names(dict(old.named_modules()), plans)
    new_modules = dict(new.named_modules())
    _compare_tensors(kept_names(tensor_shapes(old), plans), tensor_shapes(new), plans, new_config)
    counters = []
    for name, old_name in kept_modules.items():
        if name not in new_modules:
            raise CannotDropError(_explain(name, plans, new_config, f"there is no module '{name}'"))
        before, after = old.get_submodule(old_name), new_modules[name]
        if type(before) is not type(after):
            what = f"it would be a {type(after).__name__} instead of a {type(before).__name__}"
            raise CannotDropError(_explain(name, plans, new_config, what))
        counters += _compare_attributes(name, before, after, plans, new_config)
    return counters


def kept_names(items: dict[str, Any], plans: dict[Stack, LayerPlan]) -> dict[str, Any]:
    """Rename what stays to its name after the drop: new name → shape (for shapes) or old name (for modules)."""
    kept = {}
    for name, value in items.items():
        renamed = renamed_after(name, plans)
        if renamed is not None:
            kept[renamed] = name if isinstance(value, nn.Module) else value
    return kept


def renamed_after(name: str, plans: dict[Stack, LayerPlan]) -> str | None:
    """Return the name after the drop of a tensor or module, or None where its layer goes."""
    for stack, plan in plans.items():
        split = stack.layer_of(name)
        if split is not None:
            index = plan.new_index(split[0])
            return None if index is None else stack.name_of(index, split[1])
    return name


def _compare_tensors(kept: Shapes, new: Shapes, plans, config) -> None:
    for name in sorted(set(kept) | set(new), key=lambda n: (n.count("."), n)):
        if name not in new:
            what = f"'{_inside(name, plans)}' has no place there"
        elif name not in kept:
            what = f"'{_inside(name, plans)}' is needed there and it has none"
        elif kept[name] != new[name]:
            what = f"'{_inside(name, plans)}' needs shape {new[name]} there instead of {kept[name]}"
        else:
            continue
        raise CannotDropError(_explain(name, plans, config, what))


def _compare_attributes(name: str, before: nn.Module, after: nn.Module, plans, config) -> list[Counter]:
    counters = []
    old, new = _plain_attributes(before), _plain_attributes(after)
    for attribute in sorted(set(old) | set(new)):
        # Outside the stack a module may keep something for each kind of layer (ModernBERT's rotary embedding); what
        # belonged to a kind that is gone is missed by nobody.
        if attribute not in new and not _in_stack(name, plans):
            continue
        one, other = old.get(attribute), new.get(attribute)
        if one == other or attribute in TRAINING_ONLY_ATTRIBUTES:
            continue
        if _is_counter(name, attribute, one, other, plans):
            counters.append(Counter(name, attribute, new[attribute]))
            continue
        what = f"'{_inside(f'{name}.{attribute}', plans)}' would change from {one!r} to {other!r}"
        raise CannotDropError(_explain(name, plans, config, what))
    return counters


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    return {k: v for k, v in vars(module).items() if not k.startswith("_") and isinstance(v, PLAIN)}


def _is_counter(name: str, attribute: str, one: Any, other: Any, plans: dict[Stack, LayerPlan]) -> bool:
    """Tell a position in the stack, or the depth kept outside it, from a change of behaviour."""
    if not (type(one) is int and type(other) is int):
        return False
    for stack, plan in plans.items():
        split = stack.layer_of(name)
        if split is not None:
            return attribute in INDEX_ATTRIBUTES and (one, other) == (plan.kept[split[0]], split[0])
    return any((one, other) == (plan.depth, len(plan.kept)) for plan in plans.values())


def _in_stack(name: str, plans: dict[Stack, LayerPlan]) -> bool:
    return any(stack.layer_of(name) is not None for stack in plans)


def _inside(name: str, plans: dict[Stack, LayerPlan]) -> str:
    splits = [split for stack in plans if (split := stack.layer_of(name)) is not None]
    return splits[0][1] if splits else name


def _explain(name: str, plans: dict[Stack, LayerPlan], config: PreTrainedConfig, what: str) -> str:
    for stack, plan in plans.items():
        split = stack.layer_of(name)
        if split is None or split[0] >= len(plan.kept):
            continue
        new_index, layer = split[0], plan.kept[split[0]]
        if new_index == 0 and 0 in plan.dropped:
            return f"dropping layer 0 of '{config.model_type}' makes layer {layer} the first, and {what}; keep layer 0"
        return (
            f"this plan makes layer {layer} of '{config.model_type}' layer {new_index} ({stack.depth_key} "
            f"{plan.depth} → {len(plan.kept)}), and {what}; keep other layers"
        )
    return f"'{config.model_type}' cannot be cut so: outside the stack, {what}; choose other layers"


def _check_convolution_after_first(config: PreTrainedConfig, plans: dict[Stack, LayerPlan]) -> None:
    """DeBERTa-v2 XL adds a convolution of the embeddings to the output of whatever layer is first."""
    if config.model_type != "deberta-v2" or not getattr(config, "conv_kernel_size", 0):
        return
    if any(0 in plan.dropped for plan in plans.values()):
        raise CannotDropError(
            "dropping layer 0 of 'deberta-v2' makes layer 1 the first, and the convolution (conv_kernel_size "
            f"{config.conv_kernel_size}) that follows the first layer would follow that; keep layer 0"
        )
