"""Drawings of what models keep of their score: against depth, against speed, and by which layers stay (matplotlib).

They are readable at 400 and at 1,200 pixels, and have a light and a dark scheme. No torch.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from depthprune.reporting.drawings.canvas import LIGHT, MARKERS, Scheme, matplotlib, painted
from depthprune.reporting.kept import Kept, common_strategy, counts_shown

WIDTH = 6.25  # inches: 600 pixels, of which a telephone shows all and a page has room for
HEIGHT = 2.5  # of a panel
LEGEND = 0.28  # of a line of the legend
NEAR = 0.1  # of an axis: two ticks that are nearer would touch
LINE = 10.5  # points between two lines of small text
ROW = 0.235  # of a plan
GAP, FLOOR, FEW = 1.0, 60, 3  # rows between counts; percent; tasks whose shares are written
LINES = ("--", "-", ":", "-.")  # of recipes, in their order
FULL = 100  # %


def depth_panels(some: Sequence[Kept], *, scheme: Scheme = LIGHT) -> Any:
    """Draw the share of the full score against the layers dropped: a panel a task, a line a model and recipe.

    A line shows one strategy, so that it does not choose by the scores that it shows: that of the most points of the
    task, or where a line has none of it, of the line.

    Returns:
        A figure of matplotlib.
    """
    depths = {kept.depth for kept in some}
    whole = depths.pop() if len(depths) == 1 else None

    def place(kept: Kept) -> float:
        return kept.count if whole else FULL * kept.count / kept.depth

    x_label = f"layers dropped, of {whole}" if whole else "layers dropped, %"
    return _panels(some, place, 0, x_label, scheme)


def speed_panels(some: Sequence[Kept], *, scheme: Scheme = LIGHT) -> Any:
    """Draw the share of the full score against the speed-up: the points of `depth_panels` where it is known."""
    return _panels(some, lambda kept: kept.speedup, 1, "times as fast as the full model", scheme)


def lines_of(some: Sequence[Kept], of_all: Sequence[Kept] = ()) -> dict[tuple[str, str], list[Kept]]:
    """Return the lines of a panel, (model, recipe) → what is kept, ascending by count, each of one strategy.

    Args:
        some: of one task.
        of_all: of all tasks; decide between strategies that have as many points of this one.
    """
    strategy = common_strategy(some, of_all)
    lines: dict[tuple[str, str], list[Kept]] = {}
    for kept in sorted(some, key=lambda kept: kept.count):
        lines.setdefault((kept.model, kept.recipe), []).append(kept)
    for key, line in lines.items():
        name = strategy if any(strategy in kept.strategies for kept in line) else common_strategy(line, of_all)
        lines[key] = [kept for kept in line if name in kept.strategies]
    return lines


def _panels(
    some: Sequence[Kept], place: Callable[[Kept], float | None], start: float, x_label: str, scheme: Scheme
) -> Any:
    """Draw a panel for each task.

    Args:
        place: where on the x axis; what has no place is left out.
        start: of the full model.
    """
    models, recipes = (list(dict.fromkeys(getattr(kept, name) for kept in some)) for name in ("model", "recipe"))
    panels = {}
    for task in dict.fromkeys(kept.task for kept in some):
        lines = lines_of([kept for kept in some if kept.task == task], some)
        placed = {key: [(x, kept) for kept in line if (x := place(kept)) is not None] for key, line in lines.items()}
        if drawn := {key: line for key, line in placed.items() if line}:
            panels[task] = drawn
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    shown = {key for lines in panels.values() for key in lines}
    legend = ([(n, name) for n, name in enumerate(models) if any(model == name for model, _ in shown)],
              [(n, name) for n, name in enumerate(recipes) if any(recipe == name for _, recipe in shown)])  # fmt: skip
    with painted(scheme):
        below = LEGEND * -(-sum(map(len, legend)) // 2) if len(panels) == rows * columns else 0
        figure = matplotlib("figure").Figure(figsize=(WIDTH, HEIGHT * rows + below), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
        ends: list[list[tuple[float, str]]] = []
        for n, (axis, (task, lines)) in enumerate(zip(axes, panels.items(), strict=False)):
            ticks = {start: 0} | {x: kept.count for line in lines.values() for x, kept in line}
            styles = {key: _style(models.index(key[0]), recipes.index(key[1]), scheme) for key in lines}
            for key, line in lines.items():
                _draw_line(axis, line, start, styles[key])
            ends.append([(FULL * line[-1][1].share, styles[key]["color"]) for key, line in lines.items()
                         if line[-1][0] == max(ticks)])  # fmt: skip
            _frame(axis, task, scheme, x_label, ticks)
            axis.set_ylabel("of the full score, %" if n % columns == 0 else "")
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        _legend(figure, axes[len(panels) :], *legend, scheme)
        figure.draw_without_rendering()
        for axis, values in zip(axes, ends, strict=False):
            _write_ends(axis, values)
    return figure


def _draw_line(axis: Any, line: Sequence[tuple[float, Kept]], start: float, style: dict[str, Any]) -> None:
    """Draw what is kept at each place, with its spread over seeds, and a line from the full model to the first."""
    xs, shares = [x for x, _ in line], [FULL * kept.share for _, kept in line]
    spread = [FULL * (kept.spread or 0.0) for _, kept in line]
    axis.plot((start, xs[0]), (FULL, shares[0]), **(style | {"marker": ""}))
    axis.errorbar(xs, shares, yerr=spread if any(spread) else None, capsize=3, **style)


def _write_ends(axis: Any, values: Sequence[tuple[float, str]]) -> None:
    """Write where lines end beside the axes, each value in the colour of its line, moved apart where they are near.

    Args:
        values: in percent, with colours.
    """
    points = axis.get_figure().dpi / 72
    heights = sorted((axis.transData.transform((0, value))[1] / points, value, colour) for value, colour in values)
    places = [height for height, _, _ in heights]
    for _ in range(50):  # neighbours push one another away until none touch
        for n in range(len(places) - 1):
            missing = LINE - (places[n + 1] - places[n])
            if missing > 0:
                places[n], places[n + 1] = places[n] - missing / 2, places[n + 1] + missing / 2
    bottom = axis.bbox.y0 / points
    for place, (_, value, colour) in zip(places, heights, strict=True):
        axis.annotate(f"{value:.1f}", (1, 0), (3, place - bottom), xycoords="axes fraction", fontsize=9.5,
                      textcoords="offset points", color=colour, va="center", annotation_clip=False)  # fmt: skip


def _style(model: int, recipe: int, scheme: Scheme) -> dict[str, Any]:
    """Return how a line looks: its colour says the model, its dashes and marker the recipe."""
    colour = scheme.colours[model % len(scheme.colours)]
    filled = LINES[recipe % len(LINES)] == "-"
    return {
        "color": colour,
        "linestyle": LINES[recipe % len(LINES)],
        "marker": MARKERS[recipe % len(MARKERS)],
        "markerfacecolor": colour if filled else scheme.paper,
        "markersize": 6,
        "linewidth": 2.0 if filled else 1.4,
    }


def _frame(axis: Any, title: str, scheme: Scheme, x_label: str, ticks: Mapping[float, int]) -> None:
    """Draw what is around the lines.

    Args:
        ticks: the places on the x axis, with the number of layers that are dropped there.
    """
    axis.set_title(title, loc="left", fontweight="bold")
    axis.set_xlabel(x_label)
    axis.spines[["top", "right"]].set_visible(False)
    axis.axhline(FULL, color=scheme.ink, linewidth=0.8)
    axis.grid(axis="y", linewidth=0.6)
    axis.set_axisbelow(True)
    places = sorted(ticks)
    if all(b - a >= NEAR * (places[-1] - places[0]) for a, b in pairwise(places)):
        same = all(place == ticks[place] for place in places)
        axis.set_xticks(places, [str(ticks[p]) if same else _tick(p, ticks[p], min(places)) for p in places])
    axis.margins(x=0.05, y=0.12)


def _tick(place: float, count: int, start: float) -> str:
    """Write a share in percent, or a speed-up with the number of layers dropped that brings it."""
    return f"{place:.0f}" if start == 0 else f"{place:.2f}×\nK = {count}" if count else "1×\nfull"


def _legend(
    figure: Any,
    free: Sequence[Any],
    models: Sequence[tuple[int, str]],
    recipes: Sequence[tuple[int, str]],
    scheme: Scheme,
) -> None:
    """Say which colour is which model and which line which recipe, in the free cell if there is one, else below."""
    line = matplotlib("lines").Line2D
    handles = [
        line([], [], color=scheme.colours[n % len(scheme.colours)], linewidth=4, label=textwrap.fill(model, 34))
        for n, model in models
    ]
    for n, recipe in recipes:
        style = _style(0, n, scheme) | {"color": scheme.ink}
        if style["markerfacecolor"] != scheme.paper:
            style["markerfacecolor"] = scheme.ink
        handles.append(line([], [], label=textwrap.fill(recipe, 34), **style))
    look = {"handles": handles, "frameon": False, "fontsize": 10.5, "handlelength": 2.6}
    if free:
        free[0].legend(loc="center", **look)
    else:
        figure.legend(loc="outside lower center", ncols=2, **look)


def layers_panel(some: Sequence[Kept], *, scheme: Scheme = LIGHT) -> Any:
    """Draw which layers each strategy keeps, and beside them what that keeps of the score, a mark a task.

    Shares below `FLOOR` are at the edge, as arrows.

    Args:
        some: of one model and recipe.

    Returns:
        A figure of matplotlib.
    """
    counts = counts_shown(some)
    tasks = list(dict.fromkeys(kept.task for kept in some))
    plans: dict[tuple[int, tuple[int, ...]], list[Kept]] = {}
    for kept in some:
        if kept.count in counts:
            plans.setdefault((kept.count, kept.dropped), []).append(kept)
    ordered = sorted(plans, key=lambda plan: (plan[0], -sum(k.share for k in plans[plan]) / len(plans[plan])))
    places = [n + GAP * (1 + counts.index(count)) for n, (count, _) in enumerate(ordered)]
    with painted(scheme):
        figure = matplotlib("figure").Figure(figsize=(WIDTH, ROW * places[-1] + 1.3), layout="constrained")
        squares, shares = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.1))
        for at, (count, dropped) in zip(places, ordered, strict=True):
            here = plans[count, dropped]
            _squares(squares, at, here[0].depth, dropped, scheme)
            shares.axhline(at, color=scheme.faint, linewidth=0.6, zorder=0)
            for kept in here:
                _mark(shares, at, kept, tasks.index(kept.task), len(tasks), scheme)
        for count in counts:
            first = places[[c for c, _ in ordered].index(count)]
            squares.text(-0.9, first - 0.95, f"{count} dropped", ha="right", va="center", fontweight="bold")
        names = [" and ".join(dict.fromkeys(n for kept in plans[plan] for n in kept.strategies)) for plan in ordered]
        squares.set_yticks(places, [textwrap.shorten(name, 26, placeholder=" …") for name in names])
        squares.set(xlim=(-0.6, some[0].depth - 0.4), ylim=(places[-1] + 0.8, places[0] - 1.4))
        squares.set_xlabel("layers, input on the left")
        squares.set_xticks(range(0, some[0].depth, max(1, (some[0].depth - 1) // 4)))
        shares.axvline(FULL, color=scheme.ink, linewidth=0.8)
        shares.set_xlabel("of the full score, %")
        shares.set_xlim(FLOOR - 2, None)
        for axis in (squares, shares):
            axis.spines[["top", "right", "left"]].set_visible(False)
            axis.tick_params(axis="y", length=0)
        handles = [matplotlib("lines").Line2D([], [], linestyle="", label=task, **_dot(n, scheme))
                   for n, task in enumerate(tasks)]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper right", ncols=min(len(tasks), 3), frameon=False,
                      fontsize=10.5, handletextpad=0.2)  # fmt: skip
    return figure


def _squares(axis: Any, at: float, depth: int, dropped: Sequence[int], scheme: Scheme) -> None:
    """Draw the layers of a plan as a row of squares: full ones stay."""
    for layer in range(depth):
        gone = layer in dropped
        face, edge = (scheme.paper, scheme.faint) if gone else (scheme.colours[6], scheme.colours[6])
        square = ((layer - 0.38, at - 0.36), 0.76, 0.72)
        axis.add_patch(matplotlib("patches").Rectangle(*square, facecolor=face, edgecolor=edge, linewidth=0.8))


def _dot(task: int, scheme: Scheme) -> dict[str, Any]:
    return {"color": scheme.colours[task % len(scheme.colours)], "marker": MARKERS[task % len(MARKERS)]}


def _mark(axis: Any, at: float, kept: Kept, task: int, tasks: int, scheme: Scheme) -> None:
    """Draw a share with its spread over seeds and, for a few tasks, write it at the end of the row."""
    share, look = FULL * kept.share, _dot(task, scheme)
    spread = FULL * kept.spread if kept.spread and share > FLOOR else None
    if share < FLOOR:
        look["marker"] = "<"
    axis.errorbar(max(share, FLOOR), at, xerr=spread, linestyle="", markersize=7, capsize=2, alpha=0.9, **look)
    if tasks <= FEW:
        axis.annotate(f"{share:.1f}", (1, at), (32 + 34 * task, 0), xycoords=("axes fraction", "data"), ha="right",
                      textcoords="offset points", va="center", fontsize=10, color=look["color"])  # fmt: skip
