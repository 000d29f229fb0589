"""The hidden states that stand for each row, after the embeddings and after every layer.

That is the state of one token, or the mean over all real ones; several of these come from one forward pass.

Hooks see the states that enter the first layer and those that leave each layer. The last ones are therefore those
before a norm that stands behind the stack (ModernBERT, GPT-2, Llama), unlike the last of transformers'
`output_hidden_states`: every layer is looked at in the same place. For BERT, RoBERTa, DistilBERT and XLNet, which have
no such norm, both are the same.

Shapes: N rows, B sequences of a batch, W ways to stand for a row, T tokens, L layers, D hidden size.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from depthprune.errors import CannotDropError, UserError
from depthprune.evaluation.batching import collate
from depthprune.loading import load_classifier
from depthprune.scores.batches import is_decoder
from depthprune.scores.capture import SEQUENCE_FIRST, mask_of
from depthprune.scores.sums import pooled
from depthprune.sources import ModelSource
from depthprune.surgery.bypass import given_states
from depthprune.surgery.modules import find_stacks
from depthprune.surgery.partial import leaving
from depthprune.surgery.stacks import Stack

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset


@dataclass
class Body:
    """A model without its head, with its tokenizer.

    Args:
        model: in evaluation mode and float32; runs where its weights are.
        stack: its only one.
        tokenizer: the model's.
        name: for messages.
    """

    model: Any
    stack: Stack
    tokenizer: Any
    name: str


def load_body(source: ModelSource, tokenizer: Any, num_outputs: int, device: str) -> Body:
    """Load a model as a run does, without its head.

    Raises:
        UserError: if the model cannot be loaded, or its layers cannot be told apart.
    """
    model, _ = load_classifier(source, num_outputs, device=device)
    body = model.base_model.eval()
    stack = next(iter(find_stacks(body).values()))
    if not stack.paths:
        raise CannotDropError(f"all passes of '{source.name}' share one layer: it has no layers to compare")
    return Body(body, stack, tokenizer, source.name)


def all_states(
    body: Body, rows: "Dataset", *, tokens: Sequence[str], batch_size: int, on_step: Callable[[int, int], None]
) -> "np.ndarray":
    """Return the states [W, N, L + 1, D] that stand for each of N rows, in their order. See `token_states`.

    Args:
        on_step: called with (rows done, rows in all).
    """
    import numpy as np

    found_WNLD, done = np.empty(0), 0
    for numbers, states_WBLD in token_states(body, rows, tokens=tokens, batch_size=batch_size):
        if not done:
            ways, _, *more = states_WBLD.shape
            found_WNLD = np.empty((ways, len(rows), *more), dtype=np.float32)
        found_WNLD[:, numbers] = states_WBLD.numpy()
        done += len(numbers)
        on_step(done, len(rows))
    return found_WNLD


def token_states(
    body: Body, rows: "Dataset", *, tokens: Sequence[str], batch_size: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Run a model over rows, batched by length, and yield the hidden states that stand for each.

    Args:
        body: from `load_body`.
        rows: tokenised (`tasks.data.encoding.encode`).
        tokens: each `first` or `last`, a real token on either side of the padding, or `mean`, over all of a row's.
        batch_size: rows a forward pass.

    Yields:
        The numbers of the rows of a batch, and their states [W, B, L + 1, D] in float32 on the CPU, one W a token: 0
        after the embeddings, i after i layers.

    Raises:
        UserError: if a row has no tokens, hidden states are not finite, or the layers do not run one after the other.
    """
    lengths = rows["length"][:]
    order = sorted(range(len(rows)), key=lengths.__getitem__, reverse=True)
    watch = _Watch(body, tokens)
    handles = watch.attach()
    try:
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            batch = _inputs(body, rows[numbers])
            with torch.inference_mode():  # not around the yield, where it would affect the caller too
                states_WBLD = watch.run(batch)
            yield numbers, states_WBLD
    finally:
        for handle in handles:
            handle.remove()


def _inputs(body: Body, rows: dict[str, list]) -> dict[str, Any]:
    inputs = collate(body.tokenizer, rows, device=body.model.device)
    takes = inspect.signature(body.model.forward).parameters
    if body.tokenizer.padding_side == "left" and is_decoder(body.model) and "position_ids" in takes:
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    return inputs | ({"use_cache": False} if "use_cache" in takes else {})


class _Watch:
    """Sees the states of one batch."""

    def __init__(self, body: Body, tokens: Sequence[str]):
        self._body, self._tokens = body, tokens
        self._sequence_first = body.model.config.model_type in SEQUENCE_FIRST
        self._batch: dict[str, Any] = {}
        self._mask = torch.empty(0)
        self._seen: list[Tensor] = []
        self._ran: list[int] = []

    def attach(self) -> list[Any]:
        model, stack = self._body.model, self._body.stack
        # Of parallel lists the first holds what runs first in a layer and the last what runs last.
        first = model.get_submodule(f"{stack.paths[0]}.0")
        handles = [first.register_forward_pre_hook(self._entering, with_kwargs=True)]
        for i in range(stack.depth):
            layer = model.get_submodule(f"{stack.paths[-1]}.{i}")
            handles.append(layer.register_forward_hook(self._leaving(i)))
        return handles

    def run(self, batch: dict[str, Any]) -> Tensor:
        self._batch = batch
        self._seen.clear()
        self._ran.clear()
        self._body.model(**batch)
        if self._ran != list(range(self._body.stack.depth)):
            raise CannotDropError(f"the layers of '{self._body.name}' are not a chain, so there is no 'after layer i'")
        states_WBLD = torch.stack(self._seen, dim=2).cpu()
        if not bool(torch.isfinite(states_WBLD).all()):
            raise UserError(f"'{self._body.name}' returns states that are not finite; look for a broken checkpoint")
        return states_WBLD

    def _entering(self, module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        given = given_states(args, kwargs)
        if not given:
            raise CannotDropError(f"the first layer of '{self._body.name}' is given no states")
        states_BTD = self._in_order(given[0])
        self._mask = mask_of(self._batch, self._body.stack, states_BTD)
        self._see(states_BTD)

    def _leaving(self, layer: int) -> Callable:
        def hook(module: Any, args: tuple, output: Any) -> None:
            self._ran.append(layer)
            self._see(self._in_order(leaving(output)))

        return hook

    def _see(self, states_BTD: Tensor) -> None:
        self._seen.append(torch.stack([pooled(states_BTD, self._mask, token) for token in self._tokens]))

    def _in_order(self, states: Tensor) -> Tensor:
        return states.transpose(0, 1) if self._sequence_first else states
