"""Correlations of numbers, by scipy."""

from collections.abc import Sequence

from depthprune.optional import require
from depthprune.tasks.metrics.base import REGRESSION, metric

KINDS = (REGRESSION,)


def _correlation(name: str, expected: Sequence, predicted: Sequence) -> float:
    stats = require("scipy.stats", extra="metrics", purpose="scoring a task")
    # Constant predictions have no correlation; they are worth nothing, which is what 0 says.
    if len(set(predicted)) < 2 or len(set(expected)) < 2:
        return 0.0
    return float(getattr(stats, name)(expected, predicted)[0])


@metric("pearson", kinds=KINDS)
def pearson(expected: Sequence, predicted: Sequence) -> float:
    """Pearson's correlation."""
    return _correlation("pearsonr", expected, predicted)


@metric("spearman", kinds=KINDS)
def spearman(expected: Sequence, predicted: Sequence) -> float:
    """Spearman's correlation of ranks."""
    return _correlation("spearmanr", expected, predicted)
