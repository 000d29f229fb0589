"""The paper's five strategies by position (Sajjad et al., arXiv:2004.03844, section 3).

The paper counts layers 1..L; here they are 0..L-1. `depth` is L and `count` is K. The functions trust their
arguments to satisfy 1 <= count < depth, which `choose` checks.
"""

from depthprune.errors import PlanError
from depthprune.strategies.base import strategy

PAPER = "https://arxiv.org/abs/2004.03844"


@strategy("top", paper=PAPER)
def top(depth: int, count: int) -> tuple[int, ...]:
    """Drop the `count` layers nearest the output.

    >>> top(depth=12, count=4)
    (8, 9, 10, 11)
    """
    return tuple(range(depth - count, depth))


@strategy("bottom", paper=PAPER)
def bottom(depth: int, count: int) -> tuple[int, ...]:
    """Drop the `count` layers nearest the input.

    >>> bottom(depth=12, count=4)
    (0, 1, 2, 3)
    """
    return tuple(range(count))


@strategy("symmetric", paper=PAPER)
def symmetric(depth: int, count: int) -> tuple[int, ...]:
    """Drop the `count` layers in the middle, keeping as many below them as above.

    >>> symmetric(depth=12, count=4)
    (4, 5, 6, 7)

    Raises:
        PlanError: if `depth - count` is odd, so that the kept layers cannot be split equally.
    """
    if (depth - count) % 2:
        near = [k for k in (count - 1, count + 1) if 1 <= k <= depth - 2]
        possible = f"the nearest possible: {' or '.join(map(str, near))}" if near else "none is possible"
        raise PlanError(
            f"symmetric keeps as many layers below as above, which dropping {count} of {depth} does not allow; "
            f"{possible}"
        )
    edge = (depth - count) // 2
    return tuple(range(edge, edge + count))


@strategy("even-alternate", paper=PAPER)
def even_alternate(depth: int, count: int) -> tuple[int, ...]:
    """Drop every second layer downwards from the last: the paper's l_L, l_(L-2), …

    >>> even_alternate(depth=12, count=4)
    (5, 7, 9, 11)

    Raises:
        PlanError: if the stack has fewer such layers.
    """
    return _alternate("even-alternate", depth - 1, depth, count)


@strategy("odd-alternate", paper=PAPER)
def odd_alternate(depth: int, count: int) -> tuple[int, ...]:
    """Drop every second layer downwards from the last but one, so that the last is kept: l_(L-1), l_(L-3), …

    >>> odd_alternate(depth=12, count=4)
    (4, 6, 8, 10)

    Raises:
        PlanError: if the stack has fewer such layers.
    """
    return _alternate("odd-alternate", depth - 2, depth, count)


def _alternate(name: str, highest: int, depth: int, count: int) -> tuple[int, ...]:
    candidates = range(highest, -1, -2)
    if count > len(candidates):
        raise PlanError(
            f"{name} can drop at most {len(candidates)} of {depth} layers, not {count}; "
            f"give --count 1 to {len(candidates)}"
        )
    return tuple(sorted(candidates[:count]))
