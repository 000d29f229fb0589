"""Pictures of scores and searches, as SVG or PNG files: what `--figure` of `score` and `search` writes. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from depthprune.reporting.drawings.canvas import (
    AMBER,
    BLUE,
    GREY,
    RED,
    draw_bars,
    new_figure,
    save_figure,
    whole_numbers,
)
from depthprune.scores.base import LayerScores, Scores
from depthprune.strategies.search_result import SearchResult


def draw_scores(scores: Scores, path: Path, *, method: str | None = None) -> None:
    """Draw the scores of the layers as bars and, where there are windows, the triangle of start × length.

    Args:
        path: `.svg` or `.png`.
        method: which method of the file; the one it was made for by default.
    """
    name = method or scores.method
    chosen = scores.of(name)
    figure, axes = new_figure(2 if chosen.windows else 1, width=max(5.0, 0.32 * scores.depth + 2))
    draw_bars(axes[0], chosen, name)
    where = f"{scores.model['name']}, stack '{scores.stack}'" if scores.stack != "layers" else scores.model["name"]
    figure.suptitle(f"{where}: {name}, {scores.calibration['samples']} samples", fontsize=11)
    if chosen.windows:
        _triangle(figure, axes[1], chosen, name)
    save_figure(figure, path)


def _triangle(figure: Any, axis: Any, scores: LayerScores, name: str) -> None:
    windows, depth = scores.windows, max(scores.windows)
    grid = [[windows[n][start] if start <= depth - n else float("nan") for start in range(depth)] for n in windows]
    image = axis.imshow(
        grid, origin="lower", aspect="auto", cmap="viridis", extent=(-0.5, depth - 0.5, 0.5, depth + 0.5)
    )
    dot = {"marker": "o", "markersize": 4, "color": "white", "markeredgecolor": "black", "markeredgewidth": 0.6}
    for n in windows:
        axis.plot(scores.best_window(n), n, **dot)
    axis.set_xlabel("first layer of the window")
    axis.set_ylabel("layers in the window")
    axis.set_title("windows; the dot is the best of each length", fontsize=9)
    whole_numbers(axis.xaxis, axis.yaxis)
    figure.colorbar(image, ax=axis, label=name)


def draw_search(found: SearchResult, trace: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw every plan that a search evaluated: its value against the number of layers dropped, the best joined up."""
    figure, (axis,) = new_figure(width=5.0)
    # A plan may stand in several entries, each with more of the data; the last says most.
    last = {tuple(entry["dropped"]): entry for entry in trace}
    for whole, colour, label in ((True, GREY, "evaluated"), (False, AMBER, "given up early")):
        points = [(len(plan), entry["value"]) for plan, entry in last.items() if (entry["fraction"] == 1) == whole]
        if points:
            axis.scatter(*zip(*points, strict=True), s=14, color=colour, label=label)
    best = sorted((count, value) for count, (_, value) in found.plans.items())
    axis.plot(*zip(*best, strict=True), marker="o", color=BLUE, label="best found")
    axis.axhline(found.full, color=RED, linewidth=1, linestyle="--", label="full model")
    axis.set_xlabel("layers dropped")
    axis.set_ylabel(
        f"{found.objective['name']} ({found.objective['unit']})" if found.objective["unit"] else found.objective["name"]
    )
    axis.legend(fontsize=8)
    whole_numbers(axis.xaxis)
    figure.suptitle(f"{found.model['name']}: {found.method}, {found.trials} plans", fontsize=11)
    save_figure(figure, path)
