"""The claims of Sajjad et al. (arXiv:2004.03844), each tested on the runs of a store. No torch.

A verdict is `supported`, `not supported`, `inconclusive` (the runs are about it, and the differences may be chance), or
`not testable` (they are not about it), with the numbers behind it. Each test's docstring has its rule.
"""

from dataclasses import dataclass

from depthprune.reporting.claims import layers, models, recipes, strategies
from depthprune.reporting.claims.evidence import INCONCLUSIVE, NOT_SUPPORTED, NOT_TESTABLE, SUPPORTED, of_paper
from depthprune.reporting.results import Results

__all__ = ["INCONCLUSIVE", "NOT_SUPPORTED", "NOT_TESTABLE", "SUPPORTED", "Verdict", "verdicts"]


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim.

    Args:
        number, claim: as in the paper's list.
        verdict: one of the four.
        evidence: the numbers behind it, or what is missing.
    """

    number: int
    claim: str
    verdict: str
    evidence: str


def verdicts(results: Results, *, every: bool = True) -> list[Verdict]:
    """Return a verdict on every claim.

    Args:
        every: include claims that no runs are about, which are not testable.
    """
    about = of_paper(results)
    claims = (*strategies.CLAIMS, *models.CLAIMS, *layers.CLAIMS, *recipes.CLAIMS)
    ordered = sorted(claims, key=lambda each: each.number)
    found = [Verdict(each.number, each.text, *each.test(about)) for each in ordered]
    return [each for each in found if every or each.verdict != NOT_TESTABLE]
