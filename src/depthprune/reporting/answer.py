"""The answer: for each model and task the smallest plan that costs little, with checkpoint and speed. No torch.

Runs of one plan and recipe are averaged over their seeds. Of the plans that lose at most a point on average, or 1 %
where the metric is no fraction, the one with the most layers dropped is recommended, of several of these the best;
where none does, the one that loses least.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from depthprune.evaluation.measurement import mean_shown
from depthprune.plan import format_layers
from depthprune.reporting.claims.differences import Difference
from depthprune.reporting.claims.evidence import beside_full
from depthprune.reporting.pairs import loss
from depthprune.reporting.results import Results, Run
from depthprune.reporting.settings import command
from depthprune.reporting.tables.table import Table
from depthprune.reporting.values import median_of, or_unknown, score_heading
from depthprune.tasks.metrics.base import FRACTION, LOWER

MOST = 0.01  # what a recommended plan may lose on average: a point, or a share of what is no fraction
ROUNDING = 1e-9


@dataclass(frozen=True)
class Answer:
    """What is recommended for a model and a task.

    Args:
        runs: a run a seed.
        full: the full model's, of the same seeds.
        gap: pruned minus full, with its interval.
        within: whether it is within the bound: a point, or that of the search that chose it.
    """

    runs: tuple[Run, ...]
    full: tuple[Run, ...]
    gap: Difference
    within: bool

    @property
    def first(self) -> Run:
        """A run to name it by: one with a checkpoint if there is one."""
        return next((run for run in self.runs if checkpoint(run)), self.runs[0])


def checkpoint(run: Run) -> str | None:
    """Return the folder of a run's checkpoint, or None where none was kept."""
    folder = run.folder / "model" if run.folder is not None else None
    return str(folder) if folder is not None and folder.is_dir() and any(folder.iterdir()) else None


def answers(results: Results, *, chosen: str | None = None) -> list[Answer]:
    """Return what is recommended, for each model and task that has pruned runs beside the full model's.

    Args:
        chosen: the digest of a run that a search with a bound of its own has chosen; the full model's where no plan
            is within that bound.
    """
    plans: dict[tuple[str, str], dict[tuple, list[Run]]] = {}
    for run in results.pruned():
        if results.full_of(run) is not None and not run.baseline:
            plans.setdefault((run.model, run.on), {}).setdefault((run.plan, run.recipe), []).append(run)
    found = []
    for _, some in sorted(plans.items()):
        asked = next((runs for runs in some.values() if chosen in {run.digest for run in runs}), None)
        whole = {full.digest for runs in some.values() for run in runs if (full := results.full_of(run)) is not None}
        runs = asked or _smallest(list(some.values()), none=chosen in whole)
        full = [full for run in runs if (full := results.full_of(run)) is not None]
        gap = beside_full(results, runs)
        assert gap is not None, "every run here has its full model's"
        within = asked is not None or (chosen not in whole and _is_small(runs))
        found.append(Answer(tuple(runs), tuple(full), gap, within))
    return found


def _smallest(plans: Sequence[list[Run]], *, none: bool) -> list[Run]:
    """Return the runs of the smallest plan within a point; of what loses least where there is none, or none may be."""
    within = [runs for runs in plans if _is_small(runs)]
    if within and not none:
        return max(within, key=lambda runs: (runs[0].count, -_lost(runs)))
    return min(plans, key=_lost)


def _lost(runs: Sequence[Run]) -> float:
    return statistics.fmean(map(loss, runs))


def _is_small(runs: Sequence[Run]) -> bool:
    """Tell whether what runs lose on average is little."""
    full = runs[0].full
    assert full is not None
    return _lost(runs) <= MOST * (1 if full.unit == FRACTION else abs(full.value)) + ROUNDING


def sentences(answer: Answer) -> tuple[str, str, str]:
    """Say what is recommended: what to drop, what that costs and saves, and where the checkpoint is."""
    run, several = answer.first, len(answer.runs) > 1
    layers = f"layer{'s' if run.count > 1 else ''} {format_layers(run.dropped)}"
    score, whole = (mean_shown([r.measured for r in runs]) for runs in (answer.runs, answer.full))
    over = f" over {len(answer.runs)} seeds" if several else ", one seed"
    where = f" on {run.hardware}" if run.hardware else ""
    what = f"of {run.model_name} for {run.on} (K = {run.count} of {run.depth}; {', '.join(run.strategies)})."
    numbers = (
        f"{run.primary.replace('_', ' ').capitalize()} {score}{over}, the full model {whole}: a difference of "
        f"{answer.gap.words}{_of_what(run)}. "
        f"{run.parameters / 1e6:.1f} M parameters instead of {run.full_parameters / 1e6:.1f} M; "
        + (
            f"{_latency(answer.runs)} ms an example instead of {_latency(answer.runs, full=True)}{where}."
            if run.latency_ms
            else "nobody timed it."
        )
    )
    kept = checkpoint(run)
    return (
        f"Drop {layers} {what}"
        if answer.within
        else f"No plan that was tried is within the bound. The closest drops {layers} {what}",
        numbers,
        f"Checkpoint: {kept}" if kept else f"No checkpoint was kept; this makes one: {command(run)}",
    )


def _of_what(run: Run) -> str:
    """Say what a difference is of, and where lower is better, how many times the full model's score it comes to."""
    unit = "points" if run.measured.unit == FRACTION else run.measured.unit
    ratio = run.measured.compared(run.full) if run.full is not None and run.measured.better == LOWER else None
    return (f" {unit}" if unit else "") + (f", {ratio} the full model's; lower is better" if ratio is not None else "")


def _latency(runs: Sequence[Run], *, full: bool = False) -> str:
    return or_unknown(median_of(run.full_latency_ms if full else run.latency_ms for run in runs))


def _or_share(given: Sequence[Answer]) -> str:
    fractions = all(answer.first.measured.unit == FRACTION for answer in given)
    return "" if fractions else f", or {100 * MOST:g} % where the metric is no fraction,"


def answer_table(results: Results, *, chosen: str | None = None) -> Table:
    """The recommended plan for each model and task."""
    rows, hardware = [], {}
    given = answers(results, chosen=chosen)
    heading = score_heading(answer.first for answer in given)
    for answer in given:
        run = answer.first
        hardware |= {run.hardware: None} if run.hardware else {}
        rows.append(
            (
                f"{run.model_name} on {run.on}",
                f"{format_layers(run.dropped)} ({run.count} of {run.depth}; {', '.join(run.strategies)})",
                mean_shown([each.measured for each in answer.runs]),
                mean_shown([each.measured for each in answer.full]),
                answer.gap.words,
                f"{run.parameters / 1e6:.1f} M ({run.full_parameters / 1e6:.1f} M)",
                f"{_latency(answer.runs)} ({_latency(answer.runs, full=True)})",
                checkpoint(run) or f"not kept: run {run.digest}",
            )
        )
    in_points = "difference, points" if heading != "score" else "difference"
    headings = ("model and task", "drop layers", heading, "full model", in_points, "parameters (full)",
                "ms an example (full)", "checkpoint")  # fmt: skip
    where = f" Timed on {'; '.join(hardware)}." if hardware else ""
    return Table("answer", "The answer", headings, tuple(rows),
                 f"The most layers that can go for at most a point{_or_share(given)} on average over seeds, or, where "
                 "none can, what loses least; a search with its own bound decides by that. ± is the standard deviation "
                 f"over seeds.{where}")  # fmt: skip
