"""Angular distance of windows of layers (Gromov et al., arXiv:2403.17887, equation 7)."""

from typing import TYPE_CHECKING

from depthprune.scores.base import LayerScores, scoring_method

if TYPE_CHECKING:
    from depthprune.scores.sums import SimilaritySums


@scoring_method("angular", needs="pass", paper="https://arxiv.org/abs/2403.17887", selects="window")
def angular(sums: "SimilaritySums") -> LayerScores:
    """Mean angle between what enters and leaves a window of layers at the last token: arccos(cosine) / π.

    In [0, 1], for every window of n layers from every start, layer 0 included. The paper takes the last token of a
    decoder; where a model has a sentence token, it is that.
    """
    windows = sums.windows(sums.pair_angle / sums.sequences)
    return LayerScores(windows[1], windows)
