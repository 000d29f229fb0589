"""Drop layers of a model in memory."""

import copy
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from depthprune.arguments import checked
from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan
from depthprune.surgery.config.depth import edited_generation
from depthprune.surgery.coverage import beyond_census, is_own_code
from depthprune.surgery.modules import find_stacks, meta_model, pruned_config
from depthprune.surgery.proof.comparison import check_drop, tensor_shapes
from depthprune.surgery.proof.outputs import check_in_memory
from depthprune.surgery.sized_tensors import SIZE_ATTRIBUTES, Kept, kept_part, merged_logits
from depthprune.surgery.stacks import ModulePlans, match_plans, new_names

Model = TypeVar("Model", bound=PreTrainedModel)


@checked("drop_layers")
def drop_layers(model: Model, plan: LayerPlan | Iterable[int] | Mapping[str, LayerPlan | Iterable[int]]) -> Model:
    """Remove layers from `model`, in place, and return it.

    The output of the layer before a dropped one feeds the layer after it. Weights are neither copied nor changed, heads
    are left unchanged, and `model.save_pretrained` afterwards writes a plain checkpoint. The drop is checked on the
    meta device first; if the shorter model cannot be expressed, nothing has been changed. If the census of
    architectures does not cover the cut (`coverage.py`), it is also made on a copy that shares the weights, and both
    models are run on random input and compared.

    Args:
        model: any Hugging Face model with a stack of layers.
        plan: the layers to drop, such as `[8, 9]`, or a plan; for a model with several stacks, stack name → either.

    Raises:
        PlanError: if the plan is for another depth, or names a stack that the model does not have.
        CannotDropError: if the architecture does not allow this plan; the message names the layer and the reason.
    """
    plans = match_plans(find_stacks(model), plan)
    if not any(p.dropped for p in plans.values()):
        return model
    _check_untouched(model)
    losing = [stack.depth_key for stack, stack_plan in plans.items() if stack_plan.dropped]
    beyond = beyond_census(model.config.to_dict(), losing, own_code=is_own_code(type(model)))
    if beyond is not None:
        check_in_memory(model, plans, lambda trial: _cut(trial, plans), beyond)
    _cut(model, plans)
    return model


def _cut(model: PreTrainedModel, plans: ModulePlans) -> None:
    """Apply plans to a model, in place."""
    checked = check_drop(type(model), model.config, pruned_config(model.config, plans, type(model)), plans)
    parts = {name: kept_part(name, shape, plans) for name, shape in tensor_shapes(model).items()}
    owned_by_first = _owned_by_first(model, plans)
    for stack, stack_plan in plans.items():
        for path in stack.paths:
            _replace_list(model, path, stack_plan)
    for path, module in owned_by_first.items():
        parent, _, name = path.rpartition(".")
        model.get_submodule(parent).add_module(name, module)
    for name, part in parts.items():
        if part is not None:
            _shrink(model, name, part)
    for setting in checked.settings:
        setattr(model.get_submodule(setting.path), setting.attribute, setting.value)
    _set_configs(model, checked.model)
    _set_ties(model, checked.model)
    if model.can_generate():
        for key, value in edited_generation(model.generation_config.to_dict(), plans).items():
            setattr(model.generation_config, key, value)


def _check_untouched(model: PreTrainedModel) -> None:
    """Check that a model is what its configuration builds: the proof would be about another model."""
    expected, actual = tensor_shapes(meta_model(type(model), model.config)), tensor_shapes(model)
    odd = sorted(set(expected) ^ set(actual)) or [n for n in expected if expected[n] != actual[n]]
    if odd:
        raise CannotDropError(
            f"the model is not what its configuration builds ('{odd[0]}' differs); merge adapters and undo other "
            "changes to its modules before dropping layers"
        )


def _owned_by_first(model: nn.Module, plans: ModulePlans) -> dict[str, nn.Module]:
    """Return the outermost modules that move from a dropped first layer to the new first one."""
    found: dict[str, nn.Module] = {}
    modules = dict(model.named_modules())
    for old, new in new_names(modules, plans).items():
        for stack, plan in plans.items():
            layer, rest = stack.layer_of(old) or (None, "")
            if layer == 0 and rest and old == new and 0 in plan.dropped and not any(old.startswith(f) for f in found):
                found[old] = modules[old]
    return found


def _replace_list(model: nn.Module, path: str, plan: LayerPlan) -> None:
    parent_path, _, name = path.rpartition(".")
    parent = model.get_submodule(parent_path)
    layers = getattr(parent, name)
    kept = type(layers)(layers[i] for i in plan.kept)
    kept.training = layers.training
    setattr(parent, name, kept)


def _shrink(model: nn.Module, name: str, part: Kept) -> None:
    """Slice a parameter outside the stack to the part that belongs to the kept layers."""
    parent_path, _, attribute = name.rpartition(".")
    parent = model.get_submodule(parent_path)
    whole = getattr(parent, attribute)
    if part.merged:
        kept = torch.tensor(merged_logits(whole.data.double().tolist(), part), dtype=torch.float64).to(whole.data)
    else:
        pieces = [whole.data.narrow(part.dimension, start, stop - start) for start, stop in part.ranges]
        kept = torch.cat(pieces, part.dimension).contiguous()
    smaller = nn.Parameter(kept, requires_grad=whole.requires_grad)
    setattr(parent, attribute, smaller)
    for size in SIZE_ATTRIBUTES:
        if getattr(parent, size, None) == whole.shape[part.dimension]:
            setattr(parent, size, smaller.shape[part.dimension])


def _set_configs(model: PreTrainedModel, proved: PreTrainedModel) -> None:
    """Give every module the configuration of its counterpart; the old objects may be shared with other models."""
    for name, module in proved.named_modules():
        real = model.get_submodule(name)
        for attribute, value in vars(module).items():
            if isinstance(value, PreTrainedConfig):
                setattr(real, attribute, value)


def _set_ties(model: PreTrainedModel, proved: PreTrainedModel) -> None:
    """Rename the tied tensors of layers (Zamba), so that saving writes the one that loading looks for."""
    for name, module in proved.named_modules():
        real = model.get_submodule(name)
        for attribute in ("_tied_weights_keys", "all_tied_weights_keys"):
            if attribute in vars(module) and attribute in vars(real):
                setattr(real, attribute, copy.copy(vars(module)[attribute]))
