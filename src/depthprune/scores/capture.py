"""One forward pass over the data, for all similarity scores at once.

Hooks on the layers add to running sums (`sums.py`) while the model runs; only one token per sequence of the current
batch is kept.

Shapes: B sequences, T tokens, D hidden size.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from depthprune.errors import CannotDropError, UserError
from depthprune.scores.sums import SimilaritySums, pooled
from depthprune.surgery.bypass import given_states
from depthprune.surgery.partial import leaving
from depthprune.surgery.stacks import Stack

# Models whose layers take [T, B, D]; the shapes do not show it if B equals T.
SEQUENCE_FIRST = ("xlnet",)

Batch = Mapping[str, Tensor]
Step = Callable[[int, int], None]


def similarity_pass(
    model: PreTrainedModel,
    stack: Stack,
    batches: Sequence[Batch],
    *,
    token: str,
    on_step: Step = lambda done, total: None,
) -> SimilaritySums:
    """Run `model` over `batches` and return the sums of all similarity scores of a stack.

    Args:
        model: in evaluation mode; runs where its weights are.
        stack: one of `find_stacks(model)`.
        batches: the model's inputs; `attention_mask` is true for real tokens.
        token: `first`, `last` or `mean`: what stands for a sequence in the methods of a single token.
        on_step: called with (batches done, batches in all).

    Raises:
        UserError: if hidden states are not finite.
        CannotDropError: if the shapes of the layers' states differ.
    """
    if not stack.paths:
        raise CannotDropError("all passes share the weights of one layer, so there are no layers to compare")
    sums = SimilaritySums(stack.depth)
    watch = _Watch(sums, stack, token, sequence_first=model.config.model_type in SEQUENCE_FIRST)
    handles = []
    for i in range(stack.depth):
        # Of parallel lists, the first has the part of a layer that runs first and the last the part that runs last.
        first = model.get_submodule(f"{stack.paths[0]}.{i}")
        last = model.get_submodule(f"{stack.paths[-1]}.{i}")
        handles.append(first.register_forward_pre_hook(watch.entering(i), with_kwargs=True))
        handles.append(last.register_forward_hook(watch.leaving(i)))
    try:
        with torch.inference_mode():
            for number, batch in enumerate(batches):
                watch.begin(number, batch)
                model(**batch)
                watch.finish()
                on_step(number + 1, len(batches))
    finally:
        for handle in handles:
            handle.remove()
    return sums


class _Watch:
    """Records the hidden states of one batch."""

    def __init__(self, sums: SimilaritySums, stack: Stack, token: str, *, sequence_first: bool):
        self._sums, self._stack, self._token = sums, stack, token
        self._sequence_first = sequence_first
        self._number = 0
        self._batch: Batch = {}
        self._mask = torch.empty(0)  # of the current batch
        self._inputs: dict[int, Tensor] = {}
        self._pooled: list[Tensor] = []

    def begin(self, number: int, batch: Batch) -> None:
        self._number, self._batch = number, batch
        self._inputs.clear()
        self._pooled.clear()

    def entering(self, layer: int) -> Callable:
        def hook(module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
            states = given_states(args, kwargs)
            if not states:
                raise CannotDropError(f"layer {layer} ({type(module).__name__}) is given no hidden states")
            state = self._in_order(states[0])
            if layer == 0:
                self._mask = mask_of(self._batch, self._stack, state)
            self._inputs[layer] = state
            self._pooled.append(pooled(state, self._mask, self._token))

        return hook

    def leaving(self, layer: int) -> Callable:
        def hook(module: Any, args: tuple, output: Any) -> None:
            before, after = self._inputs.pop(layer), self._in_order(leaving(output))
            if before.shape != after.shape:
                raise CannotDropError(
                    f"layer {layer} ({type(module).__name__}) is given {tuple(before.shape)} and returns "
                    f"{tuple(after.shape)}, which cannot be compared"
                )
            self._sums.add_layer(layer, before, after, self._mask, batch=self._number)
            if layer == self._sums.depth - 1:
                self._pooled.append(pooled(after, self._mask, self._token))

        return hook

    def _in_order(self, states: Tensor) -> Tensor:
        return states.transpose(0, 1) if self._sequence_first else states

    def finish(self) -> None:
        if len(self._pooled) != self._sums.depth + 1:
            raise CannotDropError(f"{len(self._pooled) - 1} of {self._sums.depth} layers ran; the stack is not a chain")
        self._sums.add_tokens(self._pooled, self._mask)


def mask_of(batch: Batch, stack: Stack, states: Tensor) -> Tensor:
    """Return which tokens [B, T] of a stack's hidden states are real; for the decoder of an encoder-decoder, the
    decoder's.

    Raises:
        UserError: if the states are not a sequence.
    """
    if states.dim() != 3:
        raise UserError(f"the states of the stack '{stack.name}' are {list(states.shape)}, and not [B, T, D]")
    with_decoder = "decoder_input_ids" in batch
    name = "decoder_attention_mask" if with_decoder and "decoder" in stack.name else "attention_mask"
    mask = batch.get(name)
    if mask is None or mask.shape != states.shape[:2]:
        return torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
    return mask.bool()
