"""What a search chose before healing, beside what healing makes of it and of other plans of its size. No torch."""

from collections.abc import Iterable, Sequence

from depthprune.evaluation.measurement import mean_of, mean_shown
from depthprune.plan import format_layers
from depthprune.reporting.pairs import base_name, plain
from depthprune.reporting.results import CHOSEN, Results, Run
from depthprune.reporting.searches import Search
from depthprune.reporting.tables.table import Table
from depthprune.strategies.searched import methods

NONE = "–"
Plan = tuple[int, ...]


def before_healing_table(results: Results) -> Table:
    """The plans of each number of layers for which a search has chosen one: before healing, and after."""
    rows = []
    for model, on in sorted({(run.model, run.on) for run in results.pruned()}):
        runs = results.pruned(model=model, on=on)
        searches = [each for each in results.searches if (each.model, each.task) == (model, runs[0].task)]
        for count in sorted({run.count for run in runs}):
            here = [run for run in runs if run.count == count]
            if any(_searched(run) for run in here) or any(count in each.chosen for each in searches):
                rows += _rows(here, [each for each in searches if count in each.chosen], count)
    headings = ("model", "task", "K", "chosen by", "dropped", "objective before", "score before", "fine-tuned",
                "healed in another way")  # fmt: skip
    return Table("before-healing", "The choice before healing, and what healing makes of it", headings, tuple(rows),
                 "The objective is what the search minimised, on training rows: the distance from the full model's "
                 "output, lower is better; known of the plans that it tried. Before: cut and not trained, of a model "
                 "that had learned the task. Fine-tuned: by the plain recipe; healed in another way: by the best of "
                 "the others; ± is the standard deviation over seeds.")  # fmt: skip


def _searched(run: Run) -> bool:
    return any(base_name(name) in methods.names() for name in run.strategies)


def _rows(runs: Sequence[Run], searches: Sequence[Search], count: int) -> list[tuple[str, ...]]:
    """Return a row a plan: what a search chose first, then by what healing makes of it."""
    plans: dict[Plan, list[Run]] = {}
    for run in runs:
        plans.setdefault(run.dropped, []).append(run)
    chosen = {plan: [each for each in searches if each.chosen[count] == plan] for plan in plans}
    missing = {each.chosen[count] for each in searches} - set(plans)
    found = []
    for plan in missing:
        names = [each.method for each in searches if each.chosen[count] == plan]
        found.append((0, 0.0, _row(runs[0], count, names, plan, searches, [])))
    for plan, some in plans.items():
        names = [name for run in some for name in run.strategies] + [each.method for each in chosen[plan]]
        first = bool(chosen[plan]) or any(map(_searched, some))
        healed = _healed(some)
        merit = max((mean_of([run.measured for run in same]).merit for same in _recipes(healed)), default=0.0)
        found.append((0 if first else 1, -merit, _row(some[0], count, names, plan, searches, some)))
    return [row for _, _, row in sorted(found, key=lambda each: (each[0], each[1], each[2]))]


def _row(
    about: Run, count: int, names: Iterable[str], plan: Plan, searches: Sequence[Search], runs: Sequence[Run]
) -> tuple[str, ...]:
    known = {each.objective: each.values[plan] for each in searches if plan in each.values}
    before = [run for run in runs if run.before_healing]
    healed = _healed(runs)
    return (
        about.model_name,
        about.on,
        str(count),
        ", ".join(dict.fromkeys(name for name in names if name != CHOSEN)) or CHOSEN,
        format_layers(plan),
        ", ".join(f"{value:.4g} ({objective})" for objective, value in known.items()) or NONE,
        mean_shown([run.measured for run in before]) if before else NONE,
        _best([run for run in healed if plain(run)]),
        _best([run for run in healed if not plain(run)]),
    )


def _healed(runs: Sequence[Run]) -> list[Run]:
    """Leave the runs of which something was trained or repaired."""
    return [run for run in runs if run.heal.trains or run.heal.steps]


def _best(runs: Sequence[Run]) -> str:
    """Return the score of the best recipe, over its seeds."""
    if not runs:
        return NONE
    best = max(_recipes(runs), key=lambda same: mean_of([run.measured for run in same]).merit)
    return mean_shown([run.measured for run in best])


def _recipes(runs: Sequence[Run]) -> list[list[Run]]:
    found: dict[tuple, list[Run]] = {}
    for run in runs:
        found.setdefault((run.recipe, run.order), []).append(run)
    return list(found.values())
