"""Calibration data: a sample on which layers are scored and plans are tried.

Language models get blocks of running text, each exactly as long as asked for; everything else gets examples. The sample
has a fingerprint over its texts, whatever the model, so that two score files can be told comparable. No torch here.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthprune.errors import UserError
from depthprune.tasks.base import TRAIN, Task, TaskData, TaskOptions, load_task, registry
from depthprune.tasks.data.texts import STANDARD_INPUT, read_texts
from depthprune.tasks.data.texts import CalibrationOptions as CalibrationOptions
from depthprune.tasks.metrics.base import LANGUAGE_MODEL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_SAMPLES = 256
DEFAULT_LENGTH = 128
TOKENISED_AT_ONCE = 256
CHARACTERS_A_TOKEN = 8  # more than a token has on average, so that a block's text is long enough


@dataclass(frozen=True)
class Calibration:
    """A sample, tokenised and not padded.

    Args:
        ids: token ids of each example or block.
        types: token type ids, for tokenizers that make them.
        labels: of each example, for a task.
        task: the task whose rows these are.
        kind: `blocks` or `examples`.
        fingerprint: `sha256:…` over texts, labels, kind and length.
        options: what was asked for.
    """

    ids: list[np.ndarray]
    kind: str
    fingerprint: str
    options: CalibrationOptions
    types: list[np.ndarray] | None = None
    labels: list[float] | None = None
    task: Task | None = field(default=None, repr=False)

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return sum(map(len, self.ids))

    def describe(self) -> dict[str, Any]:
        """Return what a score file says about the sample."""
        return {
            "fingerprint": self.fingerprint,
            "data": Path(self.options.data).name if self.options.data != STANDARD_INPUT else "standard input",
            "split": self.options.split,
            "kind": self.kind,
            "samples": len(self.ids),
            "tokens": self.tokens,
            "length": self.options.length,
            "seed": self.options.seed,
        }


def load_calibration(
    options: CalibrationOptions,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    blocks: bool,
    task_data: TaskData | None = None,
) -> Calibration:
    """Read and tokenise a sample.

    Args:
        options: which one.
        tokenizer: the model's.
        blocks: cut running text into blocks, as language models want it; a task's rows are always examples.
        task_data: the rows of the task that `options.data` names, where they were read before.

    Raises:
        LoadError: if the data cannot be read.
        UserError: if it is empty, or too short for the sample.
    """
    if options.samples is not None and options.samples < 1:
        raise UserError(f"--samples {options.samples} is too small; give 1 or more")
    longest = tokenizer.model_max_length
    if options.length is None:
        options = replace(options, length=min(DEFAULT_LENGTH, longest))
    assert options.length is not None
    if options.length < 4:
        raise UserError(f"--length {options.length} is too short to say anything; give 4 or more")
    if options.length > longest and task_data is not None:
        options = replace(options, length=longest)  # of a run, whose rows are longer only if they say so themselves
    if options.length is not None and options.length > longest:
        raise UserError(f"--length {options.length} is longer than the {longest} tokens that the model takes")
    if task_data is None:
        task_data = labelled_rows(options)
    running = task_data is not None and task_data.task.kind == LANGUAGE_MODEL
    if task_data is not None and not running:
        return _task_rows(task_data, options, tokenizer)
    read = read_texts(options) if task_data is None else _lines(task_data, options)
    rows = [row for row in read if all(text.strip() for text in row)]
    if not rows:
        raise UserError(f"the calibration data '{options.data}' is empty; give some text")
    wanted = options.samples or DEFAULT_SAMPLES
    if blocks or running:
        if len(rows[0]) > 1:
            raise UserError("running text comes from one column, and a pair is for encoders; give one --text-columns")
        return _blocks([text for (text,) in rows], options, tokenizer, wanted)
    chosen = _choose(len(rows), options.samples or min(wanted, len(rows)), options)
    return _examples([list(column) for column in zip(*(rows[i] for i in chosen), strict=True)], [], options, tokenizer)


def labelled_rows(options: CalibrationOptions) -> TaskData | None:
    """Return the rows of the task that is asked for, or of a person's own data with labels; None for bare text.

    Raises:
        LoadError: if they cannot be read.
    """
    columns = options.text_columns or ((options.text_column,) if options.text_column else ())
    if options.data in registry.names():
        given = TaskOptions(
            options.dataset, columns, options.label_column, kind=options.kind, metric=options.task_metric
        )
        return load_task(options.data, given)
    if options.label_column is None:
        if options.kind or options.task_metric:
            raise UserError("--regression, --classification and --task-metric are about labels; add --label-column")
        return None
    given = TaskOptions(options.data, columns, options.label_column, kind=options.kind, metric=options.task_metric)
    return load_task("custom", given)


def training_sample(data: TaskData, length: int) -> CalibrationOptions:
    """Return the sample on which the layers of a run are chosen: training rows, since the others score the run."""
    split = TRAIN if TRAIN in data.splits else next(iter(data.task.eval_splits.values()))
    samples = min(DEFAULT_SAMPLES, len(data.splits[split])) if data.task.kind != LANGUAGE_MODEL else None
    return CalibrationOptions(data.task.name, split=split, samples=samples, length=length)


def _lines(data: TaskData, options: CalibrationOptions) -> list[tuple[str]]:
    rows = data.splits[_split(data, options)]
    return [(line,) for line in rows[data.task.text_columns[0]][:]]


def _split(data: TaskData, options: CalibrationOptions) -> str:
    split = options.split or (TRAIN if TRAIN in data.splits else next(iter(data.task.eval_splits.values())))
    if split not in data.splits:
        raise UserError(f"'{options.data}' has no split '{split}'; it has {', '.join(map(repr, sorted(data.splits)))}")
    return split


def _task_rows(data: TaskData, options: CalibrationOptions, tokenizer: "PreTrainedTokenizerBase") -> Calibration:
    split = _split(data, options)
    rows = data.splits[split]
    most = len(rows) if split != TRAIN else min(DEFAULT_SAMPLES, len(rows))
    options = replace(options, split=split)
    rows = rows.select(_choose(len(rows), options.samples or most, options))
    columns = [rows[column][:] for column in data.task.text_columns]
    labels = [float(label) for label in rows[data.task.label_column]]
    return _examples(columns, [labels], options, tokenizer, labels=labels, task=data.task)


def _examples(
    columns: list[list[str]],
    more: list,
    options: CalibrationOptions,
    tokenizer: "PreTrainedTokenizerBase",
    **about: Any,
) -> Calibration:
    """Tokenise examples, some at a time: what a tokenizer makes of a text is a hundred times its ids."""
    encoded: dict[str, list] = {}
    for start in range(0, len(columns[0]), TOKENISED_AT_ONCE):
        part: Any = [column[start : start + TOKENISED_AT_ONCE] for column in columns]
        for name, rows in tokenizer(*part, truncation=True, max_length=options.length).items():
            kind = np.int8 if name == "token_type_ids" else np.int32
            encoded.setdefault(name, []).extend(np.asarray(row, dtype=kind) for row in rows)
    return _calibration(encoded, "examples", [*columns, *more], options, **about)


def _choose(available: int, wanted: int, options: CalibrationOptions) -> list[int]:
    if wanted > available:
        raise UserError(f"'{options.data}' has {available} examples, not {wanted}; give --samples {available} or less")
    return sorted(np.random.default_rng(options.seed).permutation(available)[:wanted].tolist())


def _blocks(
    lines: Sequence[str], options: CalibrationOptions, tokenizer: "PreTrainedTokenizerBase", wanted: int
) -> Calibration:
    """Cut the text into stretches, and take the first `length` tokens of as many as are wanted, in a seeded order."""
    assert options.length is not None
    stretches = list(_stretches(lines, options.length * CHARACTERS_A_TOKEN))
    chosen, ids = [], []
    for i in np.random.default_rng(options.seed).permutation(len(stretches)):
        if len(ids) == wanted:
            break
        tokens = tokenizer(stretches[i], truncation=True, max_length=options.length)["input_ids"]
        if len(tokens) == options.length:
            chosen.append(stretches[i])
            ids.append(tokens)
    if not ids or (options.samples is not None and len(ids) < options.samples):
        raise UserError(
            f"the calibration data '{options.data}' has {len(ids)} blocks of {options.length} tokens, not {wanted}; "
            + (f"give --samples {len(ids)}, " if ids else "give ")
            + "a smaller --length or more text"
        )
    return _calibration({"input_ids": ids}, "blocks", [chosen], options)


def _stretches(lines: Sequence[str], characters: int) -> Iterator[str]:
    current: list[str] = []
    size = 0
    for line in lines:
        current.append(line.rstrip("\n"))
        size += len(line) + 1
        if size >= characters:
            yield "\n".join(current)
            current, size = [], 0
    if current:
        yield "\n".join(current)


def _calibration(encoded: Any, kind: str, content: list, options: CalibrationOptions, **more: Any) -> Calibration:
    digest = hashlib.sha256(f"{kind} {options.length}".encode())
    for column in content:
        for value in column:
            digest.update(json.dumps(value, ensure_ascii=False).encode() + b"\n")
    types = encoded.get("token_type_ids")
    return Calibration(
        ids=[np.asarray(row, dtype=np.int32) for row in encoded["input_ids"]],
        types=None if types is None else [np.asarray(row, dtype=np.int8) for row in types],
        kind=kind,
        fingerprint=f"sha256:{digest.hexdigest()}",
        options=options,
        **more,
    )
