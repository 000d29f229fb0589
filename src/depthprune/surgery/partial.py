"""Run a model without some of its layers, from any layer on. Search and layer-wise scores are built on this.

A bypass (`bypass.py`) runs every layer and discards the output of some. Here dropped layers do not run, and neither do
the layers before the first difference from an earlier run, whose hidden states were cached. Whether this works is
determined on one small batch and checked against the bypass, bit for bit: a layer that computes something for other
layers (T5's first computes the position bias) still runs, and a model that computes something between its layers is
always run from the start.

Shapes: B sequences, T tokens, D hidden size.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from depthprune.errors import CannotDropError
from depthprune.surgery.bypass import bypass_lists, given_states, hand_on
from depthprune.surgery.modules import REFUSALS
from depthprune.surgery.stacks import Stack

Record = Callable[[int, Tensor], None]
NOTHING: frozenset[int] = frozenset()


class _Stop(Exception):
    """Ends a forward pass after the last layer that is needed."""


class PartialModel:
    """A model that can be run without some layers and from a given layer on.

    Use it as a context manager; afterwards the model is unchanged.

    Args:
        model: not copied. `learn` needs it in evaluation mode; gradients flow through `run` and `without`, but not with
            gradient checkpointing, which runs layers again.
        stack: the stack whose layers are dropped.

    Attributes:
        layer_runs: number of layers that ran, over all calls.
        resumes: whether a run can start at a layer; set by `learn`.
        skipped: layers that do not run when they are dropped; the others run and are bypassed.
    """

    def __init__(self, model: PreTrainedModel, stack: Stack):
        self.model, self.stack, self.depth = model, stack, stack.depth
        self.layer_runs = 0
        self.resumes = False
        self.skipped: frozenset[int] = NOTHING
        self._layouts: dict[int, Callable[[list[Tensor]], Any]] = {}
        self._dropped: frozenset[int] = NOTHING
        self._start = 0
        self._states: Mapping[int, Tensor] = {}  # what is given to a layer in place of what those before it put out
        self._stop: int | None = None
        self._learning: frozenset[int] = NOTHING
        self._record: Record | None = None

    def __enter__(self) -> "PartialModel":
        for i in range(self.depth) if self.layers() is not None else ():
            self._patch(i)
        return self

    def __exit__(self, *_: object) -> None:
        for layer in self.layers() or ():
            layer.__dict__.pop("forward", None)

    def layers(self) -> list[nn.Module] | None:
        """Return the layers, or None if a layer is not a single module (XLM) or runs several times."""
        if len(self.stack.paths) != 1:
            return None
        found = [self.model.get_submodule(f"{self.stack.path}.{i}") for i in range(self.depth)]
        return found if len(set(map(id, found))) == self.depth else None

    def replace(self, layer: int, module: nn.Module) -> None:
        """Replace a layer by another module, such as one whose weights were just loaded."""
        self.model.get_submodule(self.stack.path)[layer] = module  # pyright: ignore[reportIndexIssue]
        self._patch(layer)

    @contextmanager
    def learning(self, *which: int) -> Iterator[None]:
        """Determine from the runs inside the context how the outputs of some layers are composed."""
        self._learning = frozenset(which)
        try:
            yield
        finally:
            self._learning = NOTHING

    @contextmanager
    def without(self, dropped: frozenset[int]) -> Iterator[None]:
        """Let the model, called by itself, run without some layers as long as the context lasts."""
        with bypass_lists(self._lists(), sorted(dropped)) if self.layers() is None else nullcontext():
            self._dropped = dropped
            try:
                yield
            finally:
                self._dropped = NOTHING

    def knows(self, layer: int) -> bool:
        """Return whether a layer can be skipped: its output has no tensors but the hidden states and inputs."""
        return layer in self._layouts

    def learn(self, batch: Mapping[str, Tensor]) -> None:
        """Determine on a small batch which layers can be skipped and whether a run can start at a layer.

        Args:
            batch: the model's inputs; one or two rows are enough.
        """
        if self.layers() is None:
            return
        states: dict[int, Tensor] = {}
        calls = self.layer_runs
        with self.learning(*range(self.depth)):
            full = self.run(batch, record=lambda i, state: states.update({i: state}))
        if len(states) != self.depth:  # the layers do not run once each, in order
            self.layer_runs = calls
            return
        trusted = set()
        for i in self._layouts:
            wanted = self._bypassed(batch, i)
            self.skipped = frozenset({i})
            if wanted is not None and _equal(self._tried(batch, frozenset({i})), wanted):
                trusted.add(i)
        self.skipped = frozenset(trusted)
        self.resumes = True
        for start in {1, self.depth // 2, self.depth} - {0}:
            self.resumes = self.resumes and _equal(self._tried(batch, NOTHING, start, states[start]), full)
        self.layer_runs = calls

    def run(
        self,
        batch: Mapping[str, Tensor],
        dropped: frozenset[int] = NOTHING,
        *,
        start: int = 0,
        state: Tensor | None = None,
        stop: int | None = None,
        record: Record | None = None,
    ) -> Any:
        """Run the model on a batch without the layers `dropped`.

        Args:
            batch: the model's inputs.
            dropped: layers to skip.
            start: the first layer to run, on the hidden states `state`.
            state: [B, T, D].
            stop: end before this layer; nothing is returned then.
            record: called with (i + 1, output state of layer i) for every layer from `start` on.

        Returns:
            The model's output; None if `stop` is given.
        """
        if self.layers() is None:
            assert start == 0 and stop is None and record is None
            self.layer_runs += self.depth
            with self.without(dropped):
                return self.model(**batch)
        self._dropped, self._stop, self._record = dropped, stop, record
        try:
            with self.starting(start, {} if state is None else {start: state}):
                return self.model(**batch)
        except _Stop:
            return None
        finally:
            self._dropped, self._stop, self._record = NOTHING, None, None

    @contextmanager
    def starting(self, layer: int, states: Mapping[int, Tensor]) -> Iterator[None]:
        """Let the runs of the model inside the context, whoever calls it, start at a layer.

        Args:
            layer: the first to run.
            states: number of a layer → the hidden states [B, T, D] that it is given; of `layer`, and of those before it
                whose hidden states the caller reads (`output_hidden_states`).
        """
        self._start, self._states = layer, states
        try:
            yield
        finally:
            self._start, self._states = 0, {}

    def _lists(self) -> list[nn.Module]:
        return [self.model.get_submodule(path) for path in self.stack.paths]

    def _patch(self, i: int) -> None:
        layer = self.model.get_submodule(f"{self.stack.path}.{i}")
        original = layer.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            output = self._forward(i, layer, original, args, kwargs)
            if self._record is not None and i >= self._start:
                self._record(i + 1, leaving(output))
            if self._stop == i + 1:
                raise _Stop
            return output

        layer.forward = forward

    def _forward(self, i: int, layer: nn.Module, original: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        early, gone = i < self._start, i in self._dropped
        if not early and not gone:
            self.layer_runs += 1
            output = original(*args, **kwargs)
            if i in self._learning:
                self._learn_layout(i, layer, args, kwargs, output)
            return output
        given = given_states(args, kwargs)
        state = self._states.get(i + 1, self._states.get(self._start)) if early else None
        if state is not None:
            given = [state, *given[1:]]
        if i in self.skipped or (early and i in self._layouts):
            return self._layouts[i](given)
        self.layer_runs += 1
        output = hand_on(layer, args, kwargs, original(*args, **kwargs))
        return output if state is None else _with_state(output, state)

    def _learn_layout(self, i: int, layer: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        try:
            layout = _layout(hand_on(layer, args, kwargs, output), given_states(args, kwargs))
        except CannotDropError:
            return
        if layout is not None:
            self._layouts[i] = layout

    def _bypassed(self, batch: Mapping[str, Tensor], layer: int) -> Any:
        """Run the model with one layer bypassed; None if it cannot be bypassed."""
        try:
            with bypass_lists([self.model.get_submodule(self.stack.path)], (layer,)):
                return self.run(batch)
        except CannotDropError:
            return None

    def _tried(self, batch: Mapping[str, Tensor], dropped: frozenset[int], start: int = 0, state=None) -> Any:
        """Run, or return None if the model fails that way (a later layer may need a side effect of an earlier one)."""
        try:
            return self.run(batch, dropped, start=start, state=state)
        except REFUSALS:
            return None


def leaving(output: Any) -> Tensor:
    """Return the hidden states in a layer's output."""
    if isinstance(output, Tensor):
        return output
    first = next(iter(output.values())) if isinstance(output, Mapping) else output[0]
    return first if isinstance(first, Tensor) else first[0]


def _with_state(output: Any, state: Tensor) -> Any:
    if isinstance(output, Tensor):
        return state
    return type(output)((state, *output[1:]))


def _layout(handed: Any, given: list[Tensor]) -> Callable[[list[Tensor]], Any] | None:
    """Return a function from a layer's input states to its bypassed output; None if the output has other tensors."""
    if isinstance(handed, Tensor):
        return lambda now: now[0]
    if not isinstance(handed, tuple | list) or isinstance(handed, Mapping) or type(handed) not in (tuple, list):
        return None
    places: list[tuple[int | None, Any]] = []
    for item in handed:
        if isinstance(item, Tensor):
            at = next((n for n, tensor in enumerate(given) if tensor is item), None)
            if at is None:
                return None
            places.append((at, None))
        elif item is None or isinstance(item, bool | int | float | str):
            places.append((None, item))
        else:
            return None
    kind = type(handed)
    return lambda now: kind(now[at] if at is not None else constant for at, constant in places)


def _equal(one: Any, other: Any) -> bool:
    """Compare the first tensor of two outputs, bit for bit; NaN differs from everything."""
    return one is not None and torch.equal(one[0], other[0])


@contextmanager
def partial_model(model: PreTrainedModel, stack: Stack, sample: Mapping[str, Tensor]) -> Iterator[PartialModel]:
    """Return a `PartialModel` that has learnt from the first two rows of `sample`."""
    with PartialModel(model, stack) as runner, torch.inference_mode():
        runner.learn({name: value[:2] if isinstance(value, Tensor) else value for name, value in sample.items()})
        yield runner
