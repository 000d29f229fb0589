"""What a teacher says to the rows of a training: computed once and kept, or anew for each batch.

Logits are kept in memory, in float32; hidden states in a file of a temporary folder that is mapped into memory, in
float16. More than `LARGEST` bytes are not kept, nor what would be read once.

Shapes: B sequences, T tokens, H heads, C outputs of the head, D hidden size, S states, N vectors of a batch: one a
sequence, or one a real token, in the order of the padded batch without its padding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from depthprune.errors import UserError
from depthprune.healing.base import TrainingData
from depthprune.healing.kept_states import LARGEST, KeptStates, NoRoomError, batches_by_length, num_bytes, size_line
from depthprune.tasks.pooling import pooled_BD

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEPT_AS = torch.float16  # finer than bfloat16, and no state that matters is beyond its range


@dataclass(frozen=True)
class Wanted:
    """What is asked of a teacher.

    Args:
        states: which hidden states, as `output_hidden_states` counts them; none if empty.
        every_token: of every real token, or of the sentence token alone.
        sentence: id of the sentence token (`[CLS]`); the last real token stands for it if None.
        precision: `bfloat16` for autocast, as the student is trained in.
        logits: of its head, one row a sequence.
        attentions: of which layers, by index; they are not kept. None if empty.
        pooled: pool the states of all real tokens in this way (`tasks.pooling`), instead of choosing tokens.
    """

    states: tuple[int, ...] = ()
    every_token: bool = False
    sentence: int | None = None
    precision: str = "float32"
    logits: bool = True
    attentions: tuple[int, ...] = ()
    pooled: tuple[str, ...] = ()

    def picked(self, hidden: Sequence[Tensor], batch: Mapping[str, Tensor], states: Sequence[int]) -> Tensor:
        """Return the vectors [S, N, D] of some hidden states, each [B, T, D]."""
        if self.pooled:
            return torch.stack([pooled_BD(hidden[state], batch["attention_mask"], self.pooled) for state in states])
        real_BT = batch["attention_mask"].bool()
        if not self.every_token:
            real_BT = _sentence_mask(batch["input_ids"], real_BT, self.sentence)
        places_N = real_BT.flatten().nonzero().squeeze(1)
        return torch.stack([hidden[state].flatten(0, 1).index_select(0, places_N) for state in states])


def _sentence_mask(ids_BT: Tensor, real_BT: Tensor, sentence: int | None) -> Tensor:
    """Return a mask with one token a sequence: the first with an id, or the last real one."""
    length = ids_BT.shape[1]
    last_B = length - 1 - real_BT.int().flip(1).argmax(1)
    place_B = last_B if sentence is None else (ids_BT == sentence).int().argmax(1)
    return torch.nn.functional.one_hot(place_B, length).bool()


@dataclass(frozen=True)
class Taught:
    """What a teacher says to a batch.

    Args:
        logits_BC: float32; None where they are not wanted.
        states_SND: None where none are wanted.
        attentions_BHTT: one for each layer that is wanted, [B, heads, T, T].
    """

    logits_BC: Tensor | None
    states_SND: Tensor | None
    attentions_BHTT: tuple[Tensor, ...] = ()


Outputs = Callable[[Tensor, Mapping[str, Tensor]], Taught]  # (numbers of the rows, the padded batch)


def ask(teacher: "PreTrainedModel", batch: Mapping[str, Tensor], wanted: Wanted) -> Taught:
    """Run the teacher on a padded batch, which is where it is.

    Raises:
        UserError: its hidden states are not those that are wanted.
    """
    bfloat16 = wanted.precision == "bfloat16"
    with torch.no_grad(), torch.autocast(teacher.device.type, dtype=torch.bfloat16, enabled=bfloat16):
        said = teacher(**batch, **outputs_asked(wanted.states, wanted.attentions))
    states_SND = wanted.picked(said.hidden_states, batch, wanted.states) if wanted.states else None
    attentions = tuple(said.attentions[layer] for layer in wanted.attentions)
    return Taught(said.logits.float() if wanted.logits else None, states_SND, attentions)


def outputs_asked(states: Sequence[int], attentions: Sequence[int]) -> dict[str, bool]:
    """Return what a model is called with for its hidden states and attentions; nothing where none are wanted."""
    names = {"output_hidden_states": bool(states), "output_attentions": bool(attentions)}
    return {name: True for name, wanted in names.items() if wanted}


def numbered_rows(data: TrainingData) -> TrainingData:
    """Return the same with the number of each row in a column `row`, which models and `measure` do not get."""
    measure, rows = data.measure, data.rows.add_column("row", list(range(len(data.rows))))
    if measure is None:
        return replace(data, rows=rows)
    return replace(data, rows=rows, measure=lambda model, some: measure(model, some.remove_columns("row")))


def outputs_of(
    teacher: "PreTrainedModel", data: TrainingData, wanted: Wanted, folder: Path, *, read_once: bool = False
) -> tuple[Outputs, str]:
    """Return a function from the rows of a batch to what the teacher says to them, and how it comes to know.

    Args:
        teacher: in evaluation mode, without gradients.
        data: the rows; they are numbered from 0.
        wanted: logits, hidden states, or both.
        folder: temporary; for a file with the states.
        read_once: the training goes through the rows at most once, so that nothing is kept.

    Raises:
        UserError: the disk has not enough room.
    """

    def anew(rows_B: Tensor, batch: Mapping[str, Tensor]) -> Taught:
        return ask(teacher, batch, wanted)

    if read_once:
        return anew, "computed for each batch, since every row is read once"
    if wanted.attentions:
        return anew, "computed for each batch, since attentions are not kept"
    vectors = data.rows["length"][:] if wanted.every_token else [1] * len(data.rows)
    hidden_size = teacher.config.hidden_size * max(len(wanted.pooled), 1)
    size = (vectors, len(wanted.states), hidden_size, KEPT_AS) if wanted.states else None
    needed = num_bytes(*size) if size else 0
    if needed > LARGEST:
        return anew, f"computed for each batch, since its states would take {size_line(needed)}"
    try:
        states = KeptStates(folder, *size) if size else None
    except NoRoomError as error:
        raise UserError(
            f"the teacher's hidden states take {needed:,} bytes, and the disk of '{folder.parent}' has {error.free:,} "
            "to spare; make room there, set TMPDIR to a folder with more, or take a recipe without hidden states"
        ) from None
    said = f"computed once; its states take {size_line(needed)} on the disk" if needed else "computed once"
    return _Kept(teacher, data, wanted, states, f"the teacher's answers ({said})").of, said


class _Kept:
    """All that a teacher says, row by row."""

    def __init__(
        self, teacher: "PreTrainedModel", data: TrainingData, wanted: Wanted, states: KeptStates | None, stage: str
    ):
        self._logits_RC: Tensor | None = None
        self._states, done = states, 0
        limit = torch.finfo(KEPT_AS).max
        for numbers, batch in batches_by_length(data):
            said = ask(teacher, batch.to(teacher.device), wanted)
            if said.logits_BC is not None:
                if self._logits_RC is None:
                    self._logits_RC = torch.empty(len(data.rows), said.logits_BC.shape[1])
                self._logits_RC[torch.tensor(numbers)] = said.logits_BC.cpu()
            if said.states_SND is not None and states is not None:
                states.put(numbers, said.states_SND.clamp(-limit, limit).transpose(0, 1).to("cpu", KEPT_AS))
            done += len(numbers)
            data.on_progress(stage, done, len(data.rows))

    def of(self, rows_B: Tensor, batch: Mapping[str, Tensor]) -> Taught:
        """Return what the teacher says to some rows, on the device of the batch."""
        device, numbers = batch["input_ids"].device, rows_B.tolist()
        logits_BC = None if self._logits_RC is None else self._logits_RC[torch.tensor(numbers)].to(device)
        if self._states is None:
            return Taught(logits_BC, None)
        return Taught(logits_BC, self._states.of(numbers).to(device).transpose(0, 1).float())
