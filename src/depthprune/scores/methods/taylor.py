"""First-order Taylor importance (Kim et al., arXiv:2402.02834, after Molchanov et al., arXiv:1611.06440)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from depthprune.scores.base import LayerScores, scoring_method

if TYPE_CHECKING:
    from torch import nn


@scoring_method("taylor", needs="gradient", paper="https://arxiv.org/abs/2402.02834")
def taylor(layers: Sequence[Sequence["nn.Module"]], add_gradients: Callable[[], int]) -> LayerScores:
    """Sum of abs(gradient × weight) over a layer's weights: the first-order change of the loss.

    The gradient is that of the mean loss over all calibration data.

    Args:
        layers: the modules of each layer; their parameters require gradients.
        add_gradients: adds the gradients of the summed loss, and returns over how many predictions.
    """
    count = add_gradients()
    return LayerScores(
        tuple(
            sum(
                (weight.grad.double() * weight.detach().double()).abs().sum().item()
                for module in modules
                for weight in module.parameters()
                if weight.grad is not None
            )
            / count
            for modules in layers
        )
    )
