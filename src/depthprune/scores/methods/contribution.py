"""Contribution: how much a layer turns the representation of the sentence (Sajjad et al., arXiv:2004.03844, 3.6)."""

from typing import TYPE_CHECKING

from depthprune.scores.base import LayerScores, scoring_method

if TYPE_CHECKING:
    from depthprune.scores.sums import SimilaritySums


@scoring_method("contribution", needs="pass", paper="https://arxiv.org/abs/2004.03844")
def contribution(sums: "SimilaritySums") -> LayerScores:
    """One minus the mean cosine of a layer's input and output at the sentence token.

    Windows are the same between the states that enter and leave several layers.
    """
    windows = sums.windows(1 - sums.pair_cosine / sums.sequences)
    return LayerScores(windows[1], windows)
