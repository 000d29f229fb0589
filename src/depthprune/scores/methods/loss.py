"""The rise of a loss when a layer is left out (Kim et al., arXiv:2402.02834; Song et al., 2402.09025)."""

from collections.abc import Callable

from depthprune.plan import LayerPlan
from depthprune.scores.base import LayerScores, scoring_method


@scoring_method("loss", needs="objective", paper="https://arxiv.org/abs/2402.02834")
def loss(depth: int, value: Callable[[LayerPlan], float]) -> LayerScores:
    """Rise of the loss, perplexity or another objective when the layer alone is left out.

    Args:
        depth: layers of the stack.
        value: the objective of a plan, lower is better.
    """
    full = value(LayerPlan(depth, ()))
    return LayerScores(tuple(value(LayerPlan(depth, (i,))) - full for i in range(depth)))
