"""Relative magnitude: how large a layer's change is beside its input (after Samragh et al., arXiv:2312.09299).

They divide by the norm of the output; dividing by that of the input orders layers by the change alone.
"""

from typing import TYPE_CHECKING

from depthprune.scores.base import LayerScores, scoring_method

if TYPE_CHECKING:
    from depthprune.scores.sums import SimilaritySums


@scoring_method("relative-magnitude", needs="pass", paper="https://arxiv.org/abs/2312.09299")
def relative_magnitude(sums: "SimilaritySums") -> LayerScores:
    """Mean of ‖output − input‖ / ‖input‖ over all real tokens."""
    return LayerScores(tuple((sums.magnitude_L / sums.tokens).tolist()))
