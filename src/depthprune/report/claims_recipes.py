"""The paper's claim about recipes: drop first and fine-tune once, and nothing else gains anything. No torch.

Runs are compared in pairs that are alike in all but the recipe: model, task, layers and seed.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from depthprune.report.evidence import Answer, Claim, claim, mean, noise, put_together, tasks_of
from depthprune.report.pairs import drops_first
from depthprune.report.results import Results, Run
from depthprune.specs import HealSpec

CLAIMS: list[Claim] = []
FINE = 0.02  # "gains nothing" is not said where two points could hide in the noise
USUAL_EPOCHS = 3  # the paper's; that more than one epoch gains something, nobody denies

Pair = tuple[Run, Run]  # the plain recipe's run, and the other's


@claim(CLAIMS, 8, "Dropping before fine-tuning loses nothing against dropping after; gradual dropping and more epochs "
       "gain nothing")  # fmt: skip
def _recipes(results: Results) -> tuple[str, str]:
    """Nothing is lost if the plain recipe is not below the other by more than the noise."""
    pruned = results.pruned()
    parts = {
        "dropping after fine-tuning": _pairs(pruned, lambda heal: heal.epochs_before > 0 and not heal.gradual),
        "gradual dropping": _pairs(pruned, lambda heal: heal.gradual),
        "more epochs": _more_epochs(pruned),
    }
    answers = [_answer(words, group) for words, pairs in parts.items() for group in _by_model(pairs)]
    missing = "needs recipes that fine-tune first, drop gradually or take more epochs, beside the plain one"
    verdict, evidence = put_together(answers, missing)
    untested = [words for words, pairs in parts.items() if not pairs]
    return verdict, evidence + (f"; not tested: {', '.join(untested)}" if answers and untested else "")


def _pairs(runs: Sequence[Run], other: Callable[[HealSpec], bool]) -> list[Pair]:
    """Pair each run of another recipe with the plain one's: the same in everything that is not about dropping."""
    plain = {(_cell(run), run.heal): run for run in runs if drops_first(run)}
    found = ((plain.get((_cell(run), run.heal.for_full())), run) for run in runs if other(run.heal))
    return [(first, second) for first, second in found if first is not None]


def _more_epochs(runs: Sequence[Run]) -> list[Pair]:
    """Pair the runs with the fewest epochs, three or more, with those that are the same but for more of them."""
    alike: dict[tuple, list[Run]] = {}
    for run in runs:
        if drops_first(run) and run.heal.num_epochs >= USUAL_EPOCHS:
            alike.setdefault((_cell(run), replace(run.heal, num_epochs=0)), []).append(run)
    ordered = [sorted(some, key=lambda run: run.heal.num_epochs) for some in alike.values()]
    return [(some[0], more) for some in ordered for more in some[1:] if more.heal.num_epochs > some[0].heal.num_epochs]


def _cell(run: Run) -> tuple:
    return run.model, run.task, run.dropped, run.seed


def _by_model(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Group pairs by model and by both recipes."""
    groups: dict[tuple, list[Pair]] = {}
    for first, second in pairs:
        groups.setdefault((first.model, repr(first.heal), repr(second.heal)), []).append((first, second))
    return [groups[key] for key in sorted(groups)]


def _answer(words: str, pairs: Sequence[Pair]) -> Answer:
    """Tell whether the other recipe is no better than the plain one, beyond the noise."""
    plain, other = (list({run.digest: run for run in side}.values()) for side in zip(*pairs, strict=True))
    gain = statistics.fmean(second.score - first.score for first, second in pairs)
    band = noise([*plain, *other])
    name = f"{words} ({_words(plain[0].heal, other[0].heal)})"
    text = f"{plain[0].model_name}, {tasks_of(plain)}: plain {100 * mean(plain):.2f}, {name} {100 * mean(other):.2f}"
    nothing = gain <= band if abs(gain) > band or band <= FINE else None
    return nothing, f"{text}; a gain of {100 * gain:.2f} where {100 * band:.2f} is noise"


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
