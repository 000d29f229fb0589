"""The claims of Sajjad et al. (arXiv:2004.03844), each held against the runs at hand. No torch.

A verdict is `supported`, `not supported` or `not testable`, with the numbers behind it. A difference counts only if it
is larger than the noise of the scores: the spread over seeds where there are several, else the standard error of a
score on so many examples.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from depthprune.report.results import Results, Run

SUPPORTED, NOT_SUPPORTED, NOT_TESTABLE = "supported", "not supported", "not testable with these runs"
ROBUST, SENSITIVE = ("qqp", "stsb"), ("mnli", "qnli")
CORRELATIONS = ("pearson", "spearman", "matthews")
BY_POSITION = ("top", "bottom", "symmetric", "even-alternate", "odd-alternate")


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


Test = Callable[[Results], tuple[str, str]]
_claims: list[tuple[int, str, Test]] = []


def _claim(number: int, text: str) -> Callable[[Test], Test]:
    def register(test: Test) -> Test:
        _claims.append((number, text, test))
        return test

    return register


def verdicts(results: Results) -> list[Verdict]:
    """Return a verdict on every claim."""
    return [Verdict(number, text, *test(results)) for number, text, test in _claims]


def noise(runs: Sequence[Run]) -> float:
    """Return how far apart two scores like these may be by chance: about two standard errors of a difference.

    Over several seeds it is their spread; over one, a share of right answers varies as a binomial does and a
    correlation r of n pairs by (1 − r²) / √(n − 1).
    """
    cells: dict[tuple, list[Run]] = {}
    for run in runs:
        cells.setdefault((run.model, run.task, run.dropped, run.recipe), []).append(run)
    errors = [error for some in cells.values() if (error := _standard_error(some)) is not None]
    return 2 * math.sqrt(2) * statistics.fmean(errors) / math.sqrt(len({run.task for run in runs})) if errors else 0.0


def _standard_error(seeds: Sequence[Run]) -> float | None:
    if len(seeds) > 1:
        return statistics.stdev(run.score for run in seeds) / math.sqrt(len(seeds))
    run = seeds[0]
    if run.examples < 2:
        return None
    if run.primary in CORRELATIONS:
        return (1 - run.score**2) / math.sqrt(run.examples - 1)
    return math.sqrt(max(run.score * (1 - run.score), 0.0025) / run.examples)


def _mean(runs: Sequence[Run]) -> float:
    return statistics.fmean(run.score for run in runs)


def _by_strategy(results: Results, *, share: Callable[[float], bool]) -> dict[tuple[str, int], dict[str, list[Run]]]:
    """Return (model, count) → strategy → runs, where the share of the layers that go is right."""
    found: dict[tuple[str, int], dict[str, list[Run]]] = {}
    for run in results.pruned():
        if share(run.count / run.depth):
            for name in run.strategies:
                found.setdefault((run.model, run.count), {}).setdefault(name, []).append(run)
    return found


def _comparable(groups: dict[str, list[Run]], names: Sequence[str]) -> dict[str, list[Run]]:
    """Keep the strategies in `names`, on the tasks, seeds and recipes that all of them have."""
    present = {name: groups[name] for name in names if name in groups}
    keys = [{(run.task, run.seed, run.recipe) for run in runs} for runs in present.values()]
    shared = set.intersection(*keys) if keys else set()
    return (
        {n: [r for r in runs if (r.task, r.seed, r.recipe) in shared] for n, runs in present.items()} if shared else {}
    )


def _said(groups: dict[str, list[Run]]) -> str:
    ordered = sorted(groups, key=lambda name: -_mean(groups[name]))
    some = groups[ordered[0]]
    tasks = ", ".join(sorted({run.task for run in some}))
    means = ", ".join(f"{name} {100 * _mean(groups[name]):.2f}" for name in ordered)
    return f"{some[0].model_name}, K = {some[0].count} of {some[0].depth}, {tasks}: {means}"


def _all(answers: Sequence[tuple[bool | None, str]], missing: str) -> tuple[str, str]:
    """Put answers of several models and counts together; None is a difference that is smaller than the noise."""
    if not answers:
        return NOT_TESTABLE, missing
    evidence = "; ".join(text for _, text in answers)
    if any(answer is False for answer, _ in answers):
        return NOT_SUPPORTED, evidence
    if any(answer is None for answer, _ in answers):
        return NOT_TESTABLE, f"{evidence}; some differences are within the noise"
    return SUPPORTED, evidence


def _ahead(winner: Sequence[Run], others: Sequence[Sequence[Run]]) -> tuple[bool | None, float]:
    """Tell whether one group's mean is above all others' by more than the noise; None where nobody can tell."""
    gap = _mean(winner) - max(map(_mean, others))
    band = noise([*winner, *(run for each in others for run in each)])
    return (True if gap > band else False if gap < -band else None), band


@_claim(1, "Half of the layers can go, about 40 % of the parameters, and about 98 % of the score stays (top)")
def _half(results: Results) -> tuple[str, str]:
    answers = []
    for groups in _by_strategy(results, share=lambda s: 0.45 <= s <= 0.55).values():
        runs = [run for run in groups.get("top", []) if run.retention is not None]
        if runs:
            kept = statistics.fmean(run.retention or 0.0 for run in runs)
            smaller = 1 - runs[0].parameters / runs[0].full_parameters
            tasks = ", ".join(sorted({run.task for run in runs}))
            text = f"{runs[0].model_name}: {100 * kept:.1f} % kept, {100 * smaller:.0f} % smaller ({tasks})"
            answers.append((kept >= 0.975, text))
    return _all(answers, "needs the strategy top with half of the layers gone")


@_claim(2, "Top is the best strategy when a third of the layers or more go")
def _top_best(results: Results) -> tuple[str, str]:
    answers = []
    for groups in _by_strategy(results, share=lambda s: s >= 0.32).values():
        compared = _comparable(groups, BY_POSITION)
        if "top" in compared and len(compared) > 1:
            ahead, band = _ahead(compared["top"], [runs for name, runs in compared.items() if name != "top"])
            answers.append((ahead, f"{_said(compared)} (noise {100 * band:.2f})"))
    return _all(answers, "needs top beside another strategy with a third of the layers gone")


@_claim(3, "When few layers go, odd-alternate beats top: keeping the last layer matters")
def _last_layer(results: Results) -> tuple[str, str]:
    answers = []
    for groups in _by_strategy(results, share=lambda s: s <= 0.2).values():
        compared = _comparable(groups, ("odd-alternate", "top"))
        if len(compared) == 2:
            ahead, band = _ahead(compared["odd-alternate"], [compared["top"]])
            answers.append((ahead, f"{_said(compared)} (noise {100 * band:.2f})"))
    return _all(answers, "needs odd-alternate and top with a sixth of the layers gone or fewer")


@_claim(4, "Lower layers are the most critical: bottom is the worst strategy")
def _bottom_worst(results: Results) -> tuple[str, str]:
    answers = []
    for groups in _by_strategy(results, share=lambda s: True).values():
        compared = _comparable(groups, BY_POSITION)
        if "bottom" in compared and len(compared) > 1:
            others = [runs for name, runs in compared.items() if name != "bottom"]
            worst = min(others, key=_mean)
            ahead, band = _ahead(worst, [compared["bottom"]])
            answers.append((ahead, f"{_said(compared)} (noise {100 * band:.2f})"))
    return _all(answers, "needs bottom beside another strategy")


@_claim(6, "Paraphrase and similarity (QQP, STS-B) are robust; MNLI and QNLI are sensitive")
def _robust(results: Results) -> tuple[str, str]:
    lost: dict[str, list[float]] = {}
    for run in results.pruned():
        if "top" in run.strategies and run.full_score is not None and 0.3 <= run.count / run.depth <= 0.55:
            lost.setdefault(run.task, []).append(run.full_score - run.score)
    robust = [statistics.fmean(lost[task]) for task in ROBUST if task in lost]
    sensitive = [statistics.fmean(lost[task]) for task in SENSITIVE if task in lost]
    said = ", ".join(f"{task} loses {100 * statistics.fmean(lost[task]):.2f}" for task in sorted(lost))
    if not robust or not sensitive:
        return NOT_TESTABLE, "needs the strategy top on one task of either kind" + (f"; {said}" if said else "")
    return (SUPPORTED if max(robust) < min(sensitive) else NOT_SUPPORTED), said


@_claim(10, "Dropping a third of the layers from the top is safe: at most two points")
def _safe(results: Results) -> tuple[str, str]:
    answers = []
    for groups in _by_strategy(results, share=lambda s: 0.3 <= s <= 0.36).values():
        runs = [run for run in groups.get("top", []) if run.full_score is not None]
        if runs:
            losses = {run.task: (run.full_score or 0.0) - run.score for run in runs}
            said = ", ".join(f"{task} {100 * loss:.2f}" for task, loss in sorted(losses.items()))
            answers.append((max(losses.values()) <= 0.02, f"{runs[0].model_name} loses: {said}"))
    return _all(answers, "needs the strategy top with a third of the layers gone")


def _untestable(number: int, text: str, missing: str) -> None:
    _claim(number, text)(lambda results: (NOT_TESTABLE, missing))


_untestable(5, "Symmetric suits BERT and hurts XLNet; contribution the reverse", "needs BERT and XLNet side by side")
_untestable(7, "Models of another objective behave differently: XLNet matures by layer 7, BERT by 11",
            "needs a probe on every layer of both")  # fmt: skip
_untestable(8, "Dropping before fine-tuning loses nothing against dropping after, and gradual dropping gains nothing",
            "needs recipes that fine-tune first")  # fmt: skip
_untestable(9, "An already distilled model can lose a third of its layers", "needs a distilled model, named as one")
_untestable(11, "RoBERTa is more robust than BERT", "needs RoBERTa and BERT side by side")
_untestable(12, "Fine-tuning changes BERT in its high layers, XLNet in the middle and the last",
            "needs both models before and after fine-tuning")  # fmt: skip
_claims.sort(key=lambda entry: entry[0])
