"""Kullback-Leibler divergence of the full model's predictions from those of the cut one. It needs no labels.

Shapes: B sequences, T tokens, V vocabulary or classes.
"""

from typing import TYPE_CHECKING, Any

from depthprune.scores.objectives.base import CLASSES, LANGUAGE, Part, objective

if TYPE_CHECKING:
    from depthprune.scores.batches import Batch


@objective("kl", heads=(*LANGUAGE, CLASSES), against_full=True, unit="nats")
def kl(output: Any, batch: "Batch", head: str | None, full_output: Any) -> Part:
    """Kullback-Leibler divergence from the full model's predictions; needs no labels."""
    from torch.nn import functional

    from depthprune.scores.predictions import logits_of, predicted_tokens

    ours, theirs = logits_of(output), logits_of(full_output)
    if head == CLASSES and ours.shape[-1] == 1:  # a regression: the divergence of two Gaussians of variance one
        return float((ours - theirs).square().sum() / 2), len(ours)
    if head != CLASSES:
        ours, theirs = predicted_tokens(ours, batch, head)[0], predicted_tokens(theirs, batch, head)[0]
    ours, theirs = ours.log_softmax(-1), theirs.log_softmax(-1)
    return float(functional.kl_div(ours, theirs, reduction="sum", log_target=True)), len(ours)
