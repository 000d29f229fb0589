"""Block influence (ShortGPT, Men et al., arXiv:2403.03853, equation 1)."""

from typing import TYPE_CHECKING

from depthprune.scores.base import LayerScores, scoring_method

if TYPE_CHECKING:
    from depthprune.scores.sums import SimilaritySums


@scoring_method("block-influence", needs="pass", paper="https://arxiv.org/abs/2403.03853")
def block_influence(sums: "SimilaritySums") -> LayerScores:
    """One minus the mean cosine of a layer's input and output over all real tokens."""
    return LayerScores(tuple((1 - sums.cosine_L / sums.tokens).tolist()))
