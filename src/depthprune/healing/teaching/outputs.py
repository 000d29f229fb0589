"""What a teacher says to the rows of a training: computed once and kept, or anew for each batch.

Logits are kept in memory, in float32; hidden states in a file of a temporary folder that is mapped into memory, in
float16. More than `LARGEST` bytes are not kept, nor what would be read once.

Shapes: B sequences, T tokens, H heads, C outputs of the head, D hidden size, S states, N vectors of a batch: one a
sequence, or one a real token, in the order of the padded batch without its padding.
"""

import errno
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DataCollatorWithPadding

from depthprune.errors import UserError
from depthprune.healing.base import TrainingData

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST = 16 << 30  # bytes of hidden states
SPARE = 1 << 30  # bytes that stay free on the disk
KEPT_AS = torch.float16  # finer than bfloat16, and no state that matters is beyond its range
STATES = "states"  # the file's name
BATCH = 64  # rows; those of like length go together


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
    """

    states: tuple[int, ...] = ()
    every_token: bool = False
    sentence: int | None = None
    precision: str = "float32"
    logits: bool = True
    attentions: tuple[int, ...] = ()

    def picked(self, hidden: Sequence[Tensor], batch: Mapping[str, Tensor], states: Sequence[int]) -> Tensor:
        """Return the vectors [S, N, D] of some hidden states, each [B, T, D]."""
        real_BT = batch["attention_mask"].bool()
        if not self.every_token:
            real_BT = _sentence_mask(batch["input_ids"], real_BT, self.sentence)
        return torch.stack([hidden[state][real_BT] for state in states])


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
    vectors = sum(data.rows["length"][:]) if wanted.every_token else len(data.rows)
    needed = vectors * len(wanted.states) * teacher.config.hidden_size * KEPT_AS.itemsize if wanted.states else 0
    if needed > LARGEST:
        return anew, f"computed for each batch, since its states would take {_size(needed)}"
    if needed:
        _reserve(folder / STATES, needed)
    said = f"computed once; its states take {_size(needed)} on the disk" if needed else "computed once"
    return _Kept(teacher, data, wanted, folder, vectors, f"the teacher's answers ({said})").of, said


def _reserve(file: Path, needed: int) -> None:
    """Make a file of so many bytes; writing to a mapped file on a full disk would end the process without a word.

    Raises:
        UserError: the disk has not enough room.
    """
    free = max(shutil.disk_usage(file.parent).free - SPARE, 0)
    try:
        with file.open("wb") as opened:
            if needed <= free:
                os.posix_fallocate(opened.fileno(), 0, needed)
                return
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    raise UserError(
        f"the teacher's hidden states take {needed:,} bytes, and the disk of '{file.parent.parent}' has {free:,} to "
        "spare; make room there, set TMPDIR to a folder with more, or take a recipe without hidden states"
    )


class _Kept:
    """All that a teacher says, row by row."""

    def __init__(
        self, teacher: "PreTrainedModel", data: TrainingData, wanted: Wanted, folder: Path, vectors: int, stage: str
    ):
        lengths = data.rows["length"][:] if wanted.every_token else [1] * len(data.rows)
        self._starts = [0]
        for length in lengths:
            self._starts.append(self._starts[-1] + length)
        self._logits_RC: Tensor | None = None
        self._states_VSD: Tensor | None = None
        shape = (vectors, len(wanted.states), teacher.config.hidden_size)
        if wanted.states:
            size = shape[0] * shape[1] * shape[2]
            flat = torch.from_file(str(folder / STATES), shared=True, size=size, dtype=KEPT_AS)
            self._states_VSD = flat.view(shape)
        self._fill(teacher, data, wanted, stage)

    def _fill(self, teacher: "PreTrainedModel", data: TrainingData, wanted: Wanted, stage: str) -> None:
        collate, lengths = DataCollatorWithPadding(data.tokenizer), data.rows["length"][:]
        order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
        rows = data.rows.remove_columns([name for name in ("length", "labels") if name in data.rows.column_names])
        limit = torch.finfo(KEPT_AS).max
        for start in range(0, len(order), BATCH):
            numbers = order[start : start + BATCH]
            batch: Any = collate(rows.select(numbers).to_list())
            said = ask(teacher, batch.to(teacher.device), wanted)
            if said.logits_BC is not None:
                if self._logits_RC is None:
                    self._logits_RC = torch.empty(len(order), said.logits_BC.shape[1])
                self._logits_RC[torch.tensor(numbers)] = said.logits_BC.cpu()
            if said.states_SND is not None and self._states_VSD is not None:
                states_NSD = said.states_SND.clamp(-limit, limit).transpose(0, 1).to("cpu", KEPT_AS)
                at = 0
                for number in numbers:
                    begin, end = self._starts[number], self._starts[number + 1]
                    self._states_VSD[begin:end] = states_NSD[at : at + end - begin]
                    at += end - begin
            data.on_progress(stage, min(start + BATCH, len(order)), len(order))

    def of(self, rows_B: Tensor, batch: Mapping[str, Tensor]) -> Taught:
        """Return what the teacher says to some rows, on the device of the batch."""
        device, numbers = batch["input_ids"].device, rows_B.tolist()
        logits_BC = None if self._logits_RC is None else self._logits_RC[torch.tensor(numbers)].to(device)
        if self._states_VSD is None:
            return Taught(logits_BC, None)
        kept = [self._states_VSD[self._starts[number] : self._starts[number + 1]] for number in numbers]
        return Taught(logits_BC, torch.cat(kept).to(device).transpose(0, 1).float())


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
