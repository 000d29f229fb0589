"""How far the embeddings of a model without a head move when layers are dropped.

Shapes: B sequences, T tokens, D hidden size.
"""

from typing import TYPE_CHECKING, Any

from depthprune.scores.objectives.base import Part, objective

if TYPE_CHECKING:
    from depthprune.scores.batches import Batch


@objective("embedding", heads=(None,), against_full=True, unit="1 − cosine")
def embedding(output: Any, batch: "Batch", head: str | None, full_output: Any) -> Part:
    """One minus the cosine of the pooled embedding and the full model's; for models without a head."""
    from torch.nn import functional

    from depthprune.scores.predictions import logits_of
    from depthprune.tasks.pooling import pooled_BD

    ours_BD, theirs_BD = (
        pooled_BD(logits_of(states), batch.inputs["attention_mask"], batch.pooling) for states in (output, full_output)
    )
    return float((1 - functional.cosine_similarity(ours_BD, theirs_BD, dim=-1)).sum()), len(ours_BD)
