"""Choose layers. A strategy by position is a function `(depth, count) -> dropped indices`; `choose` names one.

>>> from depthprune import strategies
>>> strategies.top(depth=12, count=4)
(8, 9, 10, 11)
>>> strategies.choose("top", depth=12, count=4).kept
(0, 1, 2, 3, 4, 5, 6, 7)
"""

from depthprune.strategies.base import (
    Strategy,
    choices,
    choose,
    plan_layers,
    plan_stacks,
    possible_counts,
    registry,
    removal_order,
    same_choice,
    strategy,
)
from depthprune.strategies.fixed import bottom, even_alternate, odd_alternate, symmetric, top

__all__ = [
    "Strategy",
    "bottom",
    "choices",
    "choose",
    "even_alternate",
    "odd_alternate",
    "plan_layers",
    "plan_stacks",
    "possible_counts",
    "registry",
    "removal_order",
    "same_choice",
    "strategy",
    "symmetric",
    "top",
]
