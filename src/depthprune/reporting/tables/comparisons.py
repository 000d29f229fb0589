"""What stands beside the pruned models: other ways to heal, and models made small in another way. No torch."""

from collections.abc import Sequence

from depthprune.evaluation.measurement import mean_of, mean_shown
from depthprune.plan import format_layers
from depthprune.reporting.claims.evidence import beside
from depthprune.reporting.pairs import family, plain
from depthprune.reporting.results import Results, Run
from depthprune.reporting.settings import healing_words
from depthprune.reporting.tables.table import Table, seeds_words
from depthprune.reporting.values import median_of, or_unknown

# A pruned model of at most this times the baseline's parameters is of its size: vocabularies differ by as much.
LIKE_SIZE = 1.15


def comparison_tables(results: Results) -> list[Table]:
    """Return the tables that there are runs for."""
    return [recipe_table(results), baseline_table(results)]


def recipe_table(results: Results) -> Table:
    """The same layers dropped, healed in different ways: a column a recipe, none with a single one."""
    groups: dict[tuple, dict[str, list[Run]]] = {}
    for run in results.pruned():
        ways = groups.setdefault((run.model, run.on, run.dropped), {})
        ways.setdefault(way(run), []).append(run)
    several = {key: _same_seeds(recipes) for key, recipes in groups.items() if len(recipes) > 1}
    names = sorted({name for recipes in several.values() for name in recipes}, key=lambda name: (len(name), name))
    rows = []
    for (_, task, dropped), recipes in sorted(several.items()):
        some = next(iter(recipes.values()))[0]
        cells = [mean_shown([r.measured for r in recipes[name]]) if name in recipes else "–"
                 for name in names]  # fmt: skip
        rows.append((some.model_name, task, ", ".join(some.strategies), format_layers(dropped), *cells))
    letters = [f"recipe {chr(ord('A') + i)}" for i in range(len(names))]
    key = "; ".join(f"{letter}: {name}" for letter, name in zip(letters, names, strict=True))
    spread = seeds_words([run.seed for recipes in several.values() for runs in recipes.values() for run in runs])
    return Table("recipes", "Ways to heal, side by side", ("model", "task", "strategy", "dropped", *letters),
                 tuple(rows), f"{key}; {spread}.")  # fmt: skip


def way(run: Run) -> str:
    """Say how a model was healed; where layers go one by one in another order than usual, in which."""
    usual = not run.order or run.order == tuple(sorted(run.dropped, reverse=True))
    return healing_words(run.heal) + ("" if usual else f", in the order {','.join(map(str, run.order))}")


def _same_seeds(recipes: dict[str, list[Run]]) -> dict[str, list[Run]]:
    """Leave the seeds that all recipes were run with, so that none looks better for its seeds; all if there is none."""
    shared = set.intersection(*({run.seed for run in runs} for runs in recipes.values()))
    return {name: [r for r in runs if r.seed in shared or not shared] for name, runs in recipes.items()}


def baseline_table(results: Results) -> Table:
    """Models that were made small in another way, each with the pruned models of its size at most.

    Those are the models that a sweep names as baselines, and distilled ones. Of each pruned model there is the best
    plan that was fine-tuned plainly, and the best that was healed in another way.
    """
    rows = []
    baselines: dict[tuple[str, str, str], list[Run]] = {}
    for run in results.runs:
        if run.baseline or (not run.dropped and family(run.model_name, run.model_type) == "distilled"):
            baselines.setdefault((run.on, run.model, run.recipe), []).append(run)
    for (on, model, _), runs in sorted(baselines.items()):
        largest = LIKE_SIZE * runs[0].parameters
        others = [run for run in results.pruned(on=on) if run.model != model and run.parameters <= largest]
        if not others and not any(run.baseline for run in runs):
            continue  # a distilled model that stands alone
        kind = "baseline" if any(run.baseline for run in runs) else "distilled"
        rows.append(_row(on, kind, runs, runs))
        plans: dict[tuple, list[Run]] = {}
        for run in others:
            plans.setdefault((run.model, plain(run), run.plan, run.recipe), []).append(run)
        for other, simple in sorted({(run.model, plain(run)) for run in others}, key=lambda key: (key[0], not key[1])):
            best = max((some for key, some in plans.items() if key[:2] == (other, simple)), key=_merit)
            rows.append(_row(on, f"{', '.join(best[0].strategies)}, {best[0].count} dropped", best, runs))
    headings = ("task", "model", "what", "trained", "score", "minus the baseline's", "parameters", "weights",
                "ms an example")  # fmt: skip
    return Table("baselines", "Beside models that were made small in another way", headings, tuple(rows),
                 f"Under each baseline the best pruned models with at most {LIKE_SIZE:g} times its parameters: "
                 "fine-tuned plainly, and healed in another way. ± is the standard deviation over seeds; differences "
                 "are over the seeds that both have. Each model is trained by a recipe of its own, so that a "
                 "difference is one of model and recipe. Latencies of different models are of different runs: small "
                 "differences mean nothing.")  # fmt: skip


def _merit(runs: Sequence[Run]) -> float:
    return mean_of([run.measured for run in runs]).merit


def _row(on: str, what: str, runs: Sequence[Run], baseline: Sequence[Run]) -> tuple[str, ...]:
    score = mean_shown([run.measured for run in runs])
    latency = median_of(run.latency_ms for run in runs)
    gap = beside(runs, baseline) if runs is not baseline else None
    return (
        on,
        runs[0].model_name,
        what,
        f"{healing_words(runs[0].heal)}; {len(runs)} seed{'s' if len(runs) > 1 else ''}",
        score,
        gap.words if gap is not None else "–",
        f"{runs[0].parameters / 1e6:.1f} M",
        f"{runs[0].weight_bytes / 1e6:.0f} MB",
        or_unknown(latency),
    )
