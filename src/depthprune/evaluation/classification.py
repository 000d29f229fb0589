"""Classification: a head for sequence classification, and the class that it puts highest."""

from typing import TYPE_CHECKING, Any

from depthprune.evaluation.base import EvaluationKind, OnStep, registry
from depthprune.evaluation.batching import in_order, outputs, refuse_nan
from depthprune.pooled.loading import load_with_head
from depthprune.sources import ModelSource
from depthprune.tasks.base import CLASSIFICATION, Task
from depthprune.tasks.data.encoding import encode

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load(source: ModelSource, task: Task, *, device: str = "cpu") -> tuple[Any, list[str]]:
    """Load a model with an output a class; see `pooled.loading.load_with_head`."""
    return load_with_head(source, task.num_outputs, head=task.head, device=device)


def predict(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: Task,
    rows: "Dataset",
    *,
    batch_size: int = 32,
    on_step: OnStep | None = None,
) -> tuple[list[int], list[int]]:
    """Return the expected and the predicted classes of `rows`, as the data number them.

    Raises:
        UserError: if the model returns NaN for some rows.
    """
    places, expected, predicted, broken = [], [], [], 0
    for numbers, batch, logits_BC in outputs(model, tokenizer, rows, batch_size=batch_size, on_step=on_step):
        places += numbers
        expected += batch["labels"]
        broken += int(logits_BC.isnan().any(-1).sum())
        predicted += logits_BC.argmax(-1).tolist()
    refuse_nan(broken, len(rows))
    return in_order(places, task.labels_of(expected)), in_order(places, task.labels_of(predicted))


registry.add(CLASSIFICATION, EvaluationKind(CLASSIFICATION, load, encode, predict))
