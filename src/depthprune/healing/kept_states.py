"""Hidden states of the rows of a training, computed once and kept in a file that is mapped into memory.

Shapes: R rows, V vectors of all rows, N vectors of some rows, S states, D hidden size. A row has one vector for each of
its tokens, or a single one; padding is not kept.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DataCollatorWithPadding

from depthprune.healing.base import TrainingData

LARGEST = 16 << 30  # bytes; more is not kept
SPARE = 1 << 30  # bytes that stay free on the disk
FILE = "states"
BATCH = 64  # rows; those of similar length go together


class NoRoomError(Exception):
    """The disk has not enough room.

    Args:
        free: bytes that could be taken.
    """

    def __init__(self, free: int):
        super().__init__(f"{free:,} bytes are free")
        self.free = free


class KeptStates:
    """Hidden states of rows, in a file.

    Args:
        folder: for the file.
        vectors: how many vectors each row has.
        states: S, hidden states of each vector.
        hidden_size: D.
        dtype: in which they are kept.

    Raises:
        NoRoomError: the disk has not enough room.
    """

    def __init__(self, folder: Path, vectors: Sequence[int], states: int, hidden_size: int, dtype: torch.dtype):
        self._starts = [0, *accumulate(vectors)]
        shape = (self._starts[-1], states, hidden_size)
        _reserve(folder / FILE, num_bytes(vectors, states, hidden_size, dtype))
        flat = torch.from_file(str(folder / FILE), shared=True, size=shape[0] * shape[1] * shape[2], dtype=dtype)
        self._states_VSD = flat.view(shape)

    def put(self, rows: Sequence[int], states_NSD: Tensor) -> None:
        """Keep the states of some rows, given in their order."""
        at = 0
        for row in rows:
            start, end = self._starts[row], self._starts[row + 1]
            self._states_VSD[start:end] = states_NSD[at : at + end - start]
            at += end - start

    def of(self, rows: Sequence[int]) -> Tensor:
        """Return the states [N, S, D] of some rows, in their order."""
        kept = [self._states_VSD[self._starts[row] : self._starts[row + 1]] for row in rows]
        with torch.autocast("cpu", enabled=False):  # that of a training in bfloat16 refuses float16 here
            return torch.cat(kept)


def num_bytes(vectors: Sequence[int], states: int, hidden_size: int, dtype: torch.dtype) -> int:
    """Return how many bytes the states of some rows take."""
    return sum(vectors) * states * hidden_size * dtype.itemsize


def batches_by_length(data: TrainingData) -> Iterator[tuple[list[int], Any]]:
    """Yield all rows, numbered from 0, in padded batches without labels: the longest first, like beside like."""
    collate, lengths = DataCollatorWithPadding(data.tokenizer), data.rows["length"][:]
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    rows = data.rows.remove_columns([name for name in ("length", "labels", "row") if name in data.rows.column_names])
    for start in range(0, len(order), BATCH):
        numbers = order[start : start + BATCH]
        yield numbers, collate(rows.select(numbers).to_list())


def size_line(number: int) -> str:
    """Return a number of bytes for a reader.

    >>> size_line(1_250_000_000)
    '1.2 GB'
    """
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def _reserve(file: Path, needed: int) -> None:
    """Make a file of so many bytes; writing to a mapped file on a full disk would end the process without a word.

    Raises:
        NoRoomError: the disk has not enough room.
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
    raise NoRoomError(free)
