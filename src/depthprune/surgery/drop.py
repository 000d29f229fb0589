"""Drop layers of a model in memory."""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn
from transformers import PreTrainedModel

from depthprune.errors import CannotDropError, PlanError
from depthprune.plan import LayerPlan
from depthprune.surgery.anatomy import Stack, changed_fields
from depthprune.surgery.modules import find_stacks, meta_model, pruned_config, set_fields
from depthprune.surgery.verify import Counter, check_drop, tensor_shapes

Model = TypeVar("Model", bound=PreTrainedModel)


def drop_layers(model: Model, plan: LayerPlan | Mapping[str, LayerPlan]) -> Model:
    """Remove layers from `model`, in place, and return it.

    The output of the layer before a dropped one feeds the layer after it. Weights are neither copied nor changed,
    heads stay as they are, and `model.save_pretrained` afterwards writes a plain checkpoint. The drop is checked
    on the meta device first: where the shorter model cannot be expressed, nothing has been changed.

    Args:
        model: any Hugging Face model with a stack of layers.
        plan: the layers to drop; for a model with several stacks, stack name → plan.

    Raises:
        PlanError: the plan is for another depth, or names a stack that the model does not have.
        CannotDropError: the architecture does not allow this plan; the message names the layer and the reason.
    """
    stacks = find_stacks(model)
    plans = match_plans(stacks, plan)
    if not any(p.dropped for p in plans.values()):
        return model
    _check_untouched(model)
    counters = check_drop(type(model), model.config, pruned_config(model.config, plans), plans)
    fields = model.config.to_dict()
    changes = {key: v for s, p in plans.items() for key, v in changed_fields(fields, s.depth_key, p).items()}
    for stack, stack_plan in plans.items():
        _replace_list(model, stack, stack_plan)
    _set_counters(model, counters)
    _set_configs(model, changes)
    return model


def match_plans(stacks: dict[str, Stack], plan: LayerPlan | Mapping[str, LayerPlan]) -> dict[Stack, LayerPlan]:
    """Give every plan its stack.

    Raises:
        PlanError: a bare plan for several stacks, an unknown stack, or a plan for another depth.
    """
    names = ", ".join(f"'{name}'" for name in stacks)
    if isinstance(plan, LayerPlan):
        if len(stacks) > 1:
            raise PlanError(f"the model has several stacks ({names}); say which one each plan is for")
        plan = dict.fromkeys(stacks, plan)
    plans = {}
    for name, stack_plan in plan.items():
        if name not in stacks:
            raise PlanError(f"the model has no stack '{name}'; it has {names}")
        if stack_plan.depth != stacks[name].depth:
            raise PlanError(
                f"the plan is for {stack_plan.depth} layers and the stack '{name}' has {stacks[name].depth}; "
                f"make it with LayerPlan({stacks[name].depth}, …)"
            )
        plans[stacks[name]] = stack_plan
    return plans


def _check_untouched(model: PreTrainedModel) -> None:
    """Refuse a model that is no longer what its configuration builds: the proof would be about another one."""
    expected, actual = tensor_shapes(meta_model(type(model), model.config)), tensor_shapes(model)
    odd = sorted(set(expected) ^ set(actual)) or [n for n in expected if expected[n] != actual[n]]
    if odd:
        raise CannotDropError(
            f"the model is not what its configuration builds ('{odd[0]}' differs); merge adapters and undo other "
            "changes to its modules before dropping layers"
        )


def _replace_list(model: nn.Module, stack: Stack, plan: LayerPlan) -> None:
    parent_path, _, name = stack.path.rpartition(".")
    parent = model.get_submodule(parent_path)
    layers = getattr(parent, name)
    kept = nn.ModuleList(layers[i] for i in plan.kept)
    kept.training = layers.training
    setattr(parent, name, kept)


def _set_counters(model: nn.Module, counters: list[Counter]) -> None:
    for counter in counters:
        setattr(model.get_submodule(counter.path), counter.attribute, counter.value)


def _set_configs(model: PreTrainedModel, changes: dict[str, Any]) -> None:
    """Give every module that holds the model's configuration a changed copy: the object may be shared with others."""
    old_type, copies = type(model.config), {}
    for module in model.modules():
        config = getattr(module, "config", None)
        if type(config) is not old_type:
            continue
        if id(config) not in copies:
            copies[id(config)] = copy.deepcopy(config)
            set_fields(copies[id(config)], changes)
        module.config = copies[id(config)]
