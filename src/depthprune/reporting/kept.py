"""What each model keeps of its score at each depth: the values that the figures over models and recipes show. No torch.

Runs give them, and so can any table of numbers: a figure does not ask where they are from.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from depthprune.plan import format_layers
from depthprune.reporting.results import Results, Run
from depthprune.reporting.values import mean_and_spread, median_of

PARTS = (1 / 6, 1 / 3, 1 / 2)  # of the layers: the counts of the paper, 2, 4 and 6 of 12
ROOM = 24  # letters of a recipe's name in a legend
PLAIN, UNHEALED = "plain fine-tuning", "not healed"


@dataclass(frozen=True)
class Kept:
    """What a model keeps of its score without some of its layers.

    Args:
        model, task, recipe: as a figure calls them.
        strategies: that chose the layers.
        depth, dropped: the plan.
        share: of the full model's score; 1 is all of it. The mean over seeds.
        spread: its standard deviation over seeds; None with a single one.
        seeds: how many.
        speedup: latency of the full model over that of this one; None where nobody timed it.
    """

    model: str
    task: str
    recipe: str
    strategies: tuple[str, ...]
    depth: int
    dropped: tuple[int, ...]
    share: float
    spread: float | None = None
    seeds: int = 1
    speedup: float | None = None

    @property
    def count(self) -> int:
        """How many layers went, the paper's K."""
        return len(self.dropped)


def kept_by(runs: Sequence[Run], recipe: str) -> list[Kept]:
    """Return what the pruned ones among `runs` keep: a value for each model, task and plan.

    Args:
        runs: of one recipe, with the full model's score.
        recipe: its name in the figures.
    """
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        if run.dropped and run.retention is not None:
            groups.setdefault((run.model_name, run.on, run.plan), []).append(run)
    found = []
    for (model, on, _), some in groups.items():
        names = tuple(sorted({name for run in some for name in run.strategies}))
        share, spread = mean_and_spread([run.retention or 0.0 for run in some])
        speedup = median_of(run.speedup for run in some)
        depth, dropped = some[0].depth, some[0].dropped
        found.append(Kept(model, on, recipe, names, depth, dropped, share, spread, len(some), speedup))
    return found


def all_kept(results: Results) -> list[Kept]:
    """Return what every pruned model of a store keeps, plain fine-tuning first; baselines are left out.

    A recipe goes by its steps. Where several of a model and task have the same, it goes by all that is in it, so that
    no two are averaged; several models of one name have the end of their identity beside it.
    """
    identities = {run.model: run.model_name for run in results.runs}
    shared = Counter(identities.values())
    tasks: dict[tuple, dict[str, list[Run]]] = {}
    for run in results.pruned(baseline=False):
        tasks.setdefault((run.model, run.on), {}).setdefault(run.recipe, []).append(run)
    found = []
    for (model, _), recipes in tasks.items():
        called = identities[model] if shared[identities[model]] == 1 else f"{identities[model]} ({model[-6:]})"
        names = Counter(recipe_name(some[0]) for some in recipes.values())
        for recipe, some in recipes.items():
            name = recipe_name(some[0])
            found += [replace(kept, model=called) for kept in kept_by(some, name if names[name] == 1 else recipe)]
    return sorted(found, key=lambda kept: (kept.recipe != PLAIN, kept.recipe, kept.task, kept.model))


def recipe_name(run: Run) -> str:
    """Return what a figure calls a recipe: its steps, as they were given, or that there are none."""
    if run.heal.num_epochs == 0 and not run.heal.steps:
        return UNHEALED
    return "+".join(str(step) for step in run.heal.steps) or PLAIN


def short_names(recipes: Sequence[str]) -> dict[str, str]:
    """Return a name for each recipe that a legend has room for: its methods, with a letter where it is cut short.

    >>> short_names(["patient-kd", "distill(alpha=0.9, temperature=2)"])
    {'patient-kd': 'patient-kd', 'distill(alpha=0.9, temperature=2)': 'distill A'}
    """
    long = [recipe for recipe in recipes if len(recipe) > ROOM]
    methods = {recipe: re.sub(r"\([^)]*\)", "", recipe)[: ROOM - 2] for recipe in long}
    names = {recipe: f"{methods[recipe]} {chr(ord('A') + n)}" for n, recipe in enumerate(long)}
    return {recipe: names.get(recipe, recipe) for recipe in recipes}


def common_strategy(some: Sequence[Kept], of_all: Sequence[Kept] = ()) -> str:
    """Return the strategy that has the most points; of several, the one with the most points of all, then by name."""
    here, overall = (Counter(name for kept in each for name in kept.strategies) for each in (some, of_all))
    return min(here, key=lambda name: (-here[name], -overall[name], name))


def counts_shown(some: Sequence[Kept]) -> list[int]:
    """Return at most three counts: all, or those nearest to a sixth, a third and half of the layers.

    Args:
        some: of one depth.
    """
    counts = sorted({kept.count for kept in some})
    if len(counts) <= len(PARTS):
        return counts
    return sorted({min(counts, key=lambda count: abs(count - part * some[0].depth)) for part in PARTS})


def in_words(some: Sequence[Kept]) -> str:
    """Say what a figure of these shows, for those who cannot see it."""
    return "; ".join(
        f"{kept.model}, {kept.task}, {kept.recipe}, {' and '.join(kept.strategies)}: without layers "
        f"{format_layers(kept.dropped)} of {kept.depth} {100 * kept.share:.1f} %"
        + (f", {kept.speedup:.2f} times as fast" if kept.speedup is not None else "")
        for kept in sorted(some, key=lambda kept: (kept.model, kept.task, kept.recipe, kept.count, kept.dropped))
    )
