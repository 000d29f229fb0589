"""A healing method that does nothing: what a cut costs before any training."""

from depthprune.healing.base import Healed, healer


@healer("nothing")
def nothing(model, data, options, *, schedule, seed, cut, teacher, on_step) -> Healed:
    """Leave the cut model as it is."""
    return Healed(model)
