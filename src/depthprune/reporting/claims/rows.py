"""How exactly rows tell a score: the bootstrap over rows where predictions are recorded, else a formula. No torch.

Runs that answered the same rows are resampled together, so that what is hard for all of them cancels out.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from depthprune.experiments.resampling import read_answers, resampled, score_of_rows
from depthprune.reporting.results import Run
from depthprune.tasks.metrics.base import FRACTION

if TYPE_CHECKING:
    import numpy as np

CORRELATIONS = ("pearson", "spearman", "matthews")
AGREES = 1e-3  # with the recorded score, or a share of it above 1, by which predictions are known to be this record's


def row_variance(terms: Sequence[tuple[float, Run]]) -> tuple[float | None, bool]:
    """Return the variance over rows of a weighted sum of scores, and whether the rows are paired.

    Args:
        terms: weight and run.

    Returns:
        None where the number of rows is unknown. Rows of different tasks vary by themselves. Where a run has no
        predictions the rows are unpaired: the standard errors of the two sides of a difference add up, and seeds or
        plans on one side, which answer the same rows, do not average out.
    """
    tasks: dict[tuple, list[tuple[float, Run]]] = {}
    for weight, run in terms:
        tasks.setdefault((run.task, run.data, run.primary), []).append((weight, run))
    total, paired = 0.0, True
    for some in tasks.values():
        variance = _paired(some)
        if variance is None:
            variance, paired = _unpaired(some), False
        if variance is None:
            return None, False
        total += variance
    return total, paired


def _unpaired(terms: Sequence[tuple[float, Run]]) -> float | None:
    plans: dict[tuple, list[tuple[float, Run]]] = {}
    for weight, run in terms:
        plans.setdefault((run.model, weight > 0), []).append((weight, run))
    total = 0.0
    for some in plans.values():
        errors = [_error(run) for _, run in some]
        known = [error for error in errors if error is not None]
        if len(known) < len(errors):
            return None
        total += sum(weight for weight, _ in some) ** 2 * sum(error**2 for error in known) / len(known)
    return total


def _error(run: Run) -> float | None:
    measured = run.measured
    if measured.standard_error is not None or measured.unit != FRACTION:
        return measured.standard_error
    return standard_error(measured.value, run.primary, measured.examples)


def standard_error(score: float, metric: str, examples: int) -> float | None:
    """Return how exactly so many examples tell a score; None where their number is unknown.

    A share of right answers varies as a binomial does, a correlation r of n pairs by (1 − r²) / √(n − 1).
    """
    if examples < 2:
        return None
    if metric.rpartition("_")[2] in CORRELATIONS:
        return (1 - score**2) / math.sqrt(examples - 1)
    return math.sqrt(max(score * (1 - score), 0.0025) / examples)


def _paired(terms: Sequence[tuple[float, Run]]) -> float | None:
    import numpy as np

    answers = [_answers(run) for _, run in terms]
    first = answers[0]
    if first is None:
        return None
    predicted = []
    for (weight, _), answer in zip(terms, answers, strict=True):
        if answer is None or not np.array_equal(answer[0], first[0]):
            return None
        predicted.append((weight, answer[1]))
    return float(resampled(terms[0][1].primary, first[0], predicted).var(ddof=1))


@lru_cache(maxsize=4096)
def _answers(run: Run) -> "tuple[np.ndarray, np.ndarray] | None":
    """Return the expected and the predicted labels of a run's primary metric, if its record is what they give."""
    found = read_answers(run.folder, run.primary) if run.folder is not None else None
    if found is None:
        return None
    gap = abs(score_of_rows(run.primary, *found) - run.score)
    return found if gap <= AGREES * max(1.0, abs(run.score)) else None
