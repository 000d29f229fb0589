"""A table, and the format of its numbers. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        name: for files and anchors.
        title: what it shows.
        headings: of the columns.
        rows: with as many cells each.
        note: below the table.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def seeds_words(seeds: Sequence[int]) -> str:
    """Explain ±.

    >>> seeds_words([42, 43])
    '± is the standard deviation over seeds 42, 43, and a cell without it is of one seed'
    """
    many = sorted(set(seeds))
    if len(many) < 2:
        return "one seed"
    return f"± is the standard deviation over seeds {', '.join(map(str, many))}, and a cell without it is of one seed"


def points(value: float) -> str:
    """Format a difference of fractions in points, with its sign.

    >>> points(0.0123), points(-0.00001)
    ('+1.23', '0.00')
    """
    text = f"{100 * value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text
