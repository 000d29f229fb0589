"""The claims of Sajjad et al. (arXiv:2004.03844), each held against the runs at hand. No torch.

A verdict is `supported`, `not supported` or `not testable`, with the numbers behind it. A difference counts only if it
is larger than the noise of the scores. Here are the claims about strategies and tasks; those about models, recipes and
single layers have modules of their own.
"""

import math
import statistics
from dataclasses import dataclass

from depthprune.report import claims_layers, claims_models, claims_recipes
from depthprune.report.evidence import (
    BY_POSITION,
    NOT_SUPPORTED,
    NOT_TESTABLE,
    SUPPORTED,
    Claim,
    ahead,
    beyond,
    by_strategy,
    claim,
    comparable,
    mean,
    noise,
    put_together,
    said,
    tasks_of,
)
from depthprune.report.pairs import loss, plain
from depthprune.report.results import Results, Run

__all__ = ["NOT_SUPPORTED", "NOT_TESTABLE", "SUPPORTED", "Verdict", "verdicts"]

ROBUST, SENSITIVE = ("qqp", "stsb"), ("mnli", "qnli")
CLAIMS: list[Claim] = []


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Args:
        number, claim: as in the paper's list.
        verdict: one of the three.
        evidence: the numbers behind it, or what is missing.
    """

    number: int
    claim: str
    verdict: str
    evidence: str


def verdicts(results: Results) -> list[Verdict]:
    """Return a verdict on every claim."""
    claims = (*CLAIMS, *claims_models.CLAIMS, *claims_layers.CLAIMS, *claims_recipes.CLAIMS)
    ordered = sorted(claims, key=lambda each: each.number)
    return [Verdict(each.number, each.text, *each.test(results)) for each in ordered]


@claim(CLAIMS, 1, "Half of the layers can go, about 40 % of the parameters, and about 98 % of the score stays (top)")
def _half(results: Results) -> tuple[str, str]:
    answers = []
    for groups in by_strategy(results, share=lambda s: 0.45 <= s <= 0.55).values():
        runs = [run for run in groups.get("top", []) if run.retention is not None]
        if runs:
            kept = statistics.fmean(run.retention or 0.0 for run in runs)
            smaller = 1 - runs[0].parameters / runs[0].full_parameters
            text = f"{runs[0].model_name}: {100 * kept:.1f} % kept, {100 * smaller:.0f} % smaller ({tasks_of(runs)})"
            answers.append((kept >= 0.975, text))
    return put_together(answers, "needs the strategy top with half of the layers gone")


@claim(CLAIMS, 2, "Top is the best strategy when a third of the layers or more go")
def _top_best(results: Results) -> tuple[str, str]:
    answers = []
    for groups in by_strategy(results, share=lambda s: s >= 0.32).values():
        compared = comparable(groups, BY_POSITION)
        if "top" in compared and len(compared) > 1:
            first, band = ahead(compared["top"], [runs for name, runs in compared.items() if name != "top"])
            answers.append((first, f"{said(compared)} (noise {100 * band:.2f})"))
    return put_together(answers, "needs top beside another strategy with a third of the layers gone")


@claim(CLAIMS, 3, "When few layers go, odd-alternate beats top: keeping the last layer matters")
def _last_layer(results: Results) -> tuple[str, str]:
    answers = []
    for groups in by_strategy(results, share=lambda s: s <= 0.2).values():
        compared = comparable(groups, ("odd-alternate", "top"))
        if len(compared) == 2:
            first, band = ahead(compared["odd-alternate"], [compared["top"]])
            answers.append((first, f"{said(compared)} (noise {100 * band:.2f})"))
    return put_together(answers, "needs odd-alternate and top with a sixth of the layers gone or fewer")


@claim(CLAIMS, 4, "Lower layers are the most critical: bottom is the worst strategy")
def _bottom_worst(results: Results) -> tuple[str, str]:
    answers = []
    for groups in by_strategy(results, share=lambda s: True).values():
        compared = comparable(groups, BY_POSITION)
        if "bottom" in compared and len(compared) > 1:
            others = [runs for name, runs in compared.items() if name != "bottom"]
            worst = min(others, key=mean)
            first, band = ahead(worst, [compared["bottom"]])
            answers.append((first, f"{said(compared)} (noise {100 * band:.2f})"))
    return put_together(answers, "needs bottom beside another strategy")


@claim(CLAIMS, 6, "Paraphrase and similarity (QQP, STS-B) are robust; MNLI and QNLI are sensitive")
def _robust(results: Results) -> tuple[str, str]:
    runs = [run for run in results.pruned() if "top" in run.strategies and run.full_score is not None and plain(run)]
    runs = [run for run in runs if 0.3 <= run.count / run.depth <= 0.55]
    answers = []
    for model in sorted({run.model for run in runs}):
        lost = _on_the_same_plans([run for run in runs if run.model == model])
        robust, sensitive = ([lost[task] for task in kind if task in lost] for kind in (ROBUST, SENSITIVE))
        if robust and sensitive:
            most, least = max(robust, key=_mean_loss), min(sensitive, key=_mean_loss)
            # Either loss is a difference of two scores, so the noise of their difference is that of both together.
            band = math.hypot(noise(most), noise(least))
            losses = ", ".join(f"{task} loses {100 * _mean_loss(lost[task]):.2f}" for task in sorted(lost))
            text = f"{most[0].model_name}: {losses} (noise {100 * band:.2f})"
            answers.append((beyond(_mean_loss(least) - _mean_loss(most), band), text))
    return put_together(answers, "needs the strategy top on one task of either kind, with the same layers gone")


def _on_the_same_plans(runs: list[Run]) -> dict[str, list[Run]]:
    """Return task → runs, with the counts that all the tasks of the claim have."""
    tasks = {task: [run for run in runs if run.task == task] for task in (*ROBUST, *SENSITIVE)}
    tasks = {task: some for task, some in tasks.items() if some}
    shared = set.intersection(*({run.count for run in some} for some in tasks.values())) if tasks else set()
    kept = {task: [run for run in some if run.count in shared] for task, some in tasks.items()}
    return {task: some for task, some in kept.items() if some}


def _mean_loss(runs: list[Run]) -> float:
    return statistics.fmean(map(loss, runs))


@claim(CLAIMS, 10, "Dropping a third of the layers from the top is safe: at most two points")
def _safe(results: Results) -> tuple[str, str]:
    answers = []
    for groups in by_strategy(results, share=lambda s: 0.3 <= s <= 0.36).values():
        runs = [run for run in groups.get("top", []) if run.full_score is not None]
        if runs:
            tasks = sorted({run.task for run in runs})
            losses = {task: _mean_loss([run for run in runs if run.task == task]) for task in tasks}
            lost = ", ".join(f"{task} {100 * losses[task]:.2f}" for task in tasks)
            seeds = len({run.seed for run in runs})
            over = f", mean of {seeds} seeds" if seeds > 1 else ""
            answers.append((round(max(losses.values()), 6) <= 0.02, f"{runs[0].model_name} loses: {lost}{over}"))
    return put_together(answers, "needs the strategy top with a third of the layers gone")
