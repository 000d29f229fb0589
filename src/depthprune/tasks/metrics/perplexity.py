"""Perplexity of a language model."""

import math
import statistics
from collections.abc import Sequence

from depthprune.tasks.metrics.base import LANGUAGE_MODEL, LOWER, metric


def _standard_error(tokens: Sequence[int], losses: Sequence[float]) -> float:
    """Return how exactly the blocks tell the perplexity: that of a ratio of means, by the delta method."""
    if len(tokens) < 2:
        return math.nan
    mean = sum(losses) / sum(tokens)
    residuals = [loss - mean * number for loss, number in zip(losses, tokens, strict=True)]
    error = statistics.stdev(residuals) * math.sqrt(len(tokens)) / sum(tokens)
    return perplexity(tokens, losses) * error


@metric("perplexity", kinds=(LANGUAGE_MODEL,), unit="", better=LOWER, standard_error=_standard_error)
def perplexity(tokens: Sequence[int], losses: Sequence[float]) -> float:
    """The exponential of the mean negative log-likelihood of a token.

    >>> round(perplexity([2, 2], [math.log(16), math.log(16)]), 6)
    4.0

    Args:
        tokens: that are predicted in each block.
        losses: of each block, summed over its tokens, in nats.
    """
    mean = sum(losses) / sum(tokens)
    return math.exp(mean) if mean < 700 else math.inf
