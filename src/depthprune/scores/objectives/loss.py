"""The loss that the model was trained on, and perplexity."""

import math
from typing import TYPE_CHECKING, Any

from depthprune.scores.objectives.base import CLASSES, LANGUAGE, Part, objective

if TYPE_CHECKING:
    from depthprune.scores.batches import Batch


@objective("loss", heads=(*LANGUAGE, CLASSES), labels=True, unit="nats")
def loss(output: Any, batch: "Batch", head: str | None, full_output: Any) -> Part:
    """Cross-entropy of the tokens or classes that are predicted; the squared error of a regression."""
    from torch.nn import functional

    from depthprune.scores.predictions import logits_of, predicted_tokens

    logits = logits_of(output)
    if head == CLASSES:
        assert batch.targets is not None
        if logits.shape[-1] == 1:
            return float(functional.mse_loss(logits[:, 0], batch.targets, reduction="sum")), len(logits)
        return float(functional.cross_entropy(logits, batch.targets.long(), reduction="sum")), len(logits)
    logits, targets = predicted_tokens(logits, batch, head)
    return float(functional.cross_entropy(logits, targets, reduction="sum")), len(targets)


def _exp(mean: float) -> float:
    return math.exp(mean) if mean < 700 else math.inf


@objective("perplexity", heads=LANGUAGE, finish=_exp)
def perplexity(output: Any, batch: "Batch", head: str | None, full_output: Any) -> Part:
    """Exponential of the mean cross-entropy of the tokens that are predicted."""
    return loss(output, batch, head, full_output)
