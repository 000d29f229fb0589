"""What verdicts are made of: claims, runs that can be compared, and how answers add up. No torch.

A claim is held against one or several cells: a model at a number of layers, say. Each cell has a p-value for the claim
and one against it. All cells of a claim are one family at 5 % (Holm): with nothing but chance in the runs, a claim is
decided in at most one of twenty reports. Within a cell, a claim that asks for several differences at once has the
largest of their p-values for it, which needs no correction, and the smallest times their number against it.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from depthprune.reporting.claims.differences import Difference, Strata, difference
from depthprune.reporting.pairs import like_paper, plain
from depthprune.reporting.paper.numbers import TASKS
from depthprune.reporting.results import Results, Run

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"
NOT_TESTABLE = "not testable with these runs"
BY_POSITION = ("top", "bottom", "symmetric", "even-alternate", "odd-alternate")
ERROR = 0.05  # of a claim's family of cells

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


@dataclass(frozen=True)
class Cell:
    """One comparison that speaks for or against a claim.

    Args:
        text: what was compared and what came out.
        supports, against: one-sided p-values.
    """

    text: str
    supports: float
    against: float

    @property
    def p_value(self) -> float:
        """Two-sided: of its speaking for or against."""
        return min(1.0, 2 * min(self.supports, self.against))


def cell(text: str, supporting: Sequence[Difference], opposing: Sequence[Difference] | None = None) -> Cell:
    """Put differences together that a claim says are all above 0.

    Args:
        supporting: each above 0 if the claim holds.
        opposing: each below 0 if it does not; the same if left out.
    """
    opposing = supporting if opposing is None else opposing
    against = min(1.0, len(opposing) * min(each.below for each in opposing))
    return Cell(text, max(each.above for each in supporting), against)


def judged(cells: Sequence[Cell], missing: str) -> tuple[str, str]:
    """Return the verdict on a claim, and the evidence.

    A cell against it is a counterexample. Cells that are undecided change nothing about those that are not.
    """
    if not cells:
        return NOT_TESTABLE, missing
    words = {id(each): "undecided" for each in cells}
    for place, each in enumerate(sorted(cells, key=lambda each: each.p_value)):
        if each.p_value > ERROR / (len(cells) - place):
            break
        words[id(each)] = "for it" if each.supports < each.against else "against it"
    said = set(words.values())
    verdict = NOT_SUPPORTED if "against it" in said else SUPPORTED if "for it" in said else INCONCLUSIVE
    return verdict, ".\n".join(f"{each.text}: {words[id(each)]}" for each in cells)


def of_paper(results: Results) -> Results:
    """Leave the runs that the paper's claims are about: on its tasks, by its way of healing or another.

    What a claim says of scores is said of fractions that are better the higher they are.
    """
    runs = tuple(run for run in results.runs if run.task in TASKS and like_paper(run))
    return Results(runs, analyses=tuple(each for each in results.analyses if each.task in TASKS))


def mean(runs: Sequence[Run]) -> float:
    """Return the mean over tasks of the mean over seeds."""
    tasks: dict[str, list[float]] = {}
    for run in runs:
        tasks.setdefault(run.task, []).append(run.score)
    return statistics.fmean(map(statistics.fmean, tasks.values()))


def tasks_of(runs: Sequence[Run]) -> str:
    """Say on which tasks runs are."""
    return ", ".join(sorted({run.task for run in runs}))


def by_strategy(
    results: Results, *, share: Callable[[float], bool]
) -> dict[tuple[str, int, str], dict[str, list[Run]]]:
    """Return (model, count, recipe) → strategy → runs, where the share of the layers that go is right.

    Only runs that drop first and train everything then: other recipes have claims of their own.
    """
    found: dict[tuple[str, int, str], dict[str, list[Run]]] = {}
    for run in results.pruned():
        if plain(run) and share(run.count / run.depth):
            for name in run.strategies:
                found.setdefault((run.model, run.count, run.recipe), {}).setdefault(name, []).append(run)
    return found


def comparable(groups: dict[str, list[Run]], names: Sequence[str]) -> dict[str, list[Run]]:
    """Keep the strategies in `names`, on the tasks that all of them have."""
    present = {name: groups[name] for name in names if name in groups}
    shared = set.intersection(*({run.task for run in runs} for runs in present.values())) if present else set()
    return {n: [r for r in runs if r.task in shared] for n, runs in present.items()} if shared else {}


def against_others(first: Sequence[Run], others: Sequence[tuple[float, Sequence[Run]]]) -> Strata:
    """Return, for each task, one plan's runs beside those of others with the same seed.

    Args:
        others: weight and runs; a plan's own is 1.
    """
    tables = [(weight, {(run.task, run.seed): run for run in runs}) for weight, runs in [(1.0, first), *others]]
    shared = set.intersection(*(set(table) for _, table in tables))
    strata: dict[str, list[list[tuple[float, Run]]]] = {}
    for task, seed in sorted(shared):
        strata.setdefault(task, []).append([(weight, table[task, seed]) for weight, table in tables])
    return strata


def beside(first: Sequence[Run], second: Sequence[Run], *, more: float = 0.0) -> Difference | None:
    """Estimate one plan's score minus another's; None where they share no seed, or are the same runs."""
    strata = against_others(first, [(-1.0, second)])
    same = {run.digest for run in first} == {run.digest for run in second}
    return difference(strata, more=more) if strata and not same else None


def beside_full(results: Results, runs: Sequence[Run], *, share: float = 1.0, more: float = 0.0) -> Difference | None:
    """Estimate a plan's score minus a share of the full model's; None where none of these was run."""
    pairs = [(run, results.full_of(run)) for run in runs]
    whole = {run.task: [] for run, full in pairs if full is not None}
    for run, full in pairs:
        if full is not None:
            whole[run.task].append([(1.0, run), (-share, full)])
    return difference(whole, more=more) if whole else None


def said(groups: dict[str, list[Run]]) -> str:
    """Say what strategies scored, the best first."""
    ordered = sorted(groups, key=lambda name: -mean(groups[name]))
    means = ", ".join(f"{name} {100 * mean(groups[name]):.2f}" for name in ordered)
    return f"{where(groups[ordered[0]])}: {means}"


def where(runs: Sequence[Run]) -> str:
    """Say on which model, with how many layers gone and on which tasks runs are."""
    return f"{runs[0].model_name}, K = {runs[0].count} of {runs[0].depth}, {tasks_of(runs)}"
