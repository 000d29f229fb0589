"""The paper's claims about single layers, tested on analyses of models: probes and similarities. No torch.

An analysis has a value after the embeddings and after each layer. Layers are counted from 1 here, as in the paper.

Records hold the covariance of their values over the rows, so that differences between layers have an interval; those of
earlier versions hold none. What another fine-tuning would change is in neither: margins stand for it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from depthprune.reporting.analyses import Analysis
from depthprune.reporting.claims.evidence import ERROR, NOT_TESTABLE, Cell, Claim, claim, judged
from depthprune.reporting.claims.missing import analysis_commands, supplied
from depthprune.reporting.claims.roles import BERT, OTHER, playing, stood_in
from depthprune.reporting.claims.rows import standard_error
from depthprune.reporting.paper.numbers import FINE_TUNED
from depthprune.reporting.results import Results

CLAIMS: list[Claim] = []
LAST_TOKEN = ("xlnet",)  # architectures whose last token stands for the sentence, and not the first
POINT = 0.01
# XLNet is there by layer 7 of 12 and BERT by 11. Read off the paper's chart (±0.01) with one point of tolerance, it is
# layers 8 and 11, so these are the bounds.
EARLY, LATE = 8 / 12, 10 / 12
MARGIN = 0.05  # of a cosine: by less, parts of a model are alike; another fine-tuning may turn layers by as much
CUT = " without layers "  # in the name of an analysed model
FEWEST = 6  # layers, below which thirds of a model mean little
Pair = tuple[Analysis, Analysis]  # of a BERT, and of a model of another objective


def analyses_of(results: Results, kind: str, role: str) -> list[Analysis]:
    """Return the analyses of one kind of the whole models that a role is tested on (`roles.py`).

    As in the paper, probes of fine-tuned models, and what is read at the token that stands for the sentence, come
    before others.
    """
    every = [each for each in results.analyses if each.kind == kind and each.depth >= FEWEST]
    whole = [each for each in every if CUT not in _origin(each)]
    names = playing(role, [(_origin(each).partition(FINE_TUNED)[0], each.model_type) for each in whole])
    found = [each for each in whole if _origin(each).partition(FINE_TUNED)[0] in names]
    if kind == "probe":
        found = [each for each in found if FINE_TUNED in each.model_name] or found
    return [each for each in found if each.token == _sentence_token(each)] or found


def _origin(analysis: Analysis) -> str:
    """Return the name that tells what a model is: for a similarity, that of the one before fine-tuning."""
    return analysis.before_name or analysis.model_name


def _sentence_token(analysis: Analysis) -> str:
    return "last" if analysis.model_type in LAST_TOKEN else "first"


def _needed(
    results: Results, kind: str, need: str, roles: Mapping[str, Sequence[Analysis]], there: Sequence[str]
) -> tuple[str, str]:
    """Return the verdict where a role or a common task is missing, with the commands that supply it."""
    missing = [role for role, some in roles.items() if not some] or [*roles]
    return NOT_TESTABLE, supplied(need, analysis_commands(results, kind, missing=missing), there)


def _who(pairs: Sequence[Pair]) -> str:
    """Say which models stood in, as a sentence of its own; nothing where none did."""
    bert, other = zip(*pairs, strict=True)
    words = stood_in(*([(_origin(each).partition(FINE_TUNED)[0], each.model_type) for each in some]
                       for some in (bert, other)))  # fmt: skip
    return f"{words}.\n" if words else ""


@claim(CLAIMS, 7, "Models of another objective behave differently: XLNet matures by layer 7, BERT by 11")
def _mature(results: Results) -> tuple[str, str]:
    """A model is mature at the first layer whose probe is within a point of the best.

    For it: the model of another objective is mature by two thirds of its depth, BERT not before ten twelfths of its
    own. Which layer is the first is known to an interval: of those that may be it, and that surely are good enough, by
    the standard error of the difference of two probes, over the same rows where the record has their covariance. The
    quantile is at 5 % with Bonferroni's correction for layers, models and pairs. The fit of a probe is not varied.
    """
    bert, other = (analyses_of(results, "probe", role) for role in (BERT, OTHER))
    pairs = [(b, x) for b in bert for x in other if (x.task, x.metric) == (b.task, b.metric)]
    if not pairs:
        there = [f"{Maturity.of(each, 1).words} on {each.task}" for each in (*bert, *other)]
        need = "needs a probe on every layer of a BERT and of a model of another objective, such as XLNet, on the same "
        return _needed(results, "probe", f"{need}task", {"bert": bert, "xlnet": other}, there)
    verdict, evidence = judged([_early_and_late(*pair, pairs=len(pairs)) for pair in pairs], "")
    return verdict, _who(pairs) + evidence


@dataclass(frozen=True)
class Maturity:
    """The first layer that is within a point of the best.

    Args:
        name: of the model.
        first, low, high: the layer, and the ends of its interval.
        depth: of the model.
    """

    name: str
    first: int
    low: int
    high: int
    depth: int

    @classmethod
    def of(cls, analysis: Analysis, comparisons: int) -> "Maturity":
        """Read it off a probe.

        Args:
            comparisons: of maturities that are made in all.
        """
        layers = analysis.values[1:]
        best = max(range(len(layers)), key=layers.__getitem__)
        enough = layers[best] - POINT - 1e-9
        noise = _noise(analysis, best, comparisons)

        def at(*, shift: int) -> int:
            return next(i for i, value in enumerate(layers) if i == best or value + shift * noise[i] >= enough) + 1

        return cls(analysis.model_name, at(shift=0), at(shift=1), at(shift=-1), analysis.depth)

    @property
    def words(self) -> str:
        """The layer and its interval."""
        known = self.low < self.high
        interval = f" (95 %: {self.low} to {self.high})" if known else ""
        return f"{self.name} is within a point of its best from layer {self.first} of {self.depth}{interval}"


def _early_and_late(bert: Analysis, other: Analysis, *, pairs: int) -> Cell:
    late, early = (Maturity.of(each, 2 * pairs) for each in (bert, other))
    holds = early.high / early.depth <= EARLY and late.low / late.depth >= LATE
    fails = early.low / early.depth > EARLY or late.high / late.depth < LATE
    text = f"{bert.task}: {early.words}, {late.words}"
    return Cell(text, 0.0 if holds else 0.5, 0.0 if fails else 0.5)


def _noise(analysis: Analysis, best: int, comparisons: int) -> list[float]:
    """Return by how much each layer may be off beside the best by chance; 0 where the number of examples is unknown."""
    quantile = statistics.NormalDist().inv_cdf(1 - ERROR / 2 / analysis.depth / comparisons)
    if analysis.covariance is None:
        error = standard_error(max(analysis.values[1:]), analysis.metric, analysis.examples)
        return [quantile * 2**0.5 * error if error is not None else 0.0] * analysis.depth
    errors = [_error(analysis, {i + 1: 1.0, best + 1: -1.0}) if i != best else 0.0 for i in range(analysis.depth)]
    return [quantile * error for error in errors]


def _error(analysis: Analysis, weights: Mapping[int, float]) -> float:
    """Return the standard error of a weighted sum of an analysis' values, whose covariance must be known."""
    assert analysis.covariance is not None
    covariance = analysis.covariance
    return math.sqrt(max(0.0, sum(w * v * covariance[i][j] for i, w in weights.items() for j, v in weights.items())))


@claim(CLAIMS, 12, "Fine-tuning changes BERT in its high layers, XLNet in the middle and the last")
def _changes(results: Results) -> tuple[str, str]:
    """Read it off the cosine of a layer's output before and after fine-tuning; a low one is a change.

    Parts of a model differ where their mean cosines do by more than 0.05, a margin for what another fine-tuning may
    change: for it, the difference is above the margin by a normal test over the rows, whose covariance the record has;
    against it, the other way round by more than the margin. Records without a covariance are compared with the margin
    alone. Both halves of the claim must hold (intersection-union), in each pair of a BERT and a model of another
    objective that were fine-tuned on one task, or in any pair where no task is common.
    """
    bert, other = (analyses_of(results, "similarity", role) for role in (BERT, OTHER))
    pairs = [(b, x) for b in bert for x in other if b.task == x.task] or [(b, x) for b in bert for x in other]
    if not pairs:
        there = [text for text, _ in (*map(_high, bert), *map(_middle, other))]
        need = "needs the similarity of a BERT and of a model of another objective, such as XLNet, before and after "
        return _needed(results, "similarity", f"{need}fine-tuning", {"bert": bert, "xlnet": other}, there)
    cells = []
    for b, x in pairs:
        (first, high), (second, middle) = _high(b), _middle(x)
        parts = [*high, *middle]
        against = min(1.0, len(parts) * min(part.against for part in parts))
        cells.append(Cell(f"{first}; {second}", max(part.supports for part in parts), against))
    verdict, evidence = judged(cells, "")
    return verdict, _who(pairs) + evidence


@dataclass(frozen=True)
class Contrast:
    """A difference between cosines of an analysis that should be above a margin.

    Args:
        analysis: with the cosines.
        weights: layer → weight.
        margin: that the difference must be above; it speaks against the claim where it is below −`MARGIN`.
    """

    analysis: Analysis
    weights: Mapping[int, float]
    margin: float

    @cached_property
    def gap(self) -> float:
        """The difference."""
        return sum(weight * self.analysis.values[layer] for layer, weight in self.weights.items())

    @cached_property
    def error(self) -> float:
        """Its standard error over the rows; 0 where that is unknown."""
        return _error(self.analysis, self.weights) if self.analysis.covariance is not None else 0.0

    @property
    def supports(self) -> float:
        """The one-sided p-value of its being above the margin; without an error, 0 or one half."""
        return self._beyond(self.gap - self.margin, even=self.margin == 0)

    @property
    def against(self) -> float:
        """The one-sided p-value of its being below −`MARGIN`."""
        return self._beyond(-MARGIN - self.gap, even=False)

    def _beyond(self, excess: float, *, even: bool) -> float:
        if self.error > 0:
            return 1 - statistics.NormalDist().cdf(excess / self.error)
        return 0.0 if excess > 0 or (even and excess == 0) else 0.5

    @property
    def words(self) -> str:
        """The difference, with its interval over the rows where that is known."""
        if self.error == 0:
            return f"{self.gap:+.2f}"
        half = statistics.NormalDist().inv_cdf(1 - ERROR / 2) * self.error
        return f"{self.gap:+.3f} (95 % over the rows: {self.gap - half:+.3f} to {self.gap + half:+.3f})"


Answer = tuple[str, list[Contrast]]


def _high(analysis: Analysis) -> Answer:
    """Tell whether the last third of the layers changes more than the first third."""
    low, _, high = _thirds(analysis)
    means = statistics.fmean(low.values()), statistics.fmean(high.values())
    found = Contrast(analysis, _mean_of(low, 1.0) | _mean_of(high, -1.0), MARGIN)
    text = f"cosine {means[0]:.2f} in the first third, {means[1]:.2f} in the last, a difference of {found.words}"
    return f"{_named(analysis)}: {text}", [found]


def _middle(analysis: Analysis) -> Answer:
    """Tell whether the middle third and the last layer change most, and the layers between them less."""
    low, middle, high = _thirds(analysis)
    last = high.pop(analysis.depth)
    lowest, elsewhere = (min(some, key=some.__getitem__) for some in (middle | {analysis.depth: last}, low | high))
    means = statistics.fmean(middle.values()), statistics.fmean(high.values())
    place = Contrast(analysis, {elsewhere: 1.0, lowest: -1.0}, 0.0)
    between = Contrast(analysis, _mean_of(high, 1.0) | _mean_of(middle, -1.0), MARGIN)
    least = min(range(1, analysis.depth + 1), key=analysis.values.__getitem__)
    text = (
        f"lowest cosine {analysis.values[least]:.2f} at layer {least}, {means[0]:.2f} in the middle third, "
        f"{means[1]:.2f} between it and the last layer, a difference of {between.words}, {last:.2f} at the last"
    )
    return f"{_named(analysis)}: {text}", [place, between]


def _mean_of(layers: Mapping[int, float], weight: float) -> dict[int, float]:
    return dict.fromkeys(layers, weight / len(layers))


def _thirds(analysis: Analysis) -> Sequence[dict[int, float]]:
    """Return layer → value of the first, the middle and the last third; the embeddings are none of them."""
    parts: tuple[dict[int, float], ...] = ({}, {}, {})
    for layer, value in enumerate(analysis.values[1:], 1):
        parts[min(3 * (layer - 1) // analysis.depth, 2)][layer] = value
    return parts


def _named(analysis: Analysis) -> str:
    on_task = "" if FINE_TUNED in analysis.model_name else f" on {analysis.task}"
    return f"{analysis.model_name}{on_task}"
