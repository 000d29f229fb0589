"""The paper's claim about recipes: drop first and fine-tune once, and nothing else gains anything. No torch.

Runs are compared in pairs that differ only in the recipe: model, task, data, layers and seed. Ways of dropping are
compared only where both train for as many steps; that more epochs gain nothing is a part of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from depthprune.reporting.claims.differences import difference
from depthprune.reporting.claims.evidence import Cell, Claim, claim, judged, mean, tasks_of
from depthprune.reporting.claims.missing import example, named, supplied
from depthprune.reporting.pairs import drops_first
from depthprune.reporting.results import Results, Run
from depthprune.reporting.settings import command
from depthprune.specs import HealSpec

CLAIMS: list[Claim] = []
NOTHING = 0.01  # a gain below a point is nothing
LIKE = (
    0.01  # numbers of steps that differ by no more than this share are equal: the last batch of an epoch may be small
)
USUAL_EPOCHS = 3  # the paper's; that more than one epoch gains something, nobody denies

Pair = tuple[Run, Run]  # the plain recipe's run, and the other's


@claim(CLAIMS, 8, "Dropping before fine-tuning loses nothing against dropping after; gradual dropping and more epochs "
       "gain nothing")  # fmt: skip
def _recipes(results: Results) -> tuple[str, str]:
    """For it: what the other recipe gains is below a point. Against it: it gains more than 0, and a point or more.

    A gain is paired by task, layers and seed. Dropping after fine-tuning and gradual dropping are compared with the
    plain recipe of as many steps in all. One cell a model and pair of recipes.
    """
    pruned = results.pruned()
    parts = {
        "dropping after fine-tuning": _pairs(pruned, lambda heal: heal.epochs_before > 0 and not heal.gradual),
        "gradual dropping": _pairs(pruned, lambda heal: heal.gradual),
        "more epochs": _more_epochs(pruned),
    }
    cells = [_cell(words, group) for words, pairs in parts.items() for group in _by_model(pairs)]
    need = "needs recipes that fine-tune first or drop gradually beside the plain one of as many steps, or more epochs"
    verdict, evidence = judged(cells, supplied(need, _commands(results)))
    untested = [words for words, pairs in parts.items() if not pairs]
    return verdict, evidence + (f"; not tested: {', '.join(untested)}" if cells and untested else "")


def _commands(results: Results) -> list[str]:
    """Return what drops after fine-tuning, and the plain recipe of as many epochs."""
    run = example(results)
    if run is None:
        start = "depthprune run google-bert/bert-base-cased --task mrpc --strategy top --count 6"
        return [f"{start} --epochs-before {USUAL_EPOCHS}", f"{start} --epochs {2 * USUAL_EPOCHS}"]
    epochs = run.heal.num_epochs
    recipes = (replace(run.heal, epochs_before=epochs), replace(run.heal, num_epochs=2 * epochs))
    drop = ("--strategy", "top", "--count", str(run.depth // 2))
    return [named(command(replace(run, heal=heal), drop), run) for heal in recipes]


def _pairs(runs: Sequence[Run], other: Callable[[HealSpec], bool]) -> list[Pair]:
    """Pair each run of another recipe with the plain one's that has as many steps and is the same in all else."""
    plain: dict[tuple, list[Run]] = {}
    for run in runs:
        if drops_first(run):
            plain.setdefault((_alike(run), replace(run.heal, num_epochs=0)), []).append(run)
    found = []
    for run in runs:
        if other(run.heal):
            same = plain.get((_alike(run), replace(run.heal.for_full(), num_epochs=0)), [])
            equal = [each for each in same if run.steps and abs(each.steps - run.steps) <= LIKE * run.steps]
            found += [(each, run) for each in equal[:1]]
    return found


def _more_epochs(runs: Sequence[Run]) -> list[Pair]:
    """Pair the runs with the fewest epochs, three or more, with those that are the same but for more of them."""
    alike: dict[tuple, list[Run]] = {}
    for run in runs:
        if drops_first(run) and run.heal.num_epochs >= USUAL_EPOCHS:
            alike.setdefault((_alike(run), replace(run.heal, num_epochs=0)), []).append(run)
    ordered = [sorted(some, key=lambda run: run.heal.num_epochs) for some in alike.values()]
    return [(some[0], more) for some in ordered for more in some[1:] if more.heal.num_epochs > some[0].heal.num_epochs]


def _alike(run: Run) -> tuple:
    return run.model, run.task, run.setting, run.dropped, run.seed


def _by_model(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Group pairs by model and by both recipes."""
    groups: dict[tuple, list[Pair]] = {}
    for first, second in pairs:
        groups.setdefault((first.model, first.recipe, second.recipe), []).append((first, second))
    return [groups[key] for key in sorted(groups)]


def _cell(words: str, pairs: Sequence[Pair]) -> Cell:
    """Hold another recipe against the plain one."""
    strata: dict[str, list[list[tuple[float, Run]]]] = {}
    for first, second in pairs:
        strata.setdefault(f"{first.task} {first.dropped}", []).append([(1.0, second), (-1.0, first)])
    gain, below = (difference(strata, more=more, unit="tasks and plans") for more in (0.0, -NOTHING))
    plain, other = (list({run.digest: run for run in side}.values()) for side in zip(*pairs, strict=True))
    name = f"{words} ({_words(plain[0].heal, other[0].heal)})"
    one = f"plain {100 * mean(plain):.2f}" + (f" ({plain[0].steps} steps)" if plain[0].steps else "")
    two = f"{name} {100 * mean(other):.2f}" + (f" ({other[0].steps} steps)" if other[0].steps else "")
    text = f"{plain[0].model_name}, {tasks_of(plain)}: {one}, {two}; a gain of {gain.words}, {gain.basis}"
    return Cell(text, below.below, gain.above if gain.mean >= NOTHING else 1.0)


def _words(plain: HealSpec, other: HealSpec) -> str:
    """Say how a recipe differs from the plain one."""
    if other.gradual:
        return (
            f"a layer every {other.drop_every:g} epochs"
            if other.drop_every
            else f"a layer every {other.drop_every_steps} steps"
        )
    if other.epochs_before:
        frozen = ", the layers that go frozen" if other.freeze_dropped else ""
        return f"{other.epochs_before:g} epochs before{frozen}"
    return f"{other.num_epochs:g} for {plain.num_epochs:g}"
