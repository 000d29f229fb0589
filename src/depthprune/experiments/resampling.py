"""The bootstrap over rows: how exactly the rows on which runs were scored tell their scores. No torch.

Every metric takes a weight for each row, so that all resamples are scored in one product of matrices.

Shapes: R runs, N distinct rows, C classes, B resamples.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from depthprune.experiments.store.predictions import read_predictions
from depthprune.tasks.metrics.base import HIGHER
from depthprune.tasks.metrics.base import registry as metrics

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 1000
INTERVAL = (0.025, 0.975)


def lost_interval(full: Path, pruned: Path, primary: str) -> tuple[float, float] | None:
    """Return the 95 % interval of what a run loses against the full model, by a paired bootstrap over their rows.

    Args:
        full: the folder of the full model's run.
        pruned: the folder of the other run.
        primary: name of the primary metric.

    Returns:
        Lowest and highest, in the unit of the metric; None where the predictions are not recorded, or not for the same
        rows.
    """
    import numpy as np

    before, after = read_answers(full, primary), read_answers(pruned, primary)
    if before is None or after is None or full == pruned or not np.array_equal(before[0], after[0]):
        return None
    sign = 1 if metrics.get(metric_name(primary)).better == HIGHER else -1
    low, high = np.quantile(resampled(primary, before[0], [(sign, before[1]), (-sign, after[1])]), INTERVAL)
    return float(low), float(high)


def resampled(primary: str, expected_N: "np.ndarray", terms: Sequence[tuple[float, "np.ndarray"]]) -> "np.ndarray":
    """Return a weighted sum of scores for each of `RESAMPLES` resamples of the rows, which all runs share.

    Args:
        primary: name of the metric.
        expected_N: the labels of the rows.
        terms: weight and predictions of each run.
    """
    import numpy as np

    scores_RB = resampled_scores(primary, expected_N, [predicted_N for _, predicted_N in terms])
    return np.array([weight for weight, _ in terms]) @ scores_RB


def resampled_scores(
    primary: str, expected_N: "np.ndarray", predicted_RN: "Sequence[np.ndarray] | np.ndarray"
) -> "np.ndarray":
    """Return the scores [R, B] of R runs on the same resamples of the rows."""
    import numpy as np

    metric = METRICS[metric_name(primary)]
    table_RN = np.stack([expected_N, *predicted_RN])
    # Rows that all runs answer alike are one row with a weight: the same bootstrap, and far less to draw.
    distinct_RN, counts_N = np.unique(table_RN, axis=1, return_counts=True)
    rows = int(counts_N.sum())
    weights_BN = np.random.default_rng(0).multinomial(rows, counts_N / rows, size=RESAMPLES).astype(np.float64)
    return np.stack([metric(distinct_RN[0], predicted_N, weights_BN) for predicted_N in distinct_RN[1:]])


def read_answers(folder: Path, primary: str) -> "tuple[np.ndarray, np.ndarray] | None":
    """Return the expected and the predicted labels behind a run's primary metric, or None where it has none."""
    import numpy as np

    name = metric_name(primary)
    split = (read_predictions(folder) or {}).get(primary.removesuffix(name)) if name else None
    if split is None or len(split["expected"]) < 2:
        return None
    return np.asarray(split["expected"], dtype=np.float64), np.asarray(split["predicted"], dtype=np.float64)


def score_of_rows(primary: str, expected_N: "np.ndarray", predicted_N: "np.ndarray") -> float:
    """Return the score of all rows, each of them once."""
    import numpy as np

    return float(METRICS[metric_name(primary)](expected_N, predicted_N, np.ones((1, len(expected_N))))[0])


def metric_name(primary: str) -> str:
    """Return a metric's name without the prefix of its split, or nothing where it is none of ours.

    >>> metric_name("matched_accuracy"), metric_name("balanced_accuracy"), metric_name("error_rate")
    ('accuracy', 'balanced_accuracy', '')
    """
    longest = sorted(METRICS, key=len, reverse=True)  # balanced_accuracy is not the accuracy of a split 'balanced'
    return next((name for name in longest if primary == name or primary.endswith(f"_{name}")), "")


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


def _perplexity(tokens_N: "np.ndarray", losses_N: "np.ndarray", weights_BN: "np.ndarray") -> "np.ndarray":
    """See `tasks.metrics.perplexity` for what the answers are: the tokens of each block, and their loss."""
    import numpy as np

    return np.exp(weights_BN @ losses_N / (weights_BN @ tokens_N))


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
    "perplexity": _perplexity,
}
