"""What a plan costs on calibration data: a sum over what is predicted, a batch at a time. Lower is better.

Shapes: B sequences, T tokens, V vocabulary, C classes, D hidden size.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from depthprune.errors import UserError
from depthprune.registry import Registry
from depthprune.scores.batches import IGNORED, Batch
from depthprune.scores.pooling import pooled_BD
from depthprune.surgery.partial import leaving

Part = tuple[float, int]  # a sum, and over how many
LANGUAGE = ("causal", "masked", "seq2seq")


@dataclass(frozen=True)
class Objective:
    """A named cost. `registry.add(name, Objective(…))` makes one known, also from the entry-point group
    `depthprune.objective` of another package.

    Args:
        name: what the command calls it.
        function: `(output, batch, head, full output or None)` to the sum and the count of a batch.
        heads: kinds of heads (`batches.head_of`) that have it; None stands for a model without a head.
        labels: whether it needs the labels of a task.
        against_full: whether it compares with the output of the full model.
        finish: makes the value of the mean.
        unit: of the value.
    """

    name: str
    function: Callable[[Any, Batch, str | None, Any], Part]
    heads: tuple[str | None, ...]
    labels: bool = False
    against_full: bool = False
    finish: Callable[[float], float] = float
    unit: str = ""

    def check(self, head: str | None, labelled: bool, model: str) -> None:
        """Refuse a model, or data, that cannot have this cost.

        Raises:
            UserError: it is so.
        """
        if head not in self.heads:
            kinds = {"causal": "a causal language head", "masked": "a masked-language head", "classes": "a classifier",
                     "seq2seq": "a sequence-to-sequence head", None: "no head"}  # fmt: skip
            wanted = " or ".join(kinds[h] for h in self.heads)
            raise UserError(f"{model} has {kinds[head]}, and '{self.name}' needs a model with {wanted}")
        if head == "classes" and self.labels and not labelled:
            raise UserError(f"'{self.name}' of a classifier needs labels: give a task, such as --data mrpc")


def logits_of(output: Any) -> Tensor:
    """Return the logits, or the last hidden states of a model without a head, in float32."""
    logits = output["logits"] if isinstance(output, Mapping) and "logits" in output else leaving(output)
    return logits.float()


def _predicted(logits: Tensor, batch: Batch, head: str | None) -> tuple[Tensor, Tensor]:
    """Return logits [N, V] and targets [N] of the tokens that are predicted."""
    assert batch.targets is not None
    targets = batch.targets
    if head == "causal":
        logits, targets = logits[:, :-1], targets[:, 1:]
    chosen = targets != IGNORED
    return logits[chosen], targets[chosen]


def _loss(output: Any, batch: Batch, head: str | None, full: Any) -> Part:
    logits = logits_of(output)
    if head == "classes":
        assert batch.targets is not None
        if logits.shape[-1] == 1:
            return float(functional.mse_loss(logits[:, 0], batch.targets, reduction="sum")), len(logits)
        return float(functional.cross_entropy(logits, batch.targets.long(), reduction="sum")), len(logits)
    chosen, targets = _predicted(logits, batch, head)
    return float(functional.cross_entropy(chosen, targets, reduction="sum")), len(targets)


def _kl(output: Any, batch: Batch, head: str | None, full: Any) -> Part:
    ours, theirs = logits_of(output), logits_of(full)
    if head == "classes" and ours.shape[-1] == 1:  # two Gaussians of variance one
        return float((ours - theirs).square().sum() / 2), len(ours)
    if head != "classes":
        ours, theirs = _predicted(ours, batch, head)[0], _predicted(theirs, batch, head)[0]
    ours, theirs = ours.log_softmax(-1), theirs.log_softmax(-1)
    return float(functional.kl_div(ours, theirs, reduction="sum", log_target=True)), len(ours)


def _embedding(output: Any, batch: Batch, head: str | None, full: Any) -> Part:
    one_BD, other_BD = (pooled_BD(logits_of(states), batch) for states in (output, full))
    return float((1 - functional.cosine_similarity(one_BD, other_BD, dim=-1)).sum()), len(one_BD)


def _exp(mean: float) -> float:
    return math.exp(mean) if mean < 700 else math.inf


registry: Registry[Objective] = Registry("objective", "depthprune.scores.objectives")
for _part in (
    Objective("loss", _loss, (*LANGUAGE, "classes"), labels=True, unit="nats"),
    Objective("perplexity", _loss, LANGUAGE, finish=_exp),
    Objective("kl", _kl, (*LANGUAGE, "classes"), against_full=True, unit="nats"),
    Objective("embedding", _embedding, (None,), against_full=True, unit="1 − cosine"),
):
    registry.add(_part.name, _part)


def default_objective(head: str | None, labelled: bool) -> str:
    """Return the objective for a model that nobody chose one for."""
    if head is None:
        return "embedding"
    return "loss" if head != "classes" or labelled else "kl"


def loss_tensor(output: Any, batch: Batch, head: str | None) -> Tensor:
    """Return the sum of the loss over a batch as a tensor with a gradient."""
    logits = logits_of(output)
    if head != "classes":
        return functional.cross_entropy(*_predicted(logits, batch, head), reduction="sum")
    assert batch.targets is not None
    if logits.shape[-1] == 1:
        return functional.mse_loss(logits[:, 0], batch.targets, reduction="sum")
    return functional.cross_entropy(logits, batch.targets.long(), reduction="sum")


def number_predicted(batch: Batch, head: str | None) -> int:
    """Return over how many predictions `loss_tensor` sums."""
    assert batch.targets is not None
    if head == "classes":
        return len(batch.targets)
    targets = batch.targets[:, 1:] if head == "causal" else batch.targets
    return int((targets != IGNORED).sum())


def check_finite(total: float, number: int, dropped: tuple[int, ...]) -> None:
    """Refuse a cost that is not a number.

    Raises:
        UserError: it is so; the message names the plan and the batch.
    """
    if not math.isfinite(total):
        without = f"without layers {list(dropped)}" if dropped else "of the full model"
        raise UserError(f"the loss {without} is not finite (batch {number}); give --dtype float32 or other data")
