"""Choose layers by their scores: the lowest, those under a threshold, or the lowest window. No torch."""

from depthprune.errors import PlanError
from depthprune.plan import LayerPlan, format_layers
from depthprune.scores.base import LayerScores, Scores
from depthprune.scores.base import registry as scoring_methods

SELECTIONS = ("lowest", "window")
ON_THE_COSINE = ("contribution", "block-influence")


def lowest(scores: LayerScores, count: int, protected: frozenset[int] = frozenset()) -> tuple[int, ...]:
    """Drop the `count` layers with the lowest scores; of ties, the one nearest the output.

    >>> lowest(LayerScores((0.3, 0.1, 0.2, 0.1)), 2)
    (1, 3)
    """
    free = [i for i in range(len(scores.layers)) if i not in protected]
    _check_count(count, free, len(scores.layers), protected)
    return tuple(sorted(sorted(free, key=lambda i: (scores.layers[i], -i))[:count]))


def window(scores: LayerScores, count: int, protected: frozenset[int] = frozenset()) -> tuple[int, ...]:
    """Drop the `count` consecutive layers with the lowest window score (Gromov et al., 2024).

    Raises:
        PlanError: if every window contains a protected layer.
    """
    depth = len(scores.layers)
    _check_count(count, range(depth), depth, protected)
    free = [start for start in range(depth - count + 1) if not protected & set(range(start, start + count))]
    if not free:
        raise PlanError(f"every {count} consecutive layers contain a protected one ({format_layers(protected)})")
    values = scores.windows[count]
    start = min(free, key=lambda start: (values[start], -start))
    return tuple(range(start, start + count))


def under(scores: LayerScores, threshold: float, protected: frozenset[int] = frozenset()) -> tuple[int, ...]:
    """Drop the layers whose mean cosine of input and output is above `threshold` (Sajjad et al., 3.6).

    A score is one minus the cosine; the number of dropped layers is the result.

    >>> under(LayerScores((0.3, 0.04, 0.06)), 0.95)
    (1,)

    Raises:
        PlanError: if that is no layer or every layer; the message lists the scores.
    """
    depth = len(scores.layers)
    dropped = tuple(i for i in range(depth) if scores.layers[i] < 1 - threshold and i not in protected)
    if not dropped or len(dropped) == depth:
        cosines = ", ".join(f"{1 - score:.3f}" for score in scores.layers)
        what = "no layer" if not dropped else "every layer"
        raise PlanError(
            f"--threshold {threshold:g} drops {what}: the mean cosines of layers 0 to {depth - 1} are {cosines}"
        )
    return dropped


def check_choice(
    method: str,
    depth: int,
    *,
    select: str | None = None,
    count: int | None = None,
    threshold: float | None = None,
    protect: str | None = None,
) -> frozenset[int]:
    """Check a choice before any scores are computed; returns the protected layers.

    Args: as in `plan_scored`.

    Raises:
        PlanError: if there is no such plan.
    """
    protected = parse_protected(protect, depth)
    if (count is None) == (threshold is None):
        raise PlanError("scores need --count, how many layers to drop, or --threshold; give one of them")
    if threshold is not None:
        check_threshold(method, threshold, select=select)
        return protected
    assert count is not None
    chosen = select or scoring_methods.get(method).selects
    if chosen not in SELECTIONS:
        raise PlanError(f"there is no --select '{chosen}'; it is one of {', '.join(SELECTIONS)}")
    _check_count(count, range(depth - len(protected) if chosen == "lowest" else depth), depth, protected)
    return protected


def check_threshold(method: str, threshold: float, *, select: str | None = None) -> None:
    """Check that a threshold applies to a method's scores.

    Raises:
        PlanError: if the threshold is not a cosine, or the method's scores are not cosines.
    """
    if method not in ON_THE_COSINE or select is not None:
        raise PlanError(f"--threshold is a cosine: it goes with {' or '.join(ON_THE_COSINE)}, and without --select")
    if not -1 < threshold < 1:
        raise PlanError(f"--threshold {threshold:g} is not a cosine that a layer could exceed; 0.9 to 0.99 are usual")


def plan_scored(
    scores: Scores,
    *,
    method: str | None = None,
    select: str | None = None,
    count: int | None = None,
    threshold: float | None = None,
    protect: str | None = None,
) -> LayerPlan:
    """Make a plan from scores, without the model.

    Args:
        scores: from `depthprune score`.
        method: one of the methods in the file; by default the one that was asked for.
        select: `lowest` or `window`; by default as in the method's paper.
        count: how many layers to drop, or
        threshold: drop the layers whose mean cosine is above it.
        protect: layers that are kept, such as `0,-1`.

    Raises:
        PlanError: if there is no such plan.
        UserError: if there are no scores of that method.
    """
    name = method or scores.method
    chosen = scores.of(name)
    protected = check_choice(name, scores.depth, select=select, count=count, threshold=threshold, protect=protect)
    if threshold is not None:
        return LayerPlan(scores.depth, under(chosen, threshold, protected))
    assert count is not None
    select = select or scoring_methods.get(name).selects
    if select == "window":
        if not chosen.windows:
            raise PlanError(f"'{name}' scores single layers; --select window goes with angular or contribution")
        return LayerPlan(scores.depth, window(chosen, count, protected))
    return LayerPlan(scores.depth, lowest(chosen, count, protected))


def scored_order(plan: LayerPlan, scores: Scores, method: str) -> tuple[int, ...]:
    """Return the layers of a plan in the order of a gradual drop: the lowest score first."""
    layers = scores.of(method).layers
    return tuple(sorted(plan.dropped, key=lambda i: (layers[i], -i)))


def parse_protected(text: str | None, depth: int) -> frozenset[int]:
    """Read layers to keep; negative indices count from the last.

    >>> sorted(parse_protected("0,-1", 6))
    [0, 5]

    Raises:
        PlanError: if the text is not a list of layers, or a layer does not exist.
    """
    layers = set()
    for part in (text or "").replace(" ", "").split(",") if text else ():
        first, dash, last = part.partition("-") if not part.startswith("-") else (part, "", "")
        try:
            start = int(first)
            stop = int(last) if dash else start
        except ValueError:
            raise PlanError(f"--protect {text} is not a list of layers: '{part}'; write 0,-1 or 0-2") from None
        if not -depth <= start <= stop < depth:
            raise PlanError(f"--protect {text}: layer {part} does not exist; the stack has layers 0 to {depth - 1}")
        layers |= {layer % depth for layer in range(start, stop + 1)}
    return frozenset(layers)


def _check_count(count: int, free, depth: int, protected: frozenset[int]) -> None:
    most = min(len(free), depth - 1)
    if not 1 <= count <= most:
        kept = f" with {len(protected)} protected" if protected else ""
        raise PlanError(f"cannot drop {count} of {depth} layers{kept}; --count is 1 to {most}")
