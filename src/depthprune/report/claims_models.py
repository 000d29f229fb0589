"""The paper's claims that set models side by side: BERT, XLNet, RoBERTa and distilled ones. No torch."""

import math
import statistics
from collections.abc import Sequence

from depthprune.report.evidence import (
    BY_POSITION,
    Answer,
    Claim,
    beyond,
    both,
    by_strategy,
    claim,
    comparable,
    mean,
    noise,
    put_together,
    said,
    tasks_of,
)
from depthprune.report.pairs import base_name, family, loss, names_of_family, plain
from depthprune.report.results import Results, Run

CLAIMS: list[Claim] = []
NEARLY = 0.1  # shares of layers that are compared between models differ by no more: contribution does not choose K
THREE = ("symmetric", "contribution")


def models_of(results: Results, wanted: str) -> list[str]:
    """Return the identities of a family's models; only the paper's own where there are such."""
    names = names_of_family(wanted, [(run.model_name, run.model_type) for run in results.runs])
    return sorted(
        {r.model for r in results.runs if r.model_name in names and family(r.model_name, r.model_type) == wanted}
    )


@claim(CLAIMS, 5, "Symmetric suits BERT and hurts XLNet; contribution the reverse")
def _symmetric(results: Results) -> tuple[str, str]:
    """A strategy suits a model if it is not below top by more than the noise, and hurts if it is."""
    bert, xlnet = (_with_both(results, models_of(results, name)) for name in ("bert", "xlnet"))
    found: dict[str, Answer] = {}
    for one in bert:
        for other in xlnet:
            if abs(_share(one) - _share(other)) <= NEARLY:
                for answer in (_suits(one, "symmetric", "contribution"), _suits(other, "contribution", "symmetric")):
                    found[answer[1]] = answer
    missing = "needs symmetric, contribution and top (or an alternate strategy) on a BERT and an XLNet, at like shares"
    there = [said(groups) for groups in (*bert, *xlnet)] if not (bert and xlnet) else []
    return put_together(list(found.values()), "; ".join([missing, *there]))


def _with_both(results: Results, models: Sequence[str]) -> list[dict[str, list[Run]]]:
    """Return, for each of the models and counts, the runs by strategy: those of the claim, and what is beside them."""
    found = []
    for (model, _), groups in by_strategy(results, share=lambda s: True).items():
        if model not in models:
            continue
        bare: dict[str, dict[str, Run]] = {}  # a threshold makes no other strategy, only another count
        for name, runs in groups.items():
            bare.setdefault(base_name(name), {}).update({run.digest: run for run in runs})
        beside = ("top",) if "top" in bare else ("even-alternate", "odd-alternate")
        compared = comparable({name: list(runs.values()) for name, runs in bare.items()}, (*THREE, *beside))
        if set(THREE) < set(compared):
            found.append(compared)
    return found


def _share(groups: dict[str, list[Run]]) -> float:
    run = next(iter(groups.values()))[0]
    return run.count / run.depth


def _suits(groups: dict[str, list[Run]], good: str, bad: str) -> Answer:
    """Tell whether `good` is as good as what is beside it, and `bad` is worse."""
    beside = [name for name in groups if name not in THREE]
    level = statistics.fmean(mean(groups[name]) for name in beside)
    gaps = {name: mean(groups[name]) - level for name in (good, bad)}
    band = noise([run for runs in groups.values() for run in runs])
    answer = both(gaps[good] >= -band, beyond(-gaps[bad], band))
    differences = ", ".join(f"{name} {100 * gap:+.2f}" for name, gap in gaps.items())
    words = "top" if beside == ["top"] else f"the mean of {' and '.join(beside)}"
    return answer, f"{said(groups)}; against {words}: {differences} (noise {100 * band:.2f})"


@claim(CLAIMS, 9, "An already distilled model can lose a third of its layers")
def _distilled(results: Results) -> tuple[str, str]:
    """It can if top keeps 97.5 %; the paper's DistilBERT keeps 99.1 %."""
    answers = []
    models = models_of(results, "distilled")
    for (model, _), groups in by_strategy(results, share=lambda s: 0.3 <= s <= 0.36).items():
        known = {name: [run for run in runs if run.retention is not None] for name, runs in groups.items()}
        compared = comparable({name: runs for name, runs in known.items() if runs}, BY_POSITION)
        runs = known.get("top", [])
        if model in models and runs:
            kept = _kept(runs)
            band = noise(runs) / statistics.fmean(run.full_score or 0.0 for run in runs)
            best = max(compared, key=lambda name: _kept(compared[name]), default="top")
            text = f"{runs[0].model_name}, K = {runs[0].count} of {runs[0].depth}, {tasks_of(runs)}: top keeps "
            text += f"{100 * kept:.1f} % (noise {100 * band:.1f})"
            if len(compared) > 1:
                text += f"; the best by position, {best}, {100 * _kept(compared[best]):.1f} %"
            answers.append((beyond(kept - 0.975, band), text))
    return put_together(answers, "needs a distilled model, named as one, and top with a third of its layers gone")


def _kept(runs: Sequence[Run]) -> float:
    return statistics.fmean(run.retention or 0.0 for run in runs)


@claim(CLAIMS, 11, "RoBERTa is more robust than BERT")
def _roberta(results: Results) -> tuple[str, str]:
    """It is if it loses less with half of its layers gone from the top, on the same tasks and with the same recipe."""
    roberta, bert = (_halves(results, models_of(results, name)) for name in ("roberta", "bert"))
    answers = []
    for one in roberta:
        for other in bert:
            shared = {(run.task, run.heal) for run in one} & {(run.task, run.heal) for run in other}
            pair = [[run for run in runs if (run.task, run.heal) in shared] for runs in (one, other)]
            if shared:
                losses = [_lost(runs) for runs in pair]
                band = math.hypot(*map(noise, pair))  # either loss is a difference of two scores
                words = (f"{r[0].model_name} loses {100 * x:.2f}" for r, x in zip(pair, losses, strict=True))
                text = f"half of the layers, top, {tasks_of(pair[0])}: {', '.join(words)} (noise {100 * band:.2f})"
                answers.append((beyond(losses[1] - losses[0], band), text))
    missing = "needs top with half of the layers gone on RoBERTa and on BERT, the same task and recipe"
    there = [f"{r[0].model_name} loses {100 * _lost(r):.2f} on {tasks_of(r)}" for r in (*roberta, *bert)]
    return put_together(answers, "; ".join([missing, *there]))


def _halves(results: Results, models: Sequence[str]) -> list[list[Run]]:
    """Return the runs of each model without the top half of its layers, full score known."""
    runs = [r for r in results.pruned() if "top" in r.strategies and r.full_score is not None and plain(r)]
    runs = [run for run in runs if 0.45 <= run.count / run.depth <= 0.55]
    groups = [[run for run in runs if run.model == model] for model in models]
    return [group for group in groups if group]


def _lost(runs: Sequence[Run]) -> float:
    """Return the mean over tasks of what was lost, each task the mean over its runs."""
    tasks = {run.task for run in runs}
    return statistics.fmean(statistics.fmean(loss(run) for run in runs if run.task == task) for task in tasks)
