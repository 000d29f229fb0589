"""Unlabelled text for healing: the distinct lines of a file, of columns, or of a task's training rows.

A seeded part is held out, which nothing is trained on. No torch here.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from depthprune.errors import UserError
from depthprune.tasks.base import TRAIN, TaskData
from depthprune.tasks.data.calibration import CalibrationOptions, labelled_rows
from depthprune.tasks.data.texts import read_texts

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

DEFAULT_HELD_OUT = 500
HELD_OUT_SHARE = 10  # with few lines, no more than one of so many is held out by default
FEWEST = 20  # lines, below which nothing can be said or learned


@dataclass(frozen=True)
class Sentences:
    """Distinct texts, a part of them held out.

    Args:
        train: to train on, in a seeded order.
        held_out: never trained on.
        fingerprint: `sha256:…` over both.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    fingerprint: str


def read_sentences(
    options: CalibrationOptions, *, held_out: int | None = None, task_data: TaskData | None = None
) -> Sentences:
    """Read distinct texts and hold a part out.

    Args:
        options: `data` is a file, a data set, `-`, or the name of a task, of which the training texts are taken
            without labels; `samples` limits the texts, held-out ones included; `seed` is that of both choices.
        held_out: how many are held out; 500 if None, or a tenth where there are fewer than 5,000.
        task_data: the rows of a task, where they were read before; `options.data` is not looked at then.

    Raises:
        LoadError: the data cannot be read.
        UserError: there are too few texts.
    """
    named = task_data.task.name if task_data is not None else options.data
    stripped = (each.strip() for row in _rows(options, task_data) for each in row)
    texts = list(dict.fromkeys(filter(None, stripped)))
    if not texts:
        raise UserError(f"'{named}' holds no text; give a file with one sentence a line")
    if options.samples is not None and options.samples > len(texts):
        raise UserError(f"'{named}' has {len(texts)} distinct texts, not {options.samples}; lower --samples")
    random.Random(options.seed).shuffle(texts)
    texts = texts[: options.samples]
    number = min(DEFAULT_HELD_OUT, len(texts) // HELD_OUT_SHARE) if held_out is None else held_out
    if len(texts) < FEWEST or not 1 <= number <= len(texts) - FEWEST // 2:
        raise UserError(
            f"{len(texts)} distinct texts from '{named}', {number} of them held out, are not enough to train "
            f"and to measure; give {max(FEWEST, number + FEWEST // 2)} or more"
        )
    digest = hashlib.sha256("\n".join([str(number), *texts]).encode())
    return Sentences(tuple(texts[number:]), tuple(texts[:number]), f"sha256:{digest.hexdigest()}")


def _rows(options: CalibrationOptions, task_data: TaskData | None) -> "list[tuple[str, ...]]":
    task_data = labelled_rows(options) if task_data is None else task_data
    if task_data is None:
        return read_texts(options)
    rows = task_data.splits[TRAIN]
    return list(zip(*(rows[column][:] for column in task_data.task.text_columns), strict=True))


def encode_texts(texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", max_length: int) -> "Dataset":
    """Return tokenised rows in memory, not padded: what the model takes (`input_ids`, …), and `length` in tokens."""
    from datasets import Dataset

    def encode(rows: dict[str, list]) -> dict[str, list]:
        encoded = tokenizer(rows["text"], truncation=True, max_length=max_length)
        return {**encoded, "length": [len(ids) for ids in encoded["input_ids"]]}

    rows = Dataset.from_dict({"text": list(texts)})
    return rows.map(encode, batched=True, remove_columns=["text"], keep_in_memory=True, new_fingerprint="texts")


def number_cut(texts: Sequence[str], rows: "Dataset", tokenizer: "PreTrainedTokenizerBase", max_length: int) -> int:
    """Return how many texts `encode_texts` had to cut, given the rows that it made of them."""
    full = [text for text, length in zip(texts, rows["length"][:], strict=True) if length == max_length]
    if not full:
        return 0
    return sum(len(ids) > max_length for ids in tokenizer(full, truncation=False, verbose=False)["input_ids"])
