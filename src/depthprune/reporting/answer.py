"""The answer: for each model and task the smallest plan that costs little, with checkpoint and speed. No torch.

Runs of one plan and recipe are averaged over their seeds. Of the plans that lose at most a point on average the one
with the most layers dropped is recommended, of several of these the best; where none does, the one that loses least.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from depthprune.plan import format_layers
from depthprune.reporting.claims.differences import Difference
from depthprune.reporting.claims.evidence import beside_full
from depthprune.reporting.results import Results, Run, mean_and_spread, percent
from depthprune.reporting.settings import command
from depthprune.reporting.tables.table import Table
from depthprune.reporting.values import median_of, or_unknown

MOST = 0.01  # what a recommended plan may lose on average
ROUNDING = 1e-9


@dataclass(frozen=True)
class Answer:
    """What is recommended for a model and a task.

    Args:
        runs: a run a seed.
        full: the full model's, of the same seeds.
        loss: pruned minus full, with its interval.
        within: whether it is within the bound: a point, or that of the search that chose it.
    """

    runs: tuple[Run, ...]
    full: tuple[Run, ...]
    loss: Difference
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
        loss = beside_full(results, runs)
        assert loss is not None, "every run here has its full model's"
        within = asked is not None or (chosen not in whole and -loss.mean <= MOST + ROUNDING)
        found.append(Answer(tuple(runs), tuple(full), loss, within))
    return found


def _smallest(plans: Sequence[list[Run]], *, none: bool) -> list[Run]:
    """Return the runs of the smallest plan within a point; of what loses least where there is none, or none may be."""
    losses = {id(runs): statistics.fmean((run.full_score or 0.0) - run.score for run in runs) for runs in plans}
    within = [runs for runs in plans if losses[id(runs)] <= MOST + ROUNDING]
    if within and not none:
        return max(within, key=lambda runs: (runs[0].count, -losses[id(runs)]))
    return min(plans, key=lambda runs: losses[id(runs)])


def sentences(answer: Answer) -> tuple[str, str, str]:
    """Say what is recommended: what to drop, what that costs and saves, and where the checkpoint is."""
    run, several = answer.first, len(answer.runs) > 1
    layers = f"layer{'s' if run.count > 1 else ''} {format_layers(run.dropped)}"
    score, whole = (percent(*mean_and_spread([r.score for r in runs])) for runs in (answer.runs, answer.full))
    over = f" over {len(answer.runs)} seeds" if several else ", one seed"
    where = f" on {run.hardware}" if run.hardware else ""
    what = f"of {run.model_name} for {run.on} (K = {run.count} of {run.depth}; {', '.join(run.strategies)})."
    numbers = (
        f"{run.primary.replace('_', ' ').capitalize()} {score}{over}, the full model {whole}: a difference of "
        f"{answer.loss.words} points. "
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


def _latency(runs: Sequence[Run], *, full: bool = False) -> str:
    return or_unknown(median_of(run.full_latency_ms if full else run.latency_ms for run in runs))


def answer_table(results: Results, *, chosen: str | None = None) -> Table:
    """The recommended plan for each model and task."""
    rows, hardware = [], {}
    for answer in answers(results, chosen=chosen):
        run = answer.first
        hardware |= {run.hardware: None} if run.hardware else {}
        rows.append(
            (
                f"{run.model_name} on {run.on}",
                f"{format_layers(run.dropped)} ({run.count} of {run.depth}; {', '.join(run.strategies)})",
                percent(*mean_and_spread([each.score for each in answer.runs])),
                percent(*mean_and_spread([each.score for each in answer.full])),
                answer.loss.words,
                f"{run.parameters / 1e6:.1f} M ({run.full_parameters / 1e6:.1f} M)",
                f"{_latency(answer.runs)} ({_latency(answer.runs, full=True)})",
                checkpoint(run) or f"not kept: run {run.digest}",
            )
        )
    headings = ("model and task", "drop layers", "score × 100", "full model", "difference, points", "parameters (full)",
                "ms an example (full)", "checkpoint")  # fmt: skip
    where = f" Timed on {'; '.join(hardware)}." if hardware else ""
    return Table("answer", "The answer", headings, tuple(rows),
                 "The most layers that can go for at most a point on average over seeds, or, where none can, what "
                 "loses least; a search with its own bound decides by that. ± is the standard deviation over "
                 f"seeds.{where}")  # fmt: skip
