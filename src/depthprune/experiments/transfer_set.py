"""The rows of a run's trainings: the task's own, and beside them those without labels that its recipe names."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from depthprune.errors import UserError
from depthprune.evaluation.base import evaluation_of
from depthprune.quiet import no_progress
from depthprune.specs import HealSpec, RunSpec
from depthprune.tasks import TaskData
from depthprune.tasks.data.unlabelled import drawn_rows, read_unlabelled

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # a class that cross-entropy leaves out; the amount of a regression is NaN, which would be noticed
SPLIT = "unlabelled"


@dataclass(frozen=True)
class TrainingRows:
    """Tokenised rows to train on.

    Args:
        rows: labelled ones first.
        num_unlabelled: how many, the last ones, have no label.
        notes: how many there are of each kind, for a reader; none where all rows have a label.
        counts: the same, for a record.
    """

    rows: "Dataset"
    num_unlabelled: int = 0
    notes: tuple[str, ...] = ()
    counts: Mapping[str, Any] = field(default_factory=dict)


def with_unlabelled(data: TaskData, heal: HealSpec) -> tuple[TaskData, HealSpec]:
    """Read the rows without labels that a recipe names.

    Returns:
        The task's data with these, and the recipe as a run's spec has it, with their content in the place of names.

    Raises:
        UserError: they cannot be read, or are no rows for the task.
    """
    if not heal.unlabelled:
        return data, heal
    found = read_unlabelled(data, heal.unlabelled)
    return replace(data, unlabelled=found), replace(heal, unlabelled=found.fingerprints)


def training_rows(
    data: TaskData,
    spec: RunSpec,
    labelled: "Dataset",
    tokenizer: "PreTrainedTokenizerBase",
    on_progress: Callable[[str, int, int], None] = no_progress,
) -> TrainingRows:
    """Return a task's tokenised training rows, followed by those without labels where the run's recipe names some.

    Args:
        data: with the rows that the recipe names.
        labelled: the task's tokenised training rows.
        on_progress: told how many rows there are of each kind, where there are both.

    Raises:
        UserError: other rows are given than those that the recipe names.
    """
    from datasets import Dataset, concatenate_datasets

    if not spec.heal.unlabelled:
        return TrainingRows(labelled)
    given = data.unlabelled
    if given is None or given.fingerprints != spec.heal.unlabelled:
        raise UserError("the recipe names unlabelled rows, and others are given; give those that it names")
    drawn, task = drawn_rows(given, spec.heal.unlabelled_rows, spec.seed), data.task
    with_some_label = Dataset.from_dict({**drawn[:], task.label_column: [0.0 if task.regression else 0] * len(drawn)})
    some = TaskData(task, {SPLIT: with_some_label})
    encoded = evaluation_of(task).encode(some, tokenizer, spec.evaluation.max_length)[SPLIT]
    labels = [math.nan if task.regression else IGNORED] * len(encoded)
    encoded = encoded.remove_columns("labels").add_column("labels", labels)  # pyright: ignore[reportCallIssue]
    rows = concatenate_datasets([labelled, encoded.select_columns(labelled.column_names).cast(labelled.features)])
    left = ", ".join(f"{reason}: {number:,}" for reason, number in given.left_out.items() if number)
    note = f"{len(labelled):,} labelled rows, and {len(encoded):,} without labels from {', '.join(given.names)}"
    note += f"; left out: {left}" if left else ""
    on_progress(note, 0, 1)
    counts = {"labelled": len(labelled), "unlabelled": len(encoded), "left_out": given.left_out}
    return TrainingRows(rows, len(encoded), (note,), {"rows": counts})
