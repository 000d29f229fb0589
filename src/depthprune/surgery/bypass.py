"""Try a plan without changing the model: a bypassed layer passes its input through.

It shares no code with `drop_layers`, so that each tests the other.

A layer maps hidden states to hidden states, and may take and return more. Everything in its output that corresponds to
an input is replaced by that input: the hidden states, XLNet's second stream, the text states beside those of the image.
What only the output has is kept, since the layer still runs: T5's first layer computes the position bias that all
layers use.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from depthprune.arguments import checked
from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan, choose_stack
from depthprune.surgery.modules import find_stacks
from depthprune.surgery.stacks import depths_of

# Names of the hidden states among a layer's arguments and outputs, if they are not the first argument.
STATES = ("hidden_states", "hidden_state", "x", "input", "vision_features", "text_features")

# Layers that return the residual branch only, which the model adds to the hidden states.
ADDENDS = ("SuperGlueAttentionalPropagation",)
# Names of the classes of attention and feed-forward branches in models that keep them in lists of their own.
BRANCHES = ("Attention", "FFN", "FeedForward", "MLP", "Mlp")


@checked("bypassed")
@contextmanager
def bypassed(model: PreTrainedModel, layers: Iterable[int], *, stack: str | None = None) -> Iterator[PreTrainedModel]:
    """Make `layers` of a stack pass their input through while the context lasts.

    The layers still run, and what they add is discarded; no weight is copied.

    Args:
        model: the model to try the plan on.
        layers: indices of the layers to bypass.
        stack: which stack, for a model that has several; its only one by default.

    Raises:
        PlanError: if a layer or the stack does not exist, or the model has several stacks and none is named.
        CannotDropError: during a forward pass, if a layer changes the shape of its hidden states; at the end, if the
            model ran a layer only in parts, so that nothing was bypassed.
    """
    stacks = find_stacks(model)
    chosen = stacks[choose_stack(depths_of(stacks), stack, advice="say which one with stack=")]
    plan = LayerPlan(chosen.depth, tuple(layers))
    with bypass_lists([model.get_submodule(path) for path in chosen.paths], plan.dropped):
        yield model


@contextmanager
def bypass_lists(lists: list[nn.Module], layers: Iterable[int]) -> Iterator[None]:
    """Make entries `layers` of parallel module lists pass their input through.

    Some models keep the parts of layers in parallel lists (XLM has one each for attention, feed-forward and the norms
    after them; BLT one for cross attention), and add the outputs of attention and feed-forward outside of them: these
    return zero, everything else passes its input through.
    """
    layers = tuple(layers)
    watches, handles = [], []
    for part in lists:
        for i in layers:
            module = part.get_submodule(str(i))
            kind = type(module).__name__
            adds_nothing = kind in ADDENDS or (len(lists) > 1 and kind.endswith(BRANCHES))
            # prepend: transformers records hidden states with hooks of its own, which must see the bypassed output.
            hook = _add_nothing if adds_nothing else hand_on
            handles.append(module.register_forward_hook(hook, with_kwargs=True, prepend=True))
            watches.append(_Watch(i, module))
            handles += watches[-1].handles
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for watch in watches:
        watch.check()


class _Watch:
    """Observes whether a layer ran as a whole or only in parts."""

    def __init__(self, layer: int, module: nn.Module):
        self._layer, self._ran, self._parts_ran = layer, False, False
        self._name = type(module).__name__
        parts = [part for part in module.modules() if part is not module]
        self.handles = [module.register_forward_pre_hook(self._see)]
        self.handles += [part.register_forward_pre_hook(self._see_part) for part in parts]

    def _see(self, module, args) -> None:
        self._ran = True

    def _see_part(self, module, args) -> None:
        self._parts_ran = True

    def check(self) -> None:
        if self._parts_ran and not self._ran:
            raise CannotDropError(
                f"layer {self._layer} ({self._name}) cannot be bypassed: the model runs its parts separately"
            )


def hand_on(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Replace what corresponds to a layer's input in its output, and keep the rest."""
    given = given_states(args, kwargs)
    if not given:
        raise CannotDropError(f"a {type(module).__name__} cannot be bypassed: it is given no hidden states")
    if isinstance(output, Tensor):
        return _in_place_of(output, given, module)
    if isinstance(output, Mapping):
        replaced = _replace(list(output.values()), given, module)
        return type(output)(**dict(zip(output, replaced, strict=True)))
    if isinstance(output, tuple | list) and output:
        if isinstance(output[0], tuple):  # Grounding DINO's layers return a pair: (image, text), attentions
            return (tuple(_replace(list(output[0]), given, module)), *output[1:])
        return type(output)(_replace(list(output), given, module))
    return output


def given_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the floating-point tensors that a layer is given, the hidden states first."""
    named = sorted(kwargs.items(), key=lambda item: STATES.index(item[0]) if item[0] in STATES else len(STATES))
    values = [*args, *(value for _, value in named)]
    return [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]


def _replace(items: list[Any], given: list[Tensor], module: nn.Module) -> list[Any]:
    """Replace the first item by the hidden states, and each further item that matches a further input by that input."""
    first = _in_place_of(items[0], given, module)
    rest, left = [], [tensor for tensor in given if tensor is not first]
    for item in items[1:]:
        same = next((tensor for tensor in left if same_kind(tensor, item)), None)
        left = [tensor for tensor in left if tensor is not same]
        rest.append(item if same is None else same)
    return [first, *rest]


def _in_place_of(output: Any, given: list[Tensor], module: nn.Module) -> Tensor:
    if same_kind(given[0], output):
        return given[0]
    was, became = tuple(given[0].shape), tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise CannotDropError(f"a {type(module).__name__} cannot be bypassed: it is given {was} and returns {became}")


def _add_nothing(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    if isinstance(output, Tensor):
        return torch.zeros_like(output)
    return (torch.zeros_like(output[0]), *output[1:])


def same_kind(one: Any, other: Any) -> bool:
    return (
        isinstance(one, Tensor) and isinstance(other, Tensor) and (one.shape, one.dtype) == (other.shape, other.dtype)
    )
