"""What verdicts are made of: claims, the noise of scores, runs that can be compared, and how answers add up. No torch.

A test answers for each model and count: True, False, or None where a difference is smaller than the noise. The noise is
the spread over seeds where there are several, else the standard error of a score on so many examples.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from depthprune.report.pairs import plain
from depthprune.report.results import Results, Run

SUPPORTED, NOT_SUPPORTED, NOT_TESTABLE = "supported", "not supported", "not testable with these runs"
CORRELATIONS = ("pearson", "spearman", "matthews")
BY_POSITION = ("top", "bottom", "symmetric", "even-alternate", "odd-alternate")

Answer = tuple[bool | None, str]
Test = Callable[[Results], tuple[str, str]]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper with what tests it; the test returns a verdict and the evidence.

    Args:
        number: in the paper's list.
    """

    number: int
    text: str
    test: Test


def claim(into: list[Claim], number: int, text: str) -> Callable[[Test], Test]:
    """Put a test into a list of claims."""

    def register(test: Test) -> Test:
        into.append(Claim(number, text, test))
        return test

    return register


def noise(runs: Sequence[Run]) -> float:
    """Return how far apart two scores like these may be by chance: about two standard errors of a difference.

    Over several seeds it is their spread; over one, a share of right answers varies as a binomial does and a
    correlation r of n pairs by (1 − r²) / √(n − 1).
    """
    cells: dict[tuple, list[Run]] = {}
    for run in runs:
        cells.setdefault((run.model, run.task, run.dropped, run.heal), []).append(run)
    errors = [error for some in cells.values() if (error := _standard_error(some)) is not None]
    return 2 * math.sqrt(2) * statistics.fmean(errors) / math.sqrt(len({run.task for run in runs})) if errors else 0.0


def _standard_error(seeds: Sequence[Run]) -> float | None:
    if len(seeds) > 1:
        return statistics.stdev(run.score for run in seeds) / math.sqrt(len(seeds))
    return standard_error(seeds[0].score, seeds[0].primary, seeds[0].examples)


def standard_error(score: float, metric: str, examples: int) -> float | None:
    """Return how exactly so many examples tell a score; None where their number is unknown."""
    if examples < 2:
        return None
    if metric in CORRELATIONS:
        return (1 - score**2) / math.sqrt(examples - 1)
    return math.sqrt(max(score * (1 - score), 0.0025) / examples)


def mean(runs: Sequence[Run]) -> float:
    """Return the mean score."""
    return statistics.fmean(run.score for run in runs)


def tasks_of(runs: Sequence[Run]) -> str:
    """Say on which tasks runs are."""
    return ", ".join(sorted({run.task for run in runs}))


def by_strategy(results: Results, *, share: Callable[[float], bool]) -> dict[tuple[str, int], dict[str, list[Run]]]:
    """Return (model, count) → strategy → runs, where the share of the layers that go is right.

    Only runs that drop first and train everything then: other recipes have claims of their own.
    """
    found: dict[tuple[str, int], dict[str, list[Run]]] = {}
    for run in results.pruned():
        if plain(run) and share(run.count / run.depth):
            for name in run.strategies:
                found.setdefault((run.model, run.count), {}).setdefault(name, []).append(run)
    return found


def comparable(groups: dict[str, list[Run]], names: Sequence[str]) -> dict[str, list[Run]]:
    """Keep the strategies in `names`, on the tasks, seeds and recipes that all of them have."""
    present = {name: groups[name] for name in names if name in groups}
    keys = [{(run.task, run.seed, run.heal) for run in runs} for runs in present.values()]
    shared = set.intersection(*keys) if keys else set()
    return {n: [r for r in runs if (r.task, r.seed, r.heal) in shared] for n, runs in present.items()} if shared else {}


def said(groups: dict[str, list[Run]]) -> str:
    """Say what strategies scored, the best first."""
    ordered = sorted(groups, key=lambda name: -mean(groups[name]))
    some = groups[ordered[0]]
    means = ", ".join(f"{name} {100 * mean(groups[name]):.2f}" for name in ordered)
    return f"{some[0].model_name}, K = {some[0].count} of {some[0].depth}, {tasks_of(some)}: {means}"


def both(*answers: bool | None) -> bool | None:
    """Return whether all hold: False where one does not, else None where one cannot be told."""
    return False if False in answers else None if None in answers else True


def beyond(gap: float, band: float) -> bool | None:
    """Tell whether a difference is above 0 by more than the noise; None where nobody can tell."""
    return True if gap > band else False if gap < -band else None


def put_together(answers: Sequence[Answer], missing: str) -> tuple[str, str]:
    """Put answers of several models and counts together; None is a difference that is smaller than the noise."""
    if not answers:
        return NOT_TESTABLE, missing
    evidence = "; ".join(text for _, text in answers)
    whole = both(*(answer for answer, _ in answers))
    if whole is None:
        return NOT_TESTABLE, f"{evidence}; some differences are within the noise"
    return (SUPPORTED if whole else NOT_SUPPORTED), evidence


def ahead(winner: Sequence[Run], others: Sequence[Sequence[Run]]) -> tuple[bool | None, float]:
    """Tell whether one group's mean is above all others' by more than the noise; None where nobody can tell."""
    band = noise([*winner, *(run for each in others for run in each)])
    return beyond(mean(winner) - max(map(mean, others)), band), band
