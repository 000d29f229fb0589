"""Try a plan without changing the model: a bypassed layer hands on what it was given.

It shares nothing with `drop_layers`, so that each tests the other.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor
from transformers import PreTrainedModel

from depthprune.errors import PlanError
from depthprune.plan import LayerPlan
from depthprune.surgery.anatomy import Stack
from depthprune.surgery.modules import find_stacks


@contextmanager
def bypassed(model: PreTrainedModel, layers: Iterable[int], *, stack: str | None = None) -> Iterator[PreTrainedModel]:
    """Make `layers` of a stack hand on their input for as long as the context lasts.

    The layers still run, and what they add is thrown away; no weight is copied.

    Args:
        model: the model to try the plan on.
        layers: indices of the layers to bypass.
        stack: which stack, for a model that has several; its only one by default.

    Raises:
        PlanError: a layer or a stack that does not exist, or no stack named where there are several.
    """
    chosen = _choose(find_stacks(model), stack)
    plan = LayerPlan(chosen.depth, tuple(layers))
    modules = model.get_submodule(chosen.path)
    # prepend: transformers records hidden states with hooks of its own, which must see the bypassed output.
    handles = [
        modules.get_submodule(str(i)).register_forward_hook(_hand_on, with_kwargs=True, prepend=True)
        for i in plan.dropped
    ]
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


def _choose(stacks: dict[str, Stack], name: str | None) -> Stack:
    known = ", ".join(f"'{known}'" for known in stacks)
    if name is None and len(stacks) > 1:
        raise PlanError(f"the model has several stacks ({known}); say which one with stack=")
    if name is not None and name not in stacks:
        raise PlanError(f"the model has no stack '{name}'; it has {known}")
    return stacks[name] if name is not None else next(iter(stacks.values()))


def _hand_on(module, args, kwargs, output):
    """Replace the hidden states in a layer's output by those in its input; the rest of a tuple stays."""
    states = args[0] if args else kwargs["hidden_states"]
    if isinstance(output, Tensor):
        return states
    rest = list(output[1:])
    if rest and len(args) > 1 and _same_kind(args[1], rest[0]):
        rest[0] = args[1]  # XLNet's second stream, the states of the queries
    return (states, *rest)


def _same_kind(one, other) -> bool:
    return (
        isinstance(one, Tensor) and isinstance(other, Tensor) and (one.shape, one.dtype) == (other.shape, other.dtype)
    )
