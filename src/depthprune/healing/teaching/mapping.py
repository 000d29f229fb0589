"""Which of the teacher's states each state of the student is to match. No torch.

States are counted as in `output_hidden_states`: state 0 is what the embeddings put out and the first layer is given,
state s is what layer s - 1 puts out; a model of L layers has L + 1.
"""

from collections.abc import Sequence
from itertools import pairwise

from depthprune.errors import UserError

BOUNDARY, EVEN = MAPPINGS = ("boundary", "even")
ALL, INNER, LAST = STATES = ("all", "inner", "last")


def matched_states(
    kept: Sequence[int], depth: int, mapping: str = BOUNDARY, states: str = ALL
) -> tuple[tuple[int, int], ...]:
    """Return pairs of (the student's state, the teacher's state that it is to match), ascending.

    By `boundary`, what a kept layer is given in the student matches what it was given in the full model, so that the
    layer before it learns to do the work of those that went between the two; the last state matches the last. By
    `even`, the student's states are spread evenly over the teacher's, whichever layers were kept (Patient-KD's skip).
    The two agree where every second layer is kept, from the first on.

    Args:
        kept: the student's layers, by index in the full model.
        depth: layers of the full model.
        mapping: `boundary` or `even`.
        states: `all`; `inner`, all but the first and the last (Patient-KD); `last`.

    >>> matched_states((0, 2, 5), depth=6)
    ((0, 0), (1, 2), (2, 5), (3, 6))
    >>> matched_states((1, 4), depth=6)
    ((0, 1), (1, 4), (2, 6))
    >>> matched_states((0, 1, 2), depth=6, mapping="even", states="inner")
    ((1, 2), (2, 4))

    Raises:
        UserError: there is no such mapping.
    """
    if mapping not in MAPPINGS or states not in STATES:
        raise UserError(f"mapping is one of {', '.join(MAPPINGS)}, and states one of {', '.join(STATES)}")
    last = len(kept)
    aims = (*kept, depth) if mapping == BOUNDARY else tuple(round(state * depth / last) for state in range(last + 1))
    chosen = {ALL: range(last + 1), INNER: range(1, last), LAST: (last,)}[states]
    return tuple((state, aims[state]) for state in chosen)


def layer_groups(kept: Sequence[int], depth: int) -> tuple[tuple[int, ...], ...]:
    """Return for each kept layer the layers of the full model whose work it does: itself and those that went after it.

    Those that went before the first kept layer are the first one's, too.

    >>> layer_groups((1, 2, 4), depth=6)
    ((0, 1), (2, 3), (4, 5))
    """
    starts = (0, *kept[1:], depth)
    return tuple(tuple(range(start, end)) for start, end in pairwise(starts))
