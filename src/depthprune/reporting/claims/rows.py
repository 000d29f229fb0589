"""How exactly rows tell a score: the bootstrap over rows where predictions are recorded, else a formula. No torch.

Runs that answered the same rows are resampled together, so that what is hard for all of them cancels out.

Shapes: R runs, N distinct rows, B resamples.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from depthprune.experiments.predictions import read_predictions
from depthprune.reporting.results import Run

if TYPE_CHECKING:
    import numpy as np

CORRELATIONS = ("pearson", "spearman", "matthews")
RESAMPLES = 1000
AGREES = 1e-3  # with the recorded score, by which predictions are known to be this record's


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
        errors = [standard_error(run.score, run.primary, run.examples) for _, run in some]
        known = [error for error in errors if error is not None]
        if len(known) < len(errors):
            return None
        total += sum(weight for weight, _ in some) ** 2 * sum(error**2 for error in known) / len(known)
    return total


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
    for answer in answers:
        if answer is None or not np.array_equal(answer[0], first[0]):
            return None
    metric = _metric(terms[0][1])
    assert metric is not None, "answers are read only where their metric is known"
    table_RN = np.stack([first[0], *(answer[1] for answer in answers if answer is not None)])
    # Rows that all runs answer alike are one row with a weight: the same bootstrap, and far less to draw.
    distinct_RN, counts_N = np.unique(table_RN, axis=1, return_counts=True)
    rows = int(counts_N.sum())
    weights_BN = np.random.default_rng(0).multinomial(rows, counts_N / rows, size=RESAMPLES).astype(np.float64)
    total_B = np.zeros(RESAMPLES)
    for (weight, _), predicted_N in zip(terms, distinct_RN[1:], strict=True):
        total_B += weight * metric(distinct_RN[0], predicted_N, weights_BN)
    return float(total_B.var(ddof=1))


@lru_cache(maxsize=4096)
def _answers(run: Run) -> "tuple[np.ndarray, np.ndarray] | None":
    """Return the expected and the predicted labels of a run's primary metric, if its record is what they give."""
    import numpy as np

    metric = _metric(run)
    found = read_predictions(run.folder) if run.folder is not None and metric is not None else None
    split = (found or {}).get(run.primary[: -len(_name(run.primary))])
    if split is None or metric is None or len(split["expected"]) < 2:
        return None
    expected, predicted = (np.asarray(split[name], dtype=np.float64) for name in ("expected", "predicted"))
    score = metric(expected, predicted, np.ones((1, len(expected))))[0]
    return (expected, predicted) if abs(score - run.score) <= AGREES else None


def _name(primary: str) -> str:
    """Return a metric's name without the prefix of its split: MNLI's are `matched_` and `mismatched_`."""
    return next(
        (name for name in METRICS if primary == name or primary in (f"matched_{name}", f"mismatched_{name}")), ""
    )


def _metric(run: Run) -> "Metric | None":
    return METRICS.get(_name(run.primary))


def _accuracy(expected_N: "np.ndarray", predicted_N: "np.ndarray", weights_BN: "np.ndarray") -> "np.ndarray":
    return weights_BN @ (expected_N == predicted_N) / weights_BN.sum(axis=1)


def _confusion(
    expected_N: "np.ndarray", predicted_N: "np.ndarray", weights_BN: "np.ndarray"
) -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Return, for each class, how often it is expected, how often predicted, and how often both."""
    import numpy as np

    classes = np.unique(np.concatenate([expected_N, predicted_N]))
    expected_NC, predicted_NC = (labels[:, None] == classes for labels in (expected_N, predicted_N))
    return weights_BN @ expected_NC, weights_BN @ predicted_NC, weights_BN @ (expected_NC & predicted_NC)


def _matthews(expected_N: "np.ndarray", predicted_N: "np.ndarray", weights_BN: "np.ndarray") -> "np.ndarray":
    expected_BC, predicted_BC, right_BC = _confusion(expected_N, predicted_N, weights_BN)
    rows_B = weights_BN.sum(axis=1)
    covariance_B = right_BC.sum(axis=1) * rows_B - (expected_BC * predicted_BC).sum(axis=1)
    both_B = (rows_B**2 - (expected_BC**2).sum(axis=1)) * (rows_B**2 - (predicted_BC**2).sum(axis=1))
    return _ratio(covariance_B, both_B**0.5)


def _balanced_accuracy(expected_N: "np.ndarray", predicted_N: "np.ndarray", weights_BN: "np.ndarray") -> "np.ndarray":
    expected_BC, _, right_BC = _confusion(expected_N, predicted_N, weights_BN)
    return _ratio(right_BC, expected_BC).sum(axis=1) / (expected_BC > 0).sum(axis=1)


def _f1(expected_N: "np.ndarray", predicted_N: "np.ndarray", weights_BN: "np.ndarray") -> "np.ndarray":
    right_B = weights_BN @ ((expected_N == 1) & (predicted_N == 1))
    return _ratio(2 * right_B, weights_BN @ (expected_N == 1) + weights_BN @ (predicted_N == 1))


def _f1_macro(expected_N: "np.ndarray", predicted_N: "np.ndarray", weights_BN: "np.ndarray") -> "np.ndarray":
    expected_BC, predicted_BC, right_BC = _confusion(expected_N, predicted_N, weights_BN)
    return _ratio(2 * right_BC, expected_BC + predicted_BC).mean(axis=1)


def _pearson(expected_N: "np.ndarray", predicted_N: "np.ndarray", weights_BN: "np.ndarray") -> "np.ndarray":
    rows_B = weights_BN.sum(axis=1)
    x_N, y_N = expected_N - expected_N.mean(), predicted_N - predicted_N.mean()
    x_B, y_B, xx_B, yy_B, xy_B = (weights_BN @ each / rows_B for each in (x_N, y_N, x_N**2, y_N**2, x_N * y_N))
    return _ratio(xy_B - x_B * y_B, ((xx_B - x_B**2).clip(0) * (yy_B - y_B**2).clip(0)) ** 0.5)


def _spearman(expected_N: "np.ndarray", predicted_N: "np.ndarray", weights_BN: "np.ndarray") -> "np.ndarray":
    """Correlate ranks; a resample keeps the ranks of the whole, which saves sorting each anew."""
    return _pearson(_ranks(expected_N), _ranks(predicted_N), weights_BN)


def _ranks(values_N: "np.ndarray") -> "np.ndarray":
    import numpy as np

    _, inverse_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse_N]


def _ratio(above: "np.ndarray", below: "np.ndarray") -> "np.ndarray":
    import numpy as np

    return np.divide(above, below, out=np.zeros_like(above, dtype=np.float64), where=below > 0)


Metric = Callable[["np.ndarray", "np.ndarray", "np.ndarray"], "np.ndarray"]
METRICS: dict[str, Metric] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "matthews": _matthews,
    "f1": _f1,
    "f1_macro": _f1_macro,
    "pearson": _pearson,
    "spearman": _spearman,
}
