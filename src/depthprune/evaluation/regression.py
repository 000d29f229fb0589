"""Regression: a head for sequence classification with a single output, which is the answer."""

from typing import TYPE_CHECKING, Any

from depthprune.evaluation.base import EvaluationKind, OnStep, registry
from depthprune.evaluation.batching import in_order, outputs, refuse_nan
from depthprune.pooled.loading import load_with_head
from depthprune.sources import ModelSource
from depthprune.tasks.base import REGRESSION, Task
from depthprune.tasks.data.encoding import encode

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load(source: ModelSource, task: Task, *, device: str = "cpu") -> tuple[Any, list[str]]:
    """Load a model with one output; see `pooled.loading.load_with_head`."""
    return load_with_head(source, 1, head=task.head, device=device)


def predict(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: Task,
    rows: "Dataset",
    *,
    batch_size: int = 32,
    on_step: OnStep | None = None,
) -> tuple[list[float], list[float]]:
    """Return the expected and the predicted numbers of `rows`.

    Raises:
        UserError: the model puts out no numbers (NaN) for some rows.
    """
    places, expected, predicted, broken = [], [], [], 0
    for numbers, batch, logits_BC in outputs(model, tokenizer, rows, batch_size=batch_size, on_step=on_step):
        places += numbers
        expected += batch["labels"]
        broken += int(logits_BC.isnan().any(-1).sum())
        predicted += logits_BC[:, 0].tolist()
    refuse_nan(broken, len(rows))
    return in_order(places, expected), in_order(places, predicted)


registry.add(REGRESSION, EvaluationKind(REGRESSION, load, encode, predict))
