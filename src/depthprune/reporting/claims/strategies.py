"""The paper's claims about strategies and tasks, tested on runs. No torch."""

import statistics
from collections.abc import Sequence

from depthprune.reporting.claims.differences import Difference, difference
from depthprune.reporting.claims.evidence import (
    BY_POSITION,
    Cell,
    Claim,
    beside,
    beside_full,
    by_strategy,
    cell,
    claim,
    comparable,
    judged,
    said,
    where,
)
from depthprune.reporting.claims.missing import run_command, supplied
from depthprune.reporting.pairs import loss, plain
from depthprune.reporting.results import Results, Run

ROBUST, SENSITIVE = ("qqp", "stsb"), ("mnli", "qnli")
KEPT = 0.975  # "about 98 %"
SAFE = 0.02
CLAIMS: list[Claim] = []


@claim(CLAIMS, 1, "Half of the layers can go, about 40 % of the parameters, and about 98 % of the score stays (top)")
def _half(results: Results) -> tuple[str, str]:
    """For it: the pruned score minus 97.5 % of the full one is above 0 on average over tasks; below 0: against it.

    One cell a model and recipe; the difference is paired by seed and, with predictions, by row.
    """
    cells = [
        kept_cell(results, groups["top"])
        for groups in by_strategy(results, share=lambda s: 0.45 <= s <= 0.55).values()
        if "top" in groups
    ]
    return judged(
        [each for each in cells if each is not None],
        supplied("needs the strategy top with half of the layers dropped", [run_command(results, "top", 1 / 2)]),
    )


def kept_cell(results: Results, runs: Sequence[Run]) -> Cell | None:
    """Hold runs against keeping 97.5 % of the full model's score; None where it has none above 0."""
    runs = [run for run in runs if results.full_of(run) is not None and run.retention is not None]
    found = beside_full(results, runs, share=KEPT)
    if found is None:
        return None
    full = sum(run.full_score or 0.0 for run in runs) / len(runs)
    smaller = 1 - runs[0].parameters / runs[0].full_parameters
    known = found.low is not None and found.high is not None
    ends = [100 * (KEPT + end / full) for end in ((found.low, found.high) if known else ()) if end is not None]
    interval = f"95 %: {ends[0]:.1f} to {ends[1]:.1f}" if known else "interval unknown"
    text = f"{where(runs)}: {100 * (KEPT + found.mean / full):.1f} % kept ({interval}), {100 * smaller:.0f} % smaller"
    return cell(f"{text}, {found.basis}", [found])


@claim(CLAIMS, 2, "Top is the best strategy when a third of the layers or more go")
def _top_best(results: Results) -> tuple[str, str]:
    """For it: top is above every other strategy by position, each tested at the full level (intersection-union).

    Against it: another is above top, with Bonferroni's correction for how many there are. One cell a model and count.
    """
    cells = []
    for groups in by_strategy(results, share=lambda s: s >= 0.32).values():
        cells += _ahead(comparable(groups, BY_POSITION), "top", sign=1)
    commands = [run_command(results, name, 1 / 3) for name in ("top", "odd-alternate")]
    return judged(cells, supplied("needs top beside another strategy with a third of the layers dropped", commands))


@claim(CLAIMS, 3, "When few layers go, odd-alternate beats top: keeping the last layer matters")
def _last_layer(results: Results) -> tuple[str, str]:
    """For it: odd-alternate minus top is above 0 on average over tasks; below 0: against. One cell a model, count."""
    cells = []
    for groups in by_strategy(results, share=lambda s: s <= 0.2).values():
        cells += _ahead(comparable(groups, ("odd-alternate", "top")), "odd-alternate", sign=1)
    commands = [run_command(results, name, 1 / 6) for name in ("odd-alternate", "top")]
    return judged(cells, supplied("needs odd-alternate and top with a sixth of the layers dropped or fewer", commands))


@claim(CLAIMS, 4, "Lower layers are the most critical: bottom is the worst strategy")
def _bottom_worst(results: Results) -> tuple[str, str]:
    """For it: every other strategy by position is above bottom, each tested at the full level (intersection-union).

    Against it: another is below bottom, with Bonferroni's correction for how many there are. One cell a model and
    count.
    """
    cells = []
    for groups in by_strategy(results, share=lambda s: True).values():
        cells += _ahead(comparable(groups, BY_POSITION), "bottom", sign=-1)
    commands = [run_command(results, name, 1 / 3) for name in ("bottom", "top")]
    return judged(cells, supplied("needs bottom beside another strategy", commands))


def _ahead(compared: dict[str, list[Run]], name: str, *, sign: int) -> list[Cell]:
    """Hold one strategy against the others: above them all with sign 1, below them all with −1."""
    if name not in compared:
        return []
    found: dict[str, Difference] = {}
    for other, runs in compared.items():
        pair = (compared[name], runs) if sign > 0 else (runs, compared[name])
        gap = beside(*pair) if other != name else None
        if gap is not None:
            found[other] = gap
    if not found:
        return []
    nearest = min(found, key=lambda other: found[other].mean)
    pair = f"{name} − {nearest}" if sign > 0 else f"{nearest} − {name}"
    text = f"{said(compared)}; {pair} {found[nearest].words}, {found[nearest].basis}"
    return [cell(text, list(found.values()))]


@claim(CLAIMS, 6, "Paraphrase and similarity (QQP, STS-B) are robust; MNLI and QNLI are sensitive")
def _robust(results: Results) -> tuple[str, str]:
    """For it: every sensitive task loses more than every robust one (intersection-union), with top.

    Against it: one loses less, with Bonferroni's correction for the pairs of tasks. A loss is the full model's score
    minus the pruned one's of the same seed, over the counts and seeds that both tasks have. One cell a model, recipe.
    """
    groups: dict[tuple, list[Run]] = {}
    for run in results.pruned():
        if "top" in run.strategies and plain(run) and 0.3 <= run.count / run.depth <= 0.55 and results.full_of(run):
            groups.setdefault((run.model, run.heal, run.max_length), []).append(run)
    cells = [found for _, runs in sorted(groups.items(), key=repr) if (found := _robust_cell(results, runs))]
    commands = [run_command(results, "top", 1 / 2, task=task) for task in ("stsb", "mnli")]
    return judged(
        cells, supplied("needs the strategy top on one task of either kind, with the same layers gone", commands)
    )


def _robust_cell(results: Results, runs: Sequence[Run]) -> Cell | None:
    tables = {task: {(r.count, r.seed): r for r in runs if r.task == task} for task in (*ROBUST, *SENSITIVE)}
    found: dict[str, Difference] = {}
    for robust in ROBUST:
        for sensitive in SENSITIVE:
            one, other = tables[sensitive], tables[robust]
            strata: dict[str, list] = {}
            for key in sorted(set(one) & set(other)):
                terms = [*_loss(results, one[key], 1.0), *_loss(results, other[key], -1.0)]
                strata.setdefault(f"K = {key[0]}", []).append(terms)
            if strata:
                gap = difference(strata, unit="counts")
                shared = [[table[key] for key in set(one) & set(other)] for table in (one, other)]
                losses = [f"{some[0].task} loses {100 * statistics.fmean(map(loss, some)):.2f}" for some in shared]
                found[f"{', '.join(strata)}: {', '.join(losses)}, the difference is {gap.words}, {gap.basis}"] = gap
    if not found:
        return None
    ordered = sorted(found, key=lambda words: found[words].mean)
    return cell(f"{runs[0].model_name} with {runs[0].depth} layers, {'; '.join(ordered)}", list(found.values()))


def _loss(results: Results, run: Run, weight: float) -> list[tuple[float, Run]]:
    full = results.full_of(run)
    assert full is not None
    return [(weight, full), (-weight, run)]


@claim(CLAIMS, 10, "Dropping a third of the layers from the top is safe: at most two points")
def _safe(results: Results) -> tuple[str, str]:
    """For it: the loss is below two points; above two points: against it. One cell a model and task."""
    cells = []
    for groups in by_strategy(results, share=lambda s: 0.3 <= s <= 0.36).values():
        for task in sorted({run.task for run in groups.get("top", [])}):
            runs = [run for run in groups["top"] if run.task == task]
            found, gap = (beside_full(results, runs, more=more) for more in (SAFE, 0.0))
            if found is not None and gap is not None:
                text = f"{where(runs)} against the full model: {gap.words}, {gap.basis}"
                cells.append(cell(text, [found]))
    commands = [run_command(results, "top", 1 / 3)]
    return judged(cells, supplied("needs the strategy top with a third of the layers dropped", commands))
