"""The paper's claims about single layers, tested on analyses of models: probes and similarities. No torch.

An analysis has a value after the embeddings and after each layer. Layers are counted from 1 here, as in the paper.
"""

import statistics
from collections.abc import Sequence

from depthprune.reporting.analyses import Analysis
from depthprune.reporting.claims.evidence import ERROR, Cell, Claim, claim, judged
from depthprune.reporting.claims.rows import standard_error
from depthprune.reporting.pairs import family, names_of_family
from depthprune.reporting.paper.numbers import FINE_TUNED
from depthprune.reporting.results import Results

CLAIMS: list[Claim] = []
TOKEN = {"bert": "first", "xlnet": "last"}  # that stands for the sentence
POINT = 0.01
# XLNet is there by layer 7 of 12 and BERT by 11. Read off the paper's chart (±0.01) with one point of tolerance, it is
# layers 8 and 11, so these are the bounds.
EARLY, LATE = 8 / 12, 10 / 12
MARGIN = 0.05  # of a cosine: by less, parts of a model are alike
CUT = " without layers "  # in the name of an analysed model
FEWEST = 6  # layers, below which thirds of a model mean little


def analyses_of(results: Results, kind: str, wanted: str) -> list[Analysis]:
    """Return the analyses of one kind of a family's whole models; the paper's own alone where there are such.

    As in the paper, probes of fine-tuned models, and what is read at the token that stands for the sentence, come
    before others.
    """
    every = [each for each in results.analyses if each.kind == kind and each.depth >= FEWEST]
    whole = [each for each in every if CUT not in _origin(each)]
    names = names_of_family(wanted, [(_origin(each), each.model_type) for each in whole])
    found = [each for each in whole if _origin(each) in names and family(_origin(each), each.model_type) == wanted]
    if kind == "probe":
        found = [each for each in found if FINE_TUNED in each.model_name] or found
    return [each for each in found if each.token == TOKEN[wanted]] or found


def _origin(analysis: Analysis) -> str:
    """Return the name that tells what a model is: for a similarity, that of the one before fine-tuning."""
    return analysis.before_name or analysis.model_name


Answer = tuple[bool | None, str]


def _judged(answers: Sequence[Answer], missing: str) -> tuple[str, str]:
    """Put answers together: each is decided or not before it comes here, so its p-values are 0 or a half."""
    p_values = {True: (0.0, 1.0), False: (1.0, 0.0), None: (0.5, 0.5)}
    return judged([Cell(text, *p_values[answer]) for answer, text in answers], missing)


def both(*answers: bool | None) -> bool | None:
    """Return whether all hold: False where one does not, else None where one cannot be told."""
    return False if False in answers else None if None in answers else True


def beyond(gap: float, band: float) -> bool | None:
    """Tell whether a difference is above 0 by more than a margin; None if it is within it."""
    return True if gap > band else False if gap < -band else None


@claim(CLAIMS, 7, "Models of another objective behave differently: XLNet matures by layer 7, BERT by 11")
def _mature(results: Results) -> tuple[str, str]:
    """A model is mature at the first layer whose probe is within a point of the best.

    Decided only where the answer stays the same when a layer counts as good as the best up to the noise: the standard
    error of a difference of two probes on so many rows, unpaired, times the normal quantile at 5 % with Bonferroni's
    correction for the layers, since the best is the best of several. The fit of a probe is not varied.
    """
    bert, xlnet = (analyses_of(results, "probe", name) for name in ("bert", "xlnet"))
    answers = [_early_and_late(x, b) for x in xlnet for b in bert if (x.task, x.metric) == (b.task, b.metric)]
    missing = "needs a probe on every layer of a BERT and of an XLNet, on the same task"
    there = [f"{_words(each)} on {each.task}" for each in (*bert, *xlnet)]
    return _judged(answers, "; ".join([missing, *there]))


def _early_and_late(xlnet: Analysis, bert: Analysis) -> Answer:
    """Tell whether XLNet matures early and BERT late; None where taking noise for nothing would change the answer."""

    def holds(noisy: bool) -> bool:
        early, late = (_first(each, max(POINT, _noise(each) * noisy)) / each.depth for each in (xlnet, bert))
        return early <= EARLY and late >= LATE

    noise = max(_noise(xlnet), _noise(bert))
    text = f"{xlnet.task}: {_words(xlnet)}, {_words(bert)}"
    text += f" (noise {100 * noise:.2f})" if noise else ""
    answer = holds(False)
    return (answer if holds(True) == answer else None), text


def _first(analysis: Analysis, tolerance: float) -> int:
    """Return the first layer that is as good as the best but for the tolerance."""
    layers = analysis.values[1:]
    return next(i for i, value in enumerate(layers, 1) if value >= max(layers) - tolerance - 1e-9)


def _noise(analysis: Analysis) -> float:
    """Return by how much a layer may be below the best by chance, 0 where the number of examples is unknown."""
    error = standard_error(max(analysis.values[1:]), analysis.metric, analysis.examples)
    quantile = statistics.NormalDist().inv_cdf(1 - ERROR / 2 / analysis.depth)
    return quantile * 2**0.5 * error if error is not None else 0.0


def _words(analysis: Analysis) -> str:
    first = _first(analysis, POINT)
    return f"{analysis.model_name} is within a point of its best from layer {first} of {analysis.depth}"


@claim(CLAIMS, 12, "Fine-tuning changes BERT in its high layers, XLNet in the middle and the last")
def _changes(results: Results) -> tuple[str, str]:
    """Read it off the cosine of a layer's output before and after fine-tuning; a low one is a change.

    Parts of a model differ where their mean cosines do by more than 0.05, a margin and no test: an analysis holds
    means over rows without their spread. Both halves of the claim must hold, in each pair of a BERT and an XLNet.
    """
    bert, xlnet = (analyses_of(results, "similarity", name) for name in ("bert", "xlnet"))
    first, second = [*map(_high, bert)], [*map(_middle, xlnet)]
    answers = [(both(b[0], x[0]), f"{b[1]}; {x[1]}") for b in first for x in second]
    missing = "needs the similarity of a BERT and of an XLNet before and after fine-tuning"
    return _judged(answers, "; ".join([missing, *(text for _, text in (*first, *second))]))


def _high(analysis: Analysis) -> Answer:
    """Tell whether the last third of the layers changes more than the first third."""
    low, _, high = _thirds(analysis)
    means = statistics.fmean(low.values()), statistics.fmean(high.values())
    text = f"cosine {means[0]:.2f} in the first third, {means[1]:.2f} in the last"
    return beyond(means[0] - means[1], MARGIN), f"{_named(analysis)}: {text}"


def _middle(analysis: Analysis) -> Answer:
    """Tell whether the middle third and the last layer change most, and the layers between them less."""
    low, middle, high = _thirds(analysis)
    last = high.pop(analysis.depth)
    most = min((*middle.values(), last)) - min((*low.values(), *high.values()))
    means = statistics.fmean(middle.values()), statistics.fmean(high.values())
    lowest = min(analysis.values[1:])
    text = (
        f"lowest cosine {lowest:.2f} at layer {analysis.values.index(lowest, 1)}, {means[0]:.2f} in the middle third, "
    )
    text += f"{means[1]:.2f} between it and the last layer, {last:.2f} at the last"
    return both(_sure(-most), beyond(means[1] - means[0], MARGIN)), f"{_named(analysis)}: {text}"


def _sure(gap: float) -> bool | None:
    """Tell whether the lowest is where it should be; one that is hardly lower elsewhere tells nothing."""
    return True if gap >= 0 else None if gap >= -MARGIN else False


def _thirds(analysis: Analysis) -> Sequence[dict[int, float]]:
    """Return layer → value of the first, the middle and the last third; the embeddings are none of them."""
    parts: tuple[dict[int, float], ...] = ({}, {}, {})
    for layer, value in enumerate(analysis.values[1:], 1):
        parts[min(3 * (layer - 1) // analysis.depth, 2)][layer] = value
    return parts


def _named(analysis: Analysis) -> str:
    on_task = "" if FINE_TUNED in analysis.model_name else f" on {analysis.task}"
    return f"{analysis.model_name}{on_task}"
