"""A difference of scores with its interval, over the seeds of training and over the rows of evaluation. No torch.

A difference is a weighted sum of scores, such as `top − bottom`, taken within a task and a seed, so that runs are
compared with runs of the same seed, task and recipe. Its mean over tasks is uncertain in two ways:

- *Training* varies: a t interval over the differences of single seeds, within each task, with Satterthwaite's degrees
  of freedom over the tasks. Where a task has a single seed, the variance over the seeds of the model's other plans on
  this task stands in, pooled; where there is none, the spread over the tasks, which holds the seeds' and more. With
  neither the interval is unknown, and nothing is decided.
- *Rows* vary: a normal interval, by the bootstrap over rows where predictions are recorded (`rows.py`).

The half-widths of the two are added in squares (Zou and Donner's MOVER), so that a spread over two or three seeds that
is small by chance does not decide anything by itself: neither part is ever taken as known.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from depthprune.optional import require
from depthprune.reporting.claims.rows import row_variance
from depthprune.reporting.results import Run

LEVEL = 0.95
PURPOSE = "a verdict on a claim"
HALVINGS = 50

Terms = Sequence[tuple[float, Run]]  # weight and run: a difference within one task and seed
Strata = Mapping[str, Sequence[Terms]]  # task → a difference a seed


@dataclass(frozen=True)
class Difference:
    """A mean difference, and how well it is known.

    Args:
        mean: over seeds, then over tasks, in the unit of the metric.
        low, high: ends of its 95 % interval; None if it is unknown.
        above, below: one-sided p-values of the difference being above and below 0.
        basis: what it is known from, in words.
        scale: what it is multiplied by where it is shown: 100 for fractions.
    """

    mean: float
    low: float | None
    high: float | None
    above: float
    below: float
    basis: str
    scale: int = 100

    @property
    def words(self) -> str:
        """The difference and its interval, in points where it is one of fractions."""
        if self.low is None or self.high is None:
            return f"{self.scale * self.mean:+.2f} (interval unknown)"
        low, high = self.scale * self.low, self.scale * self.high
        return f"{self.scale * self.mean:+.2f} (95 %: {low:+.2f} to {high:+.2f})"


def difference(strata: Strata, *, more: float = 0.0, unit: str = "tasks") -> Difference:
    """Estimate a mean difference.

    Args:
        strata: task → the weighted runs of each seed.
        more: is added to every difference: a margin that is allowed.
        unit: what the strata are, in words, if not tasks.
    """
    values = [[sum(weight * run.score for weight, run in terms) for terms in seeds] for seeds in strata.values()]
    mean = statistics.fmean(map(statistics.fmean, values)) + more
    scale = next(run.measured.scale for seeds in strata.values() for terms in seeds for _, run in terms)
    over_seeds, freedom, words = _training(strata, values, unit)
    over_rows, paired = _rows(strata)
    if over_rows is None:
        rows = "number of rows unknown"
    else:
        rows = "rows paired" if paired else "rows unpaired, as no predictions are recorded"
    basis = f"{words}, {rows}"
    if over_seeds is None or over_rows is None or over_seeds + over_rows == 0:
        return Difference(mean, None, None, 0.5, 0.5, basis, scale)
    half = _half_width((1 + LEVEL) / 2, over_seeds, freedom, over_rows)
    beyond = _p_value(abs(mean), over_seeds, freedom, over_rows)
    above, below = (beyond, 1 - beyond) if mean > 0 else (1 - beyond, beyond)
    return Difference(mean, mean - half, mean + half, above, below, basis, scale)


def _training(strata: Strata, values: Sequence[Sequence[float]], unit: str) -> tuple[float | None, float, str]:
    """Return the variance of the mean over training, its degrees of freedom, and words; None where unknown."""
    of_several = f" of {len(values)} {unit}" if len(values) > 1 else ""
    counts = sorted({len(some) for some in values})
    seeds = "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    parts = [_variance(seeds, some) for seeds, some in zip(strata.values(), values, strict=True)]
    known = [(variance / len(values) ** 2, freedom) for variance, freedom in parts if freedom]
    if len(known) == len(parts):
        total = sum(part for part, _ in known)
        below = sum(part**2 / freedom for part, freedom in known)
        freedom = total**2 / below if below else min(freedom for _, freedom in known)
        if counts[0] > 1:
            return total, freedom, f"spread over {seeds} seeds{of_several}"
        return total, freedom, f"{seeds} seed{'' if seeds == '1' else 's'}{of_several}, spread of other plans' seeds"
    if len(values) > 1:
        means = [statistics.fmean(some) for some in values]
        more = f"{seeds} seed{'' if seeds == '1' else 's'} each"
        return statistics.variance(means) / len(means), len(means) - 1, f"spread over {len(means)} {unit}, {more}"
    return None, 0, "one seed, so that nobody knows how much training varies"


def _variance(seeds: Sequence[Terms], values: Sequence[float]) -> tuple[float, int]:
    """Return the variance over training of a task's mean, and its degrees of freedom: 0 where it is unknown."""
    if len(values) > 1:
        return statistics.variance(values) / len(values), len(values) - 1
    ((*terms,),) = seeds
    freedom = min(run.seed_freedom for _, run in terms)
    return sum(weight**2 * run.seed_variance for weight, run in terms), freedom


def _rows(strata: Strata) -> tuple[float | None, bool]:
    """Return the variance of the mean over rows, and whether rows are paired."""
    return row_variance(
        [
            (weight / len(seeds) / len(strata), run)
            for seeds in strata.values()
            for each in seeds
            for weight, run in each
        ]
    )


def _half_width(probability: float, over_seeds: float, freedom: float, over_rows: float) -> float:
    training, rows = _quantiles(probability, round(freedom, 3))
    return math.sqrt(over_seeds * training**2 + over_rows * rows**2)


def _p_value(gap: float, over_seeds: float, freedom: float, over_rows: float) -> float:
    """Return the one-sided p-value of a gap: that of the one-sided interval that just reaches 0."""
    low, high = 0.0, 0.5
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _half_width(1 - middle, over_seeds, freedom, over_rows) > gap:
            low = middle
        else:
            high = middle
    return high


@lru_cache(maxsize=65536)
def _quantiles(probability: float, freedom: float) -> tuple[float, float]:
    """Return the quantiles of Student's t and of the normal distribution."""
    special = require("scipy.special", extra="report", purpose=PURPOSE)
    return float(special.stdtrit(freedom, probability)), float(special.ndtri(probability))
