"""Which plans to try when not all may be: those that tell most about where the bound lies. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from depthprune.evaluation.measurement import Measurement
from depthprune.experiments.sweeps.bounds import Bounds
from depthprune.plan import LayerPlan


def next_plans(
    plans: Mapping[str, LayerPlan],
    tried: Sequence[Mapping[str, Any]],
    full: Measurement,
    bounds: Bounds,
    size: int,
    *,
    last: bool,
) -> list[str]:
    """Choose the plans to try next: halve the counts between what does and what does not, then look around.

    A budget does not end without a plan that does before the smallest cut was tried.

    Args:
        plans: digest → plan, of those that were not tried; of one count, the first is tried first.
        tried: records of the others.
        full: the full model's primary metric.
        bounds: what a plan has to keep to.
        size: how many to choose.
        last: whether the budget ends with these.
    """
    by_count: dict[int, list[str]] = {}
    for digest, plan in plans.items():
        by_count.setdefault(plan.count, []).append(digest)
    cuts = [(len(record["spec"]["drop"]["dropped"]), dict(record)) for record in tried]
    cuts = [(count, record) for count, record in cuts if count]
    low, high = _between(cuts, full, bounds, next(iter(plans.values())).depth)
    inside = _spread([count for count in sorted(by_count) if low < count < high])
    around = [count for count in sorted(by_count) if count >= high]
    around += [count for count in sorted(by_count, reverse=True) if count <= low]
    order = [by_count[count] for count in (*inside, *around)]
    chosen = [*(some[0] for some in order), *(digest for some in order for digest in some[1:])][:size]
    smallest = min(by_count)
    untried = all(count > smallest for count, _ in cuts) and by_count[smallest][0] not in chosen
    if last and untried and bounds.max_loss is not None and not any(bounds.allow(record, full) for _, record in cuts):
        chosen[-1] = by_count[smallest][0]
    return chosen


def _between(
    cuts: Sequence[tuple[int, dict[str, Any]]], full: Measurement, bounds: Bounds, depth: int
) -> tuple[int, int]:
    """Return the two counts between which the answer lies, as far as scores fall and speed rises with the count."""
    good = [count for count, record in cuts if bounds.allow(record, full)]
    too_far = [count for count, record in cuts if bounds.loses_too_much(record, full)]
    too_big = [count for count, record in cuts if bounds.costs_too_much(record) and count not in too_far]
    if bounds.max_loss is not None:  # the largest that does is wanted
        low = max([*good, *too_big], default=0)
        return low, min((count for count in too_far if count > low), default=depth)
    high = min(good, default=depth)  # the smallest is
    return max((count for count in too_big if count < high), default=0), high


def _spread(items: Sequence[int]) -> list[int]:
    """Order items so that any beginning is spread over them: the middle, the middles of the halves, …

    >>> _spread([1, 2, 3, 4, 5, 6, 7])
    [4, 2, 6, 1, 3, 5, 7]
    """
    found, waiting = [], [(0, len(items))]
    while waiting:
        start, stop = waiting.pop(0)
        if start < stop:
            middle = (start + stop) // 2
            found.append(items[middle])
            waiting += [(start, middle), (middle + 1, stop)]
    return found
