"""Magnitude of a layer's weights: the baseline that looks at no data (Kim et al., arXiv:2402.02834, section 3)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from depthprune.scores.base import LayerScores, scoring_method

if TYPE_CHECKING:
    from torch import nn


@scoring_method("magnitude", needs="weights", paper="https://arxiv.org/abs/2402.02834")
def magnitude(layers: Sequence[Sequence["nn.Module"]]) -> LayerScores:
    """Sum of the absolute values of a layer's weights.

    Args:
        layers: the modules of each layer.
    """
    return LayerScores(
        tuple(
            sum(weight.detach().abs().double().sum().item() for module in modules for weight in module.parameters())
            for modules in layers
        )
    )
