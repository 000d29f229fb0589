"""The report's drawings, as SVG (matplotlib). No torch."""

from collections.abc import Callable, Sequence
from typing import Any

from depthprune.evaluation.measurement import Measurement, mean_of, share_shown
from depthprune.plan import format_layers
from depthprune.reporting.analyses import Curve, label
from depthprune.reporting.drawings.canvas import (
    COLOURS,
    GREY,
    MARKERS,
    as_svg,
    draw_bars,
    matplotlib,
    new_figure,
    whole_numbers,
)
from depthprune.reporting.results import Run, mean_and_spread
from depthprune.scores import Scores
from depthprune.tasks.metrics.base import FRACTION, LOWER

BESIDE, FARTHEST, ROOM = 4, 24, 1.15  # points beside a point; tries; a reader's font may be wider


def depth_chart(runs: Sequence[Run], full: Sequence[Measurement]) -> str:
    """Draw score against the number of dropped layers, a line a strategy, with the spread over seeds.

    Args:
        full: the full model's scores.
    """
    figure, (axis,) = new_figure()
    scale = runs[0].measured.scale
    names = sorted({name for run in runs for name in run.strategies})
    for n, name in enumerate(names):
        points = _points(runs, name)
        counts = [count for count, _, _ in points]
        means = [scale * mean for _, mean, _ in points]
        errors = [scale * (spread or 0.0) for _, _, spread in points]
        style = {
            "color": COLOURS[n % len(COLOURS)],
            "marker": MARKERS[n % len(MARKERS)],
            "markersize": 5,
            "linewidth": 1.3,
        }
        axis.errorbar(counts, means, yerr=errors if any(errors) else None, capsize=3, label=name, **style)
    if full:
        axis.axhline(scale * mean_of(full).value, color=GREY, linestyle="--", linewidth=1, label="full model")
    axis.set_xlabel("K, layers dropped")
    axis.set_ylabel(_axis_name(runs[0]))
    axis.legend(fontsize=8, ncols=2)
    whole_numbers(axis.xaxis)
    return as_svg(figure)


def _axis_name(run: Run) -> str:
    """Return what the axis of a metric says: its name, its unit, and that lower is better where that is so."""
    measured = run.measured
    unit = " × 100" if measured.unit == FRACTION else f", {measured.unit}" if measured.unit else ""
    return run.primary + unit + (" (lower is better)" if measured.better == LOWER else "")


def depth_words(runs: Sequence[Run]) -> str:
    """Say what `depth_chart` shows."""
    parts, scale = [], runs[0].measured.scale
    for name in sorted({name for run in runs for name in run.strategies}):
        points = ", ".join(f"{count} dropped {scale * mean:.1f}" for count, mean, _ in _points(runs, name))
        parts.append(f"{name}: {points}")
    return "; ".join(parts)


def _points(runs: Sequence[Run], name: str) -> list[tuple[int, float, float | None]]:
    counts = sorted({run.count for run in runs if name in run.strategies})
    return [
        (count, *mean_and_spread([run.score for run in runs if run.count == count and name in run.strategies]))
        for count in counts
    ]


def parameters(run: Run) -> float:
    """Return a run's cost in memory, in millions of parameters."""
    return run.parameters / 1e6


def slowness(run: Run) -> float:
    """Return a run's cost in time, which must be known: its latency over the full model's, timed in turns."""
    assert run.speedup is not None
    return 1 / run.speedup


def pareto_front(runs: Sequence[Run], cost: Callable[[Run], float] = parameters) -> list[Run]:
    """Return, for each task, the runs that no other beats in both cost and retention, the cheapest first."""
    front = []
    for on in sorted({run.on for run in runs}):
        best = -1.0
        some = [run for run in runs if run.on == on]
        for run in sorted(some, key=lambda run: (cost(run), -(run.retention or 0.0))):
            if (run.retention or 0.0) > best:
                front.append(run)
                best = run.retention or 0.0
    return front


def point_name(run: Run) -> str:
    """Say which run a point is."""
    dropped = f"without layers {format_layers(run.dropped)}" if run.dropped else "full"
    return f"{run.on} {dropped} ({share_shown([run.retention or 0.0], run.measured.better)})"


COSTS = {
    "parameters": ("parameters, million", parameters, parameters),
    "speed": ("times faster than the full model", lambda run: run.speedup, slowness),
}  # what is drawn, and what the front is of


def pareto_chart(runs: Sequence[Run], kind: str) -> str:
    """Draw retention against a cost; what no other beats is joined up, and labelled with the layers that went.

    Where lower is better, retention is the full model's score over the run's (`Measurement.retained`).

    Args:
        kind: `parameters` or `speed`.
    """
    figure, (axis,) = new_figure(height=4.0)
    heading, value, cost = COSTS[kind]
    front = pareto_front(runs, cost)
    labels = []
    for n, on in enumerate(sorted({run.on for run in runs})):
        some = [run for run in runs if run.on == on]
        style = {"color": COLOURS[n % len(COLOURS)], "marker": MARKERS[n % len(MARKERS)]}
        axis.scatter([value(run) for run in some], [_kept(run) for run in some], s=16, alpha=0.45, **style)
        best = [run for run in front if run.on == on]
        axis.plot(
            [value(run) for run in best], [_kept(run) for run in best], linewidth=1.1, markersize=6, **style, label=on
        )
        labels += [(value(run), _kept(run), format_layers(run.dropped) or "full", style["color"]) for run in best]
    axis.set_xlabel(heading)
    axis.set_ylabel("share of the full score, %")
    axis.margins(x=0.08, y=0.1)
    axis.legend(fontsize=8, loc="best")
    _write_labels(figure, axis, labels)
    return as_svg(figure)


def _kept(run: Run) -> float:
    return 100 * (run.retention or 0.0)


def _write_labels(figure: Any, axis: Any, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Write a label beside each point where it touches no other, and no point; one far away is tied to its own.

    Call it last: where there is room is known when everything else has its place.

    Args:
        labels: x, y, text and colour each.
    """
    box = matplotlib("transforms").Bbox.from_bounds
    figure.draw_without_rendering()
    point = figure.dpi / 72
    centres = [axis.transData.transform((x, y)) for x, y, *_ in labels]
    taken = [box(x - 3 * point, y - 3 * point, 6 * point, 6 * point) for x, y in centres]  # the points themselves
    for x, y, text, colour in sorted(labels, key=lambda each: (each[1], each[0])):
        label = axis.annotate(text, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=8, color=colour)
        label.set_in_layout(False)
        size = label.get_window_extent()
        wide, high = ROOM * size.width, size.height
        at_x, at_y = axis.transData.transform((x, y))
        right, left = BESIDE * point, -BESIDE * point - wide
        for step in range(FARTHEST):
            places = [(side, up) for up in (3 + 5 * step, -9 - 5 * step) for side in (right, left)]
            boxes = [(box(at_x + side, at_y + up * point, wide, high), side, up) for side, up in places]
            free = [each for each in boxes if _inside(each[0], axis.bbox) and not each[0].count_overlaps(taken)]
            if free:
                break
        else:
            free = boxes  # more labels than there is room for
        place, side, up = free[0]
        taken.append(place)
        label.set_position((side / point, up))
        if not -15 < up < 10:
            end = (side / point if side > 0 else -BESIDE, up + 3)
            line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5}
            axis.annotate("", (x, y), end, textcoords="offset points", arrowprops=line).set_in_layout(False)


def _inside(box: Any, frame: Any) -> bool:
    return frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1


def scores_chart(scores: Scores) -> str:
    """Draw the scores of layers as bars."""
    figure, (axis,) = new_figure(height=2.4)
    draw_bars(axis, scores.of(), scores.method)
    return as_svg(figure)


def curves_chart(curves: Sequence[Curve], axis_label: str, *, scale: float = 1.0) -> str:
    """Draw values against layers, a line each; what is the paper's is dashed."""
    figure, (axis,) = new_figure(height=3.2 + 0.22 * len(curves))
    for n, curve in enumerate(curves):
        axis.plot(
            range(len(curve.values)),
            [scale * value for value in curve.values],
            color=COLOURS[n % len(COLOURS)],
            marker=MARKERS[(n + n // len(COLOURS)) % len(MARKERS)],
            markersize=4,
            linewidth=1.3,
            linestyle="--" if curve.paper else "-",
            label=label(curve),
        )
    axis.set_xlabel("layers (0: after the embeddings)")
    axis.set_ylabel(axis_label)
    figure.legend(fontsize=8, loc="outside lower center")
    whole_numbers(axis.xaxis)
    return as_svg(figure)
