"""What a task is: its columns, its labels, its metrics, and the rows to train on and to be scored on.

Importing this costs nothing; `datasets` is imported when a task is loaded.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.errors import LoadError
from depthprune.registry import Registry, first_line

if TYPE_CHECKING:
    from datasets import Dataset

TRAIN = "train"
BUILDERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class TaskOptions:
    """What a person can say about a task's data.

    Args:
        dataset: a Hub id or a folder in the task's own layout; the task's default if None.
        text_columns: columns with text, one or two (`custom` only).
        label_column: column with the answer (`custom` only).
        eval_split: split to be scored on (`custom` only).
        seed: of a hold-out, where the data has no split to be scored on.
    """

    dataset: str | None = None
    text_columns: tuple[str, ...] = ()
    label_column: str | None = None
    eval_split: str | None = None
    seed: int = 42

    def given(self) -> dict[str, Any]:
        """Return what was said, but for the seed, as JSON values: with it the same data can be asked for again.

        >>> TaskOptions("pairs.csv", ("a", "b"), seed=7).given()
        {'dataset': 'pairs.csv', 'text_columns': ['a', 'b']}
        """
        said = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "seed"}
        defaults = {item.name: item.default for item in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in said.items() if v != defaults[k]}


@dataclass(frozen=True)
class Task:
    """What is asked of a model.

    Args:
        name: what the command calls it.
        text_columns: one column, or two for sentence pairs.
        label_column: the column with the answer.
        labels: names of the classes in the order of their numbers; empty for regression.
        metrics: names in `evaluation.classification.METRICS`; the first is the primary metric.
        eval_splits: prefix of the metric's name → split. One without a prefix, save MNLI's two.
        outputs: the output of the head for each label, where a trained head has an order of its own (`heads`).
        head_labels: names of the outputs of a trained head, where they say something.
    """

    name: str
    text_columns: tuple[str, ...]
    label_column: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    eval_splits: dict[str, str] = field(default_factory=lambda: {"": "validation"})
    outputs: tuple[int, ...] = ()
    head_labels: tuple[str, ...] = ()

    @property
    def regression(self) -> bool:
        """Whether the answer is a number."""
        return not self.labels

    @property
    def num_outputs(self) -> int:
        """How many numbers the head puts out."""
        return len(self.labels) or 1

    @property
    def output_labels(self) -> tuple[str, ...]:
        """Names of the head's outputs in their order; empty for regression."""
        return self.head_labels or tuple(self.labels[i] for i in self.labels_of(range(len(self.labels))))

    def output_of(self, label: float) -> float | int:
        """Return what the head is to put out for a label of the data: an output's number, or the number itself."""
        return float(label) if self.regression else self.outputs[int(label)] if self.outputs else int(label)

    def labels_of(self, outputs: Iterable[int]) -> list[int]:
        """Return the label, as the data number it, behind each of some outputs' numbers.

        >>> Task("t", ("text",), "label", ("a", "b", "c"), ("accuracy",), outputs=(2, 0, 1)).labels_of([0, 1, 2])
        [1, 2, 0]
        """
        return [self.outputs.index(output) if self.outputs else output for output in outputs]

    @property
    def primary(self) -> str:
        """Name of the metric on which retention stands."""
        return next(iter(self.eval_splits)) + self.metrics[0]


@dataclass(frozen=True)
class TaskData:
    """A task with its rows.

    Args:
        task: what is asked.
        splits: `train` and every split of `task.eval_splits`, each with the task's columns.
        notes: what the user should know about how the data was read, a sentence each.
        options: what it was asked for with.
    """

    task: Task
    splits: dict[str, "Dataset"]
    notes: tuple[str, ...] = ()
    options: TaskOptions | None = None

    @cached_property
    def fingerprint(self) -> str:
        """`sha256:…` over the rows of every split, in the columns the task reads: the same data, wherever it lies."""
        digest = hashlib.sha256()
        for split in sorted(self.splits):
            for column in (*self.task.text_columns, self.task.label_column):
                values = self.splits[split][column][:]
                text = json.dumps([split, column, values], ensure_ascii=False, default=str)
                digest.update(text.encode())
        return f"sha256:{digest.hexdigest()}"


Loader = Callable[[TaskOptions], TaskData]


@dataclass(frozen=True)
class TaskEntry:
    """A task as the registry holds it."""

    name: str
    load: Loader
    summary: str


registry: Registry[TaskEntry] = Registry("task", "depthprune.tasks")


def task(name: str, *, summary: str | None = None) -> Callable[[Loader], Loader]:
    """Register the function that loads a task; the function itself is returned unchanged."""

    def register(load: Loader) -> Loader:
        registry.add(name, TaskEntry(name, load, summary or first_line(load)))
        return load

    return register


def load_task(name: str, options: TaskOptions | None = None) -> TaskData:
    """Load the task `name` and check its rows.

    Raises:
        UserError: no task has that name.
        LoadError: the data cannot be read, lacks a column, or has rows without a label.
    """
    options = options or TaskOptions()
    data = replace(registry.get(name).load(options), options=options)
    for split, rows in data.splits.items():
        check_rows(data.task, split, rows)
    return data


def check_rows(task: Task, split: str, rows: "Dataset") -> None:
    """Refuse rows that lack a column, a text or a label, naming the first.

    Raises:
        LoadError: one of these.
    """
    require_columns(rows, split, (*task.text_columns, task.label_column))
    if not len(rows):
        raise LoadError(f"the split '{split}' of '{task.name}' has no rows; give data with some")
    for column in task.text_columns:
        bad = next((i for i, text in enumerate(rows[column][:]) if not isinstance(text, str)), None)
        if bad is not None:
            raise LoadError(f"row {bad} of '{split}' has no text in '{column}'; remove it or fill it in")
    for i, label in enumerate(rows[task.label_column][:]):
        if not _is_label(task, label):
            known = f"0 to {len(task.labels) - 1}" if task.labels else "a finite number"
            raise LoadError(
                f"row {i} of '{split}' has the label {label!r} in '{task.label_column}', and a label of "
                f"'{task.name}' is {known}; give a split with labels"
            )


def _is_label(task: Task, label: Any) -> bool:
    if isinstance(label, bool) or not isinstance(label, int | float):
        return False
    return 0 <= label < len(task.labels) if task.labels else abs(label) != float("inf") and label == label


def require_columns(rows: "Dataset", split: str, columns: tuple[str, ...]) -> None:
    """Refuse a split that lacks a column.

    Raises:
        LoadError: it does; the message lists the columns it has.
    """
    missing = [c for c in columns if c not in rows.column_names]
    if missing:
        raise LoadError(
            f"the split '{split}' has no column '{missing[0]}'; it has {', '.join(map(repr, rows.column_names))}"
        )


def read_dataset(path: str, config: str | None = None, **options: Any) -> Any:
    """Call `datasets.load_dataset` and turn what goes wrong into one line.

    Raises:
        LoadError: the data is not there, cannot be reached, or cannot be read.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    what = f"'{path}'" + (f" ({config})" if config else "")
    try:
        return load_dataset(path, config, **options)
    except (DatasetNotFoundError, FileNotFoundError, ConnectionError) as error:
        raise LoadError(
            f"the data {what} is neither a local folder nor to be had from the Hub or its cache; "
            f"give --dataset a folder, or connect to the network ({_first_line(error)})"
        ) from None
    except (DatasetGenerationError, ValueError, KeyError, OSError) as error:
        cause = error.__cause__ or error
        raise LoadError(f"the data {what} cannot be read: {_first_line(cause)}") from None


def read_file(path: Path, *, more: tuple[str, ...] = ()) -> Any:
    """Read a table from a file: CSV, tab-separated, JSON lines or parquet.

    Args:
        more: endings of files that the caller reads itself, for the complaint.

    Raises:
        LoadError: it is none of these, or cannot be read.
    """
    builder = BUILDERS.get(path.suffix)
    if builder is None:
        raise LoadError(f"'{path}' is not a data file this reads ({', '.join((*more, *BUILDERS))}); convert it")
    options = {"sep": "\t"} if path.suffix == ".tsv" else {}
    return read_dataset(builder, data_files=str(path), **options)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
