"""Score a model with a sequence-classification head, by the metrics of GLUE (scikit-learn's and scipy's).

Shapes: B sequences, C outputs of the head.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from depthprune.errors import UserError
from depthprune.optional import require
from depthprune.tasks.base import Task

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Metric = Callable[[list, list], float]


def _sklearn(name: str, **options: Any) -> Metric:
    def metric(expected: list, predicted: list) -> float:
        return getattr(require("sklearn.metrics", extra="metrics", purpose="scoring a task"), name)(
            expected, predicted, **options
        )

    return metric


def _correlation(name: str) -> Metric:
    def metric(expected: list, predicted: list) -> float:
        stats = require("scipy.stats", extra="metrics", purpose="scoring a task")
        # Constant predictions have no correlation; they are worth nothing, which is what 0 says.
        if len(set(predicted)) < 2 or len(set(expected)) < 2:
            return 0.0
        return getattr(stats, name)(expected, predicted)[0]

    return metric


METRICS: dict[str, Metric] = {
    "accuracy": _sklearn("accuracy_score"),
    "balanced_accuracy": _sklearn("balanced_accuracy_score"),
    "f1": _sklearn("f1_score"),
    "f1_macro": _sklearn("f1_score", average="macro"),
    "matthews": _sklearn("matthews_corrcoef"),
    "pearson": _correlation("pearsonr"),
    "spearman": _correlation("spearmanr"),
}


def score(task: Task, expected: list, predicted: list) -> dict[str, float]:
    """Return the task's metrics, as fractions, under their names.

    Args:
        expected: labels as the data number them, or numbers for a regression.
        predicted: the same.
    """
    return {name: float(METRICS[name](expected, predicted)) for name in task.metrics}


def evaluate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: Task,
    encoded: dict[str, "Dataset"],
    *,
    batch_size: int = 32,
    on_step: Callable[[int, int], None] | None = None,
    on_rows: Callable[[str, list, list], None] = lambda prefix, expected, predicted: None,
) -> dict[str, dict[str, float | int]]:
    """Score `model` on the evaluation splits of a task, in the dtype of its weights.

    Args:
        model: with a head of `task.num_outputs` outputs; runs where its weights are.
        encoded: split → tokenised rows (`tasks.encoding.encode`).
        on_step: called with (batches done, batches in all).
        on_rows: called for each split with the prefix of its metrics, the expected and the predicted labels.

    Returns:
        Metric name → `{"value": fraction, "examples": how many}`. MNLI's names start with `matched_`, `mismatched_`.
    """
    metrics: dict[str, dict[str, float | int]] = {}
    for prefix, split in task.eval_splits.items():
        rows = encoded[split]
        predicted, expected = predict(model, tokenizer, task, rows, batch_size=batch_size, on_step=on_step)
        on_rows(prefix, expected, predicted)
        for name, value in score(task, expected, predicted).items():
            metrics[prefix + name] = {"value": value, "examples": len(rows)}
    return metrics


def predict(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: Task,
    rows: "Dataset",
    *,
    batch_size: int = 32,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[list, list]:
    """Return the predicted and the expected labels of `rows`, in their order; the longest go first, to save padding.

    Raises:
        UserError: if the model returns NaN for some rows.
    """
    import torch

    lengths = rows["length"][:]
    order = sorted(range(len(rows)), key=lengths.__getitem__, reverse=True)
    ordered = rows.select(order)
    predicted, expected, broken = [], [], 0
    was_training = model.training
    model.eval()
    starts = range(0, len(ordered), batch_size)
    with torch.inference_mode():
        for step, start in enumerate(starts):
            batch = ordered[start : start + batch_size]
            expected += batch["labels"]
            logits_BC = model(**collate(tokenizer, batch, device=model.device)).logits.float()
            broken += int(logits_BC.isnan().any(-1).sum())
            predicted += (logits_BC[:, 0] if task.regression else logits_BC.argmax(-1)).tolist()
            if on_step is not None:
                on_step(step + 1, len(starts))
    model.train(was_training)
    refuse_nan(broken, len(ordered))
    if not task.regression:
        predicted, expected = task.labels_of(predicted), task.labels_of(expected)
    back = sorted(range(len(order)), key=order.__getitem__)  # from a row to its place in the order of length
    return [predicted[i] for i in back], [expected[i] for i in back]


def refuse_nan(rows: int, number: int) -> None:
    """Refuse to score a model that puts out NaN: the first class, or 0, would be counted as its answer.

    Raises:
        UserError: it did for `rows` of `number` rows.
    """
    if rows:
        raise UserError(
            f"the model puts out no number (NaN) for {rows} of {number} rows, so it has no score; its weights are "
            "broken, or its training diverged: lower --learning-rate, or give --precision float32"
        )


def collate(tokenizer: "PreTrainedTokenizerBase", batch: dict[str, list], *, device: Any) -> dict[str, Any]:
    """Pad a slice of tokenised rows to its longest row and put it on `device`; labels and lengths are left out."""
    inputs = {name: values for name, values in batch.items() if name not in ("labels", "length")}
    return dict(tokenizer.pad(inputs, return_tensors="pt").to(device))
