"""The same scores for a model that does not fit into memory: all calibration data through one layer at a time.

The arithmetic and its order are those of the forward pass in memory, so that the scores are equal bit for bit on a CPU
in float32. Only one layer, the modules outside the layers, and the hidden states between two layers are kept, the
latter in memory or on disk.

Shapes: B sequences, T tokens, D hidden size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from depthprune.checkpoints.piecewise import PiecewiseModel
from depthprune.errors import CannotDropError
from depthprune.scores.base import LayerScores
from depthprune.scores.batches import Batches
from depthprune.scores.capture import SEQUENCE_FIRST, Batch, mask_of
from depthprune.scores.objectives.base import Objective
from depthprune.scores.predictions import check_finite
from depthprune.scores.states import StateStore
from depthprune.scores.sums import SimilaritySums
from depthprune.scores.sums import pooled as pooled_states
from depthprune.surgery.bypass import given_states
from depthprune.surgery.partial import PartialModel

Step = Callable[[int, int], None]
FULL = -1


def similarity_by_layer(
    pieces: PiecewiseModel, batches: Sequence[Batch], store: StateStore, *, token: str, on_step: Step
) -> SimilaritySums:
    """Return what `capture.similarity_pass` returns, with one layer loaded at a time.

    Args:
        pieces: the checkpoint.
        batches: inputs of the model.
        store: for the hidden states between two layers.
        token: `first`, `last` or `mean`.
        on_step: called with (layers done, layers in all).

    Raises:
        CannotDropError: if the layers are not a chain of functions of hidden states.
    """
    depth = pieces.stack.depth
    sums = SimilaritySums(depth)
    turned = pieces.model.config.model_type in SEQUENCE_FIRST
    masks: list[Tensor] = []
    pooled: list[list[Tensor]] = [[] for _ in batches]

    def see(layer: int, number: int, before: Tensor, after: Tensor) -> None:
        if turned:
            before, after = before.transpose(0, 1), after.transpose(0, 1)
        if layer == 0:
            masks.append(mask_of(batches[number], pieces.stack, before))
        mask = masks[number]
        sums.add_layer(layer, before, after, mask, batch=number)
        pooled[number].append(pooled_states(before, mask, token))
        if layer == depth - 1:
            pooled[number].append(pooled_states(after, mask, token))

    with _Chain(pieces, store) as chain, torch.inference_mode():
        for layer in range(depth):
            with chain.loaded(layer):
                for number, batch in enumerate(batches):
                    see(layer, number, *chain.advance(layer, number, FULL, batch))
            on_step(layer + 1, depth)
    for number, mask in enumerate(masks):
        sums.add_tokens(pooled[number], mask)
    return sums


def loss_by_layer(
    pieces: PiecewiseModel, batches: Batches, objective: Objective, store: StateStore, *, on_step: Step
) -> LayerScores:
    """Return the scores of `methods.loss` with one layer loaded at a time.

    Every model with one layer dropped runs through the remaining layers beside the full model, from the first
    difference.
    """
    depth = pieces.stack.depth
    parts: dict[int, list[tuple[float, int]]] = {path: [] for path in (FULL, *range(depth))}
    with _Chain(pieces, store) as chain, torch.inference_mode():
        for layer in range(depth):
            with chain.loaded(layer):
                for number, batch in enumerate(batches.inputs):
                    for path in range(layer):
                        chain.advance(layer, number, path, batch)
                    before, _ = chain.advance(layer, number, FULL, batch)
                    chain.put(layer, number, before)
            on_step(layer + 1, depth)
        for number, batch in enumerate(batches):
            full = chain.head(number, FULL, batch.inputs)
            for path in parts:
                output = full if path == FULL else chain.head(number, path, batch.inputs)
                total, count = objective.cost(output, batch, batches.head, full)
                check_finite(total, number, () if path == FULL else (path,))
                parts[path].append((total, count))
    values = {
        path: objective.finish(sum(total for total, _ in each) / sum(count for _, count in each))
        for path, each in parts.items()
    }
    return LayerScores(tuple(values[i] - values[FULL] for i in range(depth)))


class _Chain:
    """A model whose layers are loaded in turn, with the latest hidden states of every path for each batch."""

    def __init__(self, pieces: PiecewiseModel, store: StateStore):
        self._pieces, self._store = pieces, store
        self._runner = PartialModel(pieces.model, pieces.stack)

    def __enter__(self) -> "_Chain":
        self._runner.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._runner.__exit__(*error)

    def loaded(self, layer: int) -> "_Loaded":
        return _Loaded(self._runner, layer, self._pieces.layer(layer))

    def advance(self, layer: int, number: int, path: int, batch: Batch) -> tuple[Tensor, Tensor]:
        """Run a layer on a path's state of a batch; returns its input and output."""
        states: dict[int, Tensor] = {}
        waiting = None if layer == 0 else self._store.take(((path,), number))

        def entering(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            states[layer] = given_states(args, kwargs)[0]

        module = self._pieces.model.get_submodule(f"{self._pieces.stack.path}.{layer}")
        hook = module.register_forward_pre_hook(entering, with_kwargs=True)
        try:
            self._runner.run(
                batch,
                start=layer,
                state=waiting,
                stop=layer + 1,
                record=lambda i, state: states.update({i: state}),
            )
        finally:
            hook.remove()
        if waiting is not None and not torch.equal(states[layer], waiting):
            raise CannotDropError(
                f"the model computes something between layers {layer - 1} and {layer}, so it cannot run by layers; "
                "leave --layerwise out"
            )
        self._store.put(((path,), number), states[layer + 1], spill=True)
        return states[layer], states[layer + 1]

    def put(self, path: int, number: int, state: Tensor) -> None:
        """Start a path at a state."""
        self._store.put(((path,), number), state, spill=True)

    def head(self, number: int, path: int, batch: Batch) -> Any:
        """Run the modules after the layers."""
        return self._runner.run(batch, start=self._pieces.stack.depth, state=self._store.get(((path,), number)))


class _Loaded:
    """A layer in its place in the model, while the context lasts."""

    def __init__(self, runner: PartialModel, layer: int, module: nn.Module):
        self._runner, self._layer, self._module = runner, layer, module

    def __enter__(self) -> None:
        self._runner.replace(self._layer, self._module)
        self._watching = self._runner.learning(self._layer)
        self._watching.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._watching.__exit__(*error)
        self._runner.replace(self._layer, nn.Identity())
        del self._module
        if error[0] is None and not self._runner.knows(self._layer):
            raise CannotDropError(
                f"layer {self._layer} returns more than hidden states, which later layers use; leave --layerwise out"
            )
