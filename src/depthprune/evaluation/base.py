"""The kinds of evaluation, and what measures a model with them. No torch.

A kind of evaluation is three functions in a file of its own in `evaluation/`: load a model with the head that the task
needs, tokenise the task's rows, and answer them. What the answers are worth is up to the metrics of the task. Another
distribution adds a kind through the entry-point group `depthprune.evaluation`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from depthprune.errors import UserError
from depthprune.evaluation.measurement import Measurement
from depthprune.registry import Registry
from depthprune.sources import ModelSource
from depthprune.tasks.base import Task, TaskData
from depthprune.tasks.metrics.base import registry as metrics

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OnStep = Callable[[int, int], None]  # (batches done, batches in all)
OnRows = Callable[[str, list, list], None]  # (prefix of the split's metrics, expected, predicted)


class Load(Protocol):
    """Loads a model with a head for a task, in float32; the names of tensors that the checkpoint lacks come with it."""

    def __call__(self, source: ModelSource, task: Task, *, device: str = "cpu") -> "tuple[Any, list[str]]": ...


class Encode(Protocol):
    """Tokenises the splits of a task into `input_ids`, …, `labels` to train on, and `length` in tokens."""

    def __call__(
        self, data: TaskData, tokenizer: "PreTrainedTokenizerBase", max_length: int
    ) -> "dict[str, Dataset]": ...


class Predict(Protocol):
    """Returns the expected and the predicted answers of rows, in their order, as the task's metrics take them."""

    def __call__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        task: Task,
        rows: "Dataset",
        *,
        batch_size: int = 32,
        on_step: OnStep | None = None,
    ) -> tuple[list, list]: ...


@dataclass(frozen=True)
class EvaluationKind:
    """A kind of evaluation: what `Task.kind` names.

    Args:
        name: of the kind.
        load: raises LoadError where the model cannot have such a head.
        encode: raises LoadError where the rows are too few or too short.
        predict: raises UserError where the model puts out no numbers (NaN).
    """

    name: str
    load: Load
    encode: Encode
    predict: Predict


registry: Registry[EvaluationKind] = Registry("evaluation", "depthprune.evaluation", EvaluationKind)


def evaluation_of(task: Task) -> EvaluationKind:
    """Return how a task is evaluated.

    Raises:
        UserError: nothing is registered for its kind.
    """
    return registry.get(task.kind)


def measure(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: Task,
    encoded: Mapping[str, "Dataset"],
    *,
    batch_size: int = 32,
    on_step: OnStep | None = None,
    on_rows: OnRows = lambda prefix, expected, predicted: None,
) -> dict[str, Measurement]:
    """Measure `model` on the evaluation splits of a task, in the dtype of its weights.

    Args:
        model: with the head that the task needs; runs where its weights are.
        encoded: split → tokenised rows.
        on_step: called with (batches done, batches in all).
        on_rows: called for each split with the prefix of its metrics, the expected and the predicted answers.

    Returns:
        Metric name → measurement. MNLI's names start with `matched_`, `mismatched_`.

    Raises:
        UserError: the model puts out no numbers, or a metric gives none.
    """
    found = {}
    for prefix, split in task.eval_splits.items():
        told = lambda expected, predicted, prefix=prefix: on_rows(prefix, expected, predicted)  # noqa: E731
        rows = encoded[split]
        measured = measure_rows(model, tokenizer, task, rows, batch_size=batch_size, on_step=on_step, on_rows=told)
        found |= {prefix + name: each for name, each in measured.items()}
    return found


def measure_rows(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: Task,
    rows: "Dataset",
    *,
    batch_size: int = 32,
    on_step: OnStep | None = None,
    on_rows: Callable[[list, list], None] = lambda expected, predicted: None,
) -> dict[str, Measurement]:
    """Measure `model` on some tokenised rows; see `measure`."""
    predict = evaluation_of(task).predict
    expected, predicted = predict(model, tokenizer, task, rows, batch_size=batch_size, on_step=on_step)
    on_rows(expected, predicted)
    found = {}
    for name, value in score(task, expected, predicted).items():
        error = metrics.get(name).standard_error
        found[name] = in_unit_of(name, value, len(rows), error and error(expected, predicted))
    return found


def merit_on_rows(tokenizer: "PreTrainedTokenizerBase", task: Task) -> "Callable[[PreTrainedModel, Dataset], float]":
    """Return a function from a model and tokenised rows to the merit of the primary metric: more is better."""
    return lambda model, rows: measure_rows(model, tokenizer, task, rows)[task.metrics[0]].merit


def in_unit_of(name: str, value: float, examples: int = 0, standard_error: float | None = None) -> Measurement:
    """Return a value of the metric `name` as a measurement."""
    part = metrics.get(name)
    known = standard_error if standard_error is not None and math.isfinite(standard_error) else None
    return Measurement(value, examples, part.unit, part.better, known)


def score(task: Task, expected: list, predicted: list) -> dict[str, float]:
    """Return the value of each of a task's metrics, by name.

    Args:
        expected: answers as the data give them.
        predicted: the same.

    Raises:
        UserError: a metric returns something else than a finite number.
    """
    found = {}
    for name in task.metrics:
        value = metrics.get(name).function(expected, predicted)
        if isinstance(value, str | bool) or not hasattr(value, "__float__"):
            raise UserError(f"the metric '{name}' returned {value!r}, which is no number; mend what registers it")
        if not math.isfinite(value):
            raise UserError(
                f"the metric '{name}' of '{task.name}' is {float(value)}, no finite number; the model is broken or its "
                "training diverged: lower --learning-rate, or give --precision float32"
            )
        found[name] = float(value)
    return found
