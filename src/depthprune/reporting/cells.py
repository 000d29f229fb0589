"""Runs that belong into one table or one drawing: a model, a task or the average over tasks, and a recipe. No torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from depthprune.evaluation.measurement import Measurement, mean_of
from depthprune.reporting.pairs import like_paper
from depthprune.reporting.results import Results, Run
from depthprune.reporting.values import median_of

AVERAGE = "average"


@dataclass(frozen=True)
class Group:
    """Runs that differ in their layers and seeds alone.

    Args:
        name: for anchors; each is another.
        title: the model, and on what.
        runs: the pruned ones, and the full model's where it was trained by the same recipe.
    """

    name: str
    title: str
    runs: tuple[Run, ...]

    @property
    def full(self) -> list[Measurement]:
        """Scores of the full model, one a seed; what drops in another way is compared with the plain recipe's."""
        own = [run.measured for run in self.runs if run.is_full]
        return own or list({run.seed: run.full for run in self.runs if run.full is not None}.values())


def groups(results: Results) -> Iterator[Group]:
    """Yield the groups that have pruned runs: for each model its tasks, then their average, recipe by recipe.

    The average is over the tasks whose metric is a fraction, higher the better: others are of no common scale.
    """
    for model in results.values("model"):
        own = [run for run in results.runs if run.model == model]
        tasks = sorted({run.task for run in own})
        for task in [*tasks, AVERAGE]:
            here = [run for run in own if run.task == task]
            recipes = sorted({run.recipe for run in own if run.dropped and task in (run.task, AVERAGE)})
            apart = differences(recipes)
            for n, recipe in enumerate(recipes):
                some = [run for run in here or own if run.recipe == recipe]
                alike = [run for run in some if like_paper(run)]
                over = sorted({run.task for run in alike})
                some = some if here else average(alike, over)
                if any(run.dropped for run in some):
                    on = f"on {task}" if here else f"on average over {', '.join(over)}"
                    end = f"-{n + 1}" if n else ""
                    title = f"{some[0].model_name} {on}" + (f" ({apart[recipe]})" if apart[recipe] else "")
                    yield Group(f"{task}-{model[-6:]}{end}", title, tuple(some))


def differences(recipes: Sequence[str]) -> dict[str, str]:
    """Return what each of several recipes has that not all of them have; nothing of a single one.

    >>> differences(["3 epochs, batch 32", "3 epochs, batch 32, drop every 1"])
    {'3 epochs, batch 32': 'plain', '3 epochs, batch 32, drop every 1': 'drop every 1'}
    """
    parts = {recipe: recipe.split(", ") for recipe in recipes}
    shared = set.intersection(*map(set, parts.values())) if parts else set()
    several = len(parts) > 1
    return {
        recipe: (", ".join(part for part in some if part not in shared) or "plain") if several else ""
        for recipe, some in parts.items()
    }


def over_seeds(runs: Sequence[Run]) -> list[Run]:
    """Return runs that stand for the mean over seeds: one for each model, task, plan and recipe, data included."""
    same: dict[tuple, list[Run]] = {}
    for run in runs:
        same.setdefault((run.model, run.task, run.plan, run.recipe), []).append(run)
    return [_mean_run(some) if len(some) > 1 else some[0] for some in same.values()]


def _mean_run(some: Sequence[Run]) -> Run:
    full = [run.full for run in some if run.full is not None]
    return replace(
        some[0],
        measured=mean_of([run.measured for run in some]),
        full=mean_of(full) if len(full) == len(some) else None,
        latency_ms=median_of(run.latency_ms for run in some),
        full_latency_ms=median_of(run.full_latency_ms for run in some),
    )


def average(runs: Sequence[Run], tasks: Sequence[str]) -> list[Run]:
    """Return runs that stand for the mean over tasks: one for each strategy, count and seed that all tasks have.

    A strategy by scores may drop other layers for each task, so its plan says how many, and not which.
    """
    cells: dict[tuple[str, int, int], dict[str, Run]] = {}
    for run in runs:
        for name in run.strategies or ("",):
            cells.setdefault((name, run.count, run.seed), {})[run.task] = run
    found = []
    for (name, _, _), by_task in cells.items():
        some = list(by_task.values())
        if len(tasks) > 1 and len(some) == len(tasks):
            about: dict[str, Any] = {"digest": "", "task": AVERAGE, "primary": "mean of the primary metrics"}
            about |= {"strategies": (name,) if name else ()}
            mean = _mean_run(some)
            examples = sum(run.measured.examples for run in some)
            found.append(replace(mean, measured=replace(mean.measured, examples=examples), **about))
    return found
