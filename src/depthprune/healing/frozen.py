"""Frozen layers at the bottom of a model: where nothing in them is random, they are computed once for all epochs.

Where neither the embeddings nor the first layers learn, and nothing in them is random, the states that leave them are
the same in every epoch. They are computed once and kept (`kept_states`), and each step starts at the first layer that
learns (`surgery.partial`). That this gives the model's own answers is checked on a few rows before, so that it needs no
list of architectures.

Shapes: B sequences, T tokens, N real tokens, S states, D hidden size.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DataCollatorWithPadding

from depthprune import processes
from depthprune.healing.base import Schedule, TrainingData
from depthprune.healing.kept_states import LARGEST, KeptStates, NoRoomError, batches_by_length, num_bytes, size_line
from depthprune.healing.without_dropout import has_parts_without_dropout, without_dropout
from depthprune.surgery.modules import REFUSALS, find_stacks
from depthprune.surgery.partial import PartialModel

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

    from depthprune.healing.trainer import Loss

NUMBER = "frozen_row"  # a column: where a row's states are
CLOSE = 1e-4  # relative to the largest; float32 rounds to 1e-7, and padding to another length moves the last digits
TRIED = 4  # rows of the check, of different lengths


@contextmanager
def frozen_layers(model: "PreTrainedModel") -> Iterator["FrozenLayers"]:
    """Let what is to have no dropout run without while the context lasts; yields what can be computed once."""
    with without_dropout(model), ExitStack() as until_the_end:
        yield FrozenLayers(model, until_the_end)


class FrozenLayers:
    """The frozen layers at the bottom of a model, during a training.

    Args:
        model: that is trained.
        until_the_end: undoes what is done to it.

    Attributes:
        how: how their states are come by, for a reader; None where they are computed in each epoch, and nobody asked
            for anything else.
        seconds: that computing them once took.
    """

    def __init__(self, model: "PreTrainedModel", until_the_end: ExitStack):
        self._model, self._until_the_end = model, until_the_end
        self.how: str | None = None
        self.seconds = 0.0

    def compute_once(
        self,
        data: TrainingData,
        schedule: Schedule,
        loss: "Loss | None",
        reads: Sequence[int] | None,
        folder: Path,
        *,
        drops: bool = False,
    ) -> "tuple[Dataset, Loss | None]":
        """Compute the states that leave the frozen layers, and return the rows and the loss of a training with these.

        Rows and loss are those that were given where something before these states learns or is random.

        Args:
            data: the rows of the training.
            schedule: the training's; a single epoch computes all states once anyway.
            loss: the training's; the model's own if None.
            reads: the hidden states that a loss that is given reads, as `output_hidden_states` counts them; None if it
                reads anything else of the layers, such as attentions.
            folder: temporary, for the states.
            drops: whether layers go in the course of the training.
        """
        learns = [parameter.requires_grad for parameter in self._model.base_model.parameters()]
        # Each of several processes would compute all rows, and read its share of them.
        if all(learns) or schedule.num_epochs <= 1 or drops or processes.count() > 1:
            return data.rows, loss
        started = time.perf_counter()
        bottom, problem = self._bottom(data, () if loss is None else reads, schedule.precision)
        if bottom is not None:
            size = (data.rows["length"][:], len(bottom.states), bottom.hidden_size, bottom.dtype)
            needed = num_bytes(*size)
            problem = f"their states would take {size_line(needed)}"
            if needed <= LARGEST:
                try:
                    kept = KeptStates(folder, *size)
                except NoRoomError as error:
                    where = f"the disk of '{folder.parent}'"
                    problem = f"their states take {needed:,} bytes, and {where} has {error.free:,} to spare"
                else:
                    self.how = (
                        f"computed once; the states of {bottom.count} layers take {size_line(needed)} on the disk"
                    )
                    bottom.fill(kept, data, f"the frozen layers ({self.how})")
                    self.seconds = time.perf_counter() - started
                    numbered = data.rows.add_column(NUMBER, list(range(len(data.rows))))
                    return numbered, bottom.resumed(kept, loss)
        if problem and has_parts_without_dropout(self._model):
            self.how = f"computed in each epoch: {problem}"
        return data.rows, loss

    def _bottom(self, data: TrainingData, reads: Sequence[int] | None, precision: str) -> "tuple[_Bottom | None, str]":
        """Return what can be computed once, or why it cannot."""
        stacks = list(find_stacks(self._model).values())
        if len(stacks) != 1:
            return None, "the model has several stacks of layers"
        if reads is None:
            return None, "the method needs all layers to run"
        runner = self._until_the_end.enter_context(PartialModel(self._model, stacks[0]))
        learns = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in runner.layers() or ()]
        count = [*learns, True].index(True)
        if not count or "attention_mask" not in data.rows.column_names:
            return None, "the first layer is not frozen" if learns else "the model's layers are no plain list"
        low = {state % (runner.depth + 1) for state in reads}
        bottom = _Bottom(runner, count, sorted({count, *(state for state in low if 0 < state < count)}), precision)
        try:
            problem = bottom.learn(_sample(data).to(self._model.device))
        except REFUSALS as error:
            problem = f"the model does not run from a layer on ({type(error).__name__})"
        return (None, problem) if problem else (bottom, "")


def _sample(data: TrainingData) -> Any:
    """Return some rows of different lengths as a batch without labels."""
    lengths = data.rows["length"][:]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    numbers = sorted({order[(len(order) - 1) * i // (TRIED - 1)] for i in range(TRIED)})
    if len(numbers) == max(lengths[number] for number in numbers):
        numbers.pop()  # a batch as long as it is wide would not show which is which
    rows = data.rows.remove_columns([name for name in ("length", "labels", "row") if name in data.rows.column_names])
    return DataCollatorWithPadding(data.tokenizer)(rows.select(numbers).to_list())


class _Bottom:
    """The frozen layers, and how to start behind them.

    Args:
        runner: of the model.
        count: how many layers are frozen, from the first on.
        states: which states are kept, by the layer that is given them; the last one is `count`.
        precision: of the training.
    """

    def __init__(self, runner: PartialModel, count: int, states: Sequence[int], precision: str):
        self._runner, self.count, self.states, self._precision = runner, count, states, precision
        self._swapped = False  # XLNet's layers take [T, B, D]
        self.hidden_size, self.dtype = 0, torch.float32

    def learn(self, batch: Any) -> str:
        """Learn from a batch how to start behind the layers; return why that cannot be, or an empty text."""
        model = self._runner.model
        was_training, cuda = model.training, [model.device] if model.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(cuda), self._autocast():
                model.train()
                before = _random_states(model)
                state = self._record(batch)[self.count]
                if state.requires_grad:
                    return "something before them learns, such as the embeddings"
                if any(not torch.equal(one, other) for one, other in zip(before, _random_states(model), strict=True)):
                    return "something in them, or before them, is random (dropout)"
            shape = tuple(batch["attention_mask"].shape)
            self.hidden_size, self.dtype, self._swapped = state.shape[-1], state.dtype, state.shape[:2] == shape[::-1]
            if state.ndim != 3 or (state.shape[:2] != shape and not self._swapped):
                return "the layers are not given states of sequences"
            model.eval()
            with torch.no_grad():
                return self._difference(batch)
        finally:
            model.train(was_training)

    def _difference(self, batch: Any) -> str:
        """Compare the model with one that starts behind the layers, on states of rows without padding."""
        with self._runner.learning(*range(self.count)):
            asked: Any = {**batch, "output_hidden_states": True}
            full = self._runner.run(asked)
        mask_BT = batch["attention_mask"].bool()
        alone = []
        for row, mask_T in enumerate(mask_BT):
            one = {name: values[row : row + 1][:, mask_T] for name, values in batch.items()}
            alone.append(self._picked(self._record(one), one["attention_mask"].bool()))
        with self._runner.starting(self.count, self._padded(torch.cat(alone), mask_BT)):
            resumed = self._runner.model(**batch, output_hidden_states=True)
        pairs = [(full[0], resumed[0])]
        pairs += [(full.hidden_states[state], resumed.hidden_states[state]) for state in (0, *self.states)]
        for one, other in pairs:
            if one.shape[:2] == mask_BT.shape:  # nobody reads padding
                one, other = one[mask_BT], other[mask_BT]
            if not (one - other).abs().max() <= CLOSE * one.abs().max():
                return "the states of a row depend on the other rows of its batch, or the layers on more than states"
        return ""

    def fill(self, kept: KeptStates, data: TrainingData, stage: str) -> None:
        """Compute the states of all rows."""
        model, done = self._runner.model, 0
        was_training = model.training
        model.eval()
        for rows, batch in batches_by_length(data):
            batch = batch.to(model.device)
            with torch.no_grad(), self._autocast():
                found = self._record(batch)
            kept.put(rows, self._picked(found, batch["attention_mask"].bool()).cpu())
            done += len(rows)
            data.on_progress(stage, done, len(data.rows))
        model.train(was_training)

    def resumed(self, kept: KeptStates, loss: "Loss | None") -> "Loss":
        """Return a loss whose model starts behind the layers."""

        def of(model: Any, batch: dict[str, Tensor]) -> Tensor:
            rows, mask_BT = batch.pop(NUMBER).tolist(), batch["attention_mask"].bool()
            with self._runner.starting(self.count, self._padded(kept.of(rows).to(mask_BT.device), mask_BT)):
                return model(**batch).loss if loss is None else loss(model, batch)

        return of

    def _record(self, batch: Mapping[str, Tensor]) -> dict[int, Tensor]:
        """Run the layers; return number of a layer → the state that it is given, from the second layer on."""
        found: dict[int, Tensor] = {}
        self._runner.run(batch, stop=self.count, record=lambda i, state: found.update({i: state}))
        return found

    def _picked(self, found: Mapping[int, Tensor], mask_BT: Tensor) -> Tensor:
        """Return the states [N, S, D] of real tokens."""
        states = [found[state].transpose(0, 1) if self._swapped else found[state] for state in self.states]
        return torch.stack([state_BTD[mask_BT] for state_BTD in states], dim=1)

    def _padded(self, states_NSD: Tensor, mask_BT: Tensor) -> dict[int, Tensor]:
        """Return each state as the layers take it, zero where there is padding."""
        padded_SBTD = states_NSD.new_zeros(len(self.states), *mask_BT.shape, states_NSD.shape[-1])
        padded_SBTD[:, mask_BT] = states_NSD.transpose(0, 1)
        padded = padded_SBTD.transpose(1, 2) if self._swapped else padded_SBTD
        return dict(zip(self.states, padded, strict=True))

    def _autocast(self) -> Any:
        device = self._runner.model.device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self._precision == "bfloat16")


def _random_states(model: "PreTrainedModel") -> list[Tensor]:
    own = [torch.cuda.get_rng_state(model.device)] if model.device.type == "cuda" else []
    return [torch.get_rng_state(), *own]
