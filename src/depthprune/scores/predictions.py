"""What a model predicts for a batch, and its loss as a tensor with a gradient.

Shapes: B sequences, T tokens, N predicted tokens, V vocabulary, C classes, D hidden size.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from depthprune.errors import UserError
from depthprune.scores.batches import IGNORED, Batch
from depthprune.scores.objectives.base import CLASSES
from depthprune.surgery.partial import leaving


def logits_of(output: Any) -> Tensor:
    """Return the logits, or the last hidden states of a model without a head, in float32."""
    logits = output["logits"] if isinstance(output, Mapping) and "logits" in output else leaving(output)
    return logits.float()


def predicted_tokens(logits: Tensor, batch: Batch, head: str | None) -> tuple[Tensor, Tensor]:
    """Return logits [N, V] and targets [N] of the tokens that are predicted.

    Args:
        logits: [B, T, V].
        batch: with targets [B, T].
        head: `causal` predicts the next token, others the token at the same position.
    """
    assert batch.targets is not None
    targets = batch.targets
    if head == "causal":
        logits, targets = logits[:, :-1], targets[:, 1:]
    chosen = targets != IGNORED
    return logits[chosen], targets[chosen]


def loss_tensor(output: Any, batch: Batch, head: str | None) -> Tensor:
    """Return the sum of the loss over a batch as a tensor with a gradient."""
    logits = logits_of(output)
    if head != CLASSES:
        return functional.cross_entropy(*predicted_tokens(logits, batch, head), reduction="sum")
    assert batch.targets is not None
    if logits.shape[-1] == 1:
        return functional.mse_loss(logits[:, 0], batch.targets, reduction="sum")
    return functional.cross_entropy(logits, batch.targets.long(), reduction="sum")


def number_predicted(batch: Batch, head: str | None) -> int:
    """Return the number of predictions that `loss_tensor` sums over."""
    assert batch.targets is not None
    if head == CLASSES:
        return len(batch.targets)
    targets = batch.targets[:, 1:] if head == "causal" else batch.targets
    return int((targets != IGNORED).sum())


def check_finite(total: float, number: int, dropped: tuple[int, ...]) -> None:
    """Refuse a cost that is NaN or infinite.

    Raises:
        UserError: if it is; the message names the plan and the batch.
    """
    if not math.isfinite(total):
        without = f"without layers {list(dropped)}" if dropped else "of the full model"
        raise UserError(f"the loss {without} is not finite (batch {number}); give --dtype float32 or other data")
