"""What a task is: its columns, its labels, its metrics, and the rows to train on and to be scored on.

Importing this costs nothing; `datasets` is imported when a task is loaded.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from depthprune.errors import LoadError, UserError
from depthprune.registry import Registry, first_line
from depthprune.specs.healing import ARCHITECTURE
from depthprune.specs.options import Switch, option
from depthprune.tasks.data.reading import require_columns
from depthprune.tasks.metrics.base import CLASSIFICATION, REGRESSION, possible_metrics

if TYPE_CHECKING:
    from datasets import Dataset

TRAIN = "train"
KINDS = (CLASSIFICATION, REGRESSION)  # of labels
HOLD_OUT_SEED = 42
COUNTED = "rows count from 0"  # in complaints


@dataclass(frozen=True)
class TaskOptions:
    """What a person can say about a task's data.

    Args:
        seed: of a hold-out, where the data has no split to be scored on; it has nothing to do with that of training.
        scoring_only: nothing is trained, so that all rows that are given are scored, and none are held out.
    """

    dataset: str | None = option(
        None, "Hub id or folder of the data; nyu-mll/glue for the GLUE tasks if left out.", group="Data"
    )
    text_columns: tuple[str, ...] = option(
        (), "One or two columns, with a comma between (--task custom).", group="Data"
    )
    label_column: str | None = option(None, "The column to predict (--task custom).", group="Data")
    eval_split: str | None = option(
        None, "Split to be scored on; else validation, test, or 10 % held out (--task custom).", group="Data"
    )
    seed: int = HOLD_OUT_SEED
    kind: str | None = option(
        None,
        "classification or regression; as the label column looks if left out (--task custom).",
        group="Data",
        choices=KINDS,
        switches=(
            Switch("--regression", REGRESSION, "The label is an amount, whatever it looks like."),
            Switch("--classification", CLASSIFICATION, "The label is a class, though it is a number."),
        ),
    )
    metric: str | None = option(
        None,
        "Primary metric: accuracy, balanced_accuracy, f1, f1_macro or matthews; pearson or spearman of a regression.",
        group="Data",
    )
    scoring_only: bool = False

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
        label_column: the column with the answer; empty where the text is the answer.
        labels: names of the classes in the order of their numbers; empty for regression.
        metrics: names of registered metrics (`tasks.metrics`); the first is the primary metric.
        eval_splits: prefix of the metric's name → split. One without a prefix, save MNLI's two.
        outputs: the output of the head for each label, where a trained head has an order of its own (`heads`).
        head_labels: names of the outputs of a trained head, where they say something.
        chosen_metric: the first of `metrics`, where it was chosen and is not the task's own.
        evaluation: the kind of evaluation, where it is neither a classification nor a regression.
        head: what the head reads: `architecture`, or how the last hidden states are pooled (`specs.HealSpec.head`).
    """

    name: str
    text_columns: tuple[str, ...]
    label_column: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    eval_splits: dict[str, str] = field(default_factory=lambda: {"": "validation"})
    outputs: tuple[int, ...] = ()
    head_labels: tuple[str, ...] = ()
    chosen_metric: str = ""
    evaluation: str = ""
    head: str = field(default=ARCHITECTURE, repr=False)  # tokens do not depend on it, and are kept by this text

    @property
    def kind(self) -> str:
        """The kind of evaluation."""
        return self.evaluation or (CLASSIFICATION if self.labels else REGRESSION)

    @property
    def regression(self) -> bool:
        """Whether the answer is a number."""
        return self.kind == REGRESSION

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the task reads."""
        return (*self.text_columns, self.label_column) if self.label_column else self.text_columns

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
class UnlabelledRows:
    """Rows without labels beside those of a task, to which a teacher gives the answers (`tasks.data.unlabelled`).

    Args:
        names: of the sources that they come from.
        rows: of each source, in the task's text columns, without those that were left out.
        fingerprints: `sha256:…` over all rows of each source.
        left_out: why rows were left out → how many.
    """

    names: tuple[str, ...]
    rows: tuple["Dataset", ...]
    fingerprints: tuple[str, ...]
    left_out: dict[str, int]


@dataclass(frozen=True)
class TaskData:
    """A task with its rows.

    Args:
        task: what is asked.
        splits: `train` and every split of `task.eval_splits`, each with the task's columns.
        notes: what the user should know about how the data was read, a sentence each.
        options: what it was asked for with.
        unlabelled: rows without labels, for recipes that name them; no part of the fingerprint.
    """

    task: Task
    splits: dict[str, "Dataset"]
    notes: tuple[str, ...] = ()
    options: TaskOptions | None = None
    unlabelled: UnlabelledRows | None = None

    @cached_property
    def fingerprint(self) -> str:
        """`sha256:…` over the rows of every split, in the columns the task reads: the same data, wherever it lies."""
        digest = hashlib.sha256()
        for split in sorted(self.splits):
            for column in self.task.columns:
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


registry: Registry[TaskEntry] = Registry("task", "depthprune.tasks", TaskEntry)


def task(name: str, *, summary: str | None = None) -> Callable[[Loader], Loader]:
    """Register the function that loads a task; the function itself is returned unchanged."""

    def register(load: Loader) -> Loader:
        registry.add(name, TaskEntry(name, load, summary or first_line(load)))
        return load

    return register


def load_task(name: str, options: TaskOptions | None = None) -> TaskData:
    """Load the task `name` and check its rows.

    Raises:
        UserError: if there is no such task.
        LoadError: if the data cannot be read, lacks a column, or has rows without a label.
    """
    options = options or TaskOptions()
    data = registry.check_returned(name, registry.get(name).load(options), TaskData)
    data = replace(data, options=options)
    for split, rows in data.splits.items():
        check_rows(data.task, split, rows)
    return replace(data, task=with_metric(data.task, options.metric)) if options.metric else data


def with_metric(task: Task, metric: str) -> Task:
    """Return a task whose primary metric is another one.

    Raises:
        UserError: the task cannot have it.
    """
    possible = possible_metrics(task.kind, len(task.labels))
    if metric not in possible:
        what = {CLASSIFICATION: f"a task with {len(task.labels)} classes", REGRESSION: "a regression"}
        what = what.get(task.kind, f"a task of the kind {task.kind}")
        raise UserError(f"'{metric}' is not a metric of '{task.name}', {what}; it can have {', '.join(possible)}")
    if metric == task.metrics[0]:
        return task
    others = tuple(name for name in task.metrics if name != metric)
    return replace(task, metrics=(metric, *others), chosen_metric=metric)


def check_rows(task: Task, split: str, rows: "Dataset") -> None:
    """Refuse rows that lack a column, a text or a label, naming the first.

    Raises:
        LoadError: one of these.
    """
    require_columns(rows, split, task.columns)
    if not len(rows):
        raise LoadError(f"the split '{split}' of '{task.name}' has no rows; give data with some")
    check_texts(rows, split, task.text_columns)
    for i, label in enumerate(rows[task.label_column][:] if task.label_column else ()):
        if not _is_label(task, label):
            known = f"0 to {len(task.labels) - 1}" if task.labels else "a finite number"
            raise LoadError(
                f"{row_name(i, split)} has the label {label!r} in '{task.label_column}', and a label of "
                f"'{task.name}' is {known}; give a split with labels ({COUNTED})"
            )


def check_texts(rows: "Dataset", split: str, columns: tuple[str, ...]) -> None:
    """Refuse rows that lack a text, naming the first.

    Raises:
        LoadError: if a row does.
    """
    for column in columns:
        bad = next((i for i, text in enumerate(rows[column][:]) if not isinstance(text, str)), None)
        if bad is not None:
            raise LoadError(f"{row_name(bad, split)} has no text in '{column}'; remove it or fill it in ({COUNTED})")


def row_name(number: int, split: str) -> str:
    """Return how a complaint calls a row."""
    return f"row {number} of '{split}'"


def _is_label(task: Task, label: Any) -> bool:
    if isinstance(label, bool) or not isinstance(label, int | float):
        return False
    return 0 <= label < len(task.labels) if task.labels else abs(label) != float("inf") and label == label
