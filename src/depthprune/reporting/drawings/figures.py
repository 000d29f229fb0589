"""Pictures of scores and searches, as SVG or PNG (matplotlib).

In a file: text stays text, and the same numbers give the same file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from depthprune.errors import OutputError
from depthprune.optional import require
from depthprune.scores.base import LayerScores, Scores
from depthprune.strategies.search_result import SearchResult

FORMATS = (".svg", ".png")
BLUE, RED, GREY = "#1f6fb4", "#c0392b", "#b5bcc4"


def check_figure(path: Path) -> None:
    """Refuse a file that no picture can be written to, before anything is computed.

    Raises:
        OutputError: its ending is not one of a picture, or its folder does not exist.
        UserError: matplotlib is not installed.
    """
    if path.suffix not in FORMATS:
        raise OutputError(f"'{path}' is no picture this writes; end it in {' or '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise OutputError(f"there is no folder '{path.parent}' for the picture; make it first")
    require("matplotlib", extra="report", purpose="drawing a picture")


def draw_scores(scores: Scores, path: Path, *, method: str | None = None) -> None:
    """Draw the scores of the layers as bars and, where there are windows, the triangle of start × length.

    Args:
        path: `.svg` or `.png`.
        method: which method of the file; the one it was made for by default.
    """
    name = method or scores.method
    chosen = scores.of(name)
    figure, axes = _figure(2 if chosen.windows else 1, width=max(5.0, 0.32 * scores.depth + 2))
    _bars(axes[0], chosen, name)
    where = f"{scores.model['name']}, stack '{scores.stack}'" if scores.stack != "layers" else scores.model["name"]
    figure.suptitle(f"{where}: {name}, {scores.calibration['samples']} samples", fontsize=11)
    if chosen.windows:
        _triangle(figure, axes[1], chosen.windows, name)
    _save(figure, path)


def _bars(axis: Any, scores: LayerScores, name: str) -> None:
    least = min(range(len(scores.layers)), key=scores.layers.__getitem__)
    colours = [RED if i == least else BLUE for i in range(len(scores.layers))]
    axis.bar(range(len(scores.layers)), scores.layers, color=colours)
    axis.set_xlabel("layer (0 is nearest the input)")
    axis.set_ylabel(f"{name} (higher: keep)")
    _whole_numbers(axis.xaxis)


def _triangle(figure: Any, axis: Any, windows: Mapping[int, Sequence[float]], name: str) -> None:
    depth = max(windows)
    grid = [[windows[n][start] if start <= depth - n else float("nan") for start in range(depth)] for n in windows]
    image = axis.imshow(
        grid, origin="lower", aspect="auto", cmap="viridis", extent=(-0.5, depth - 0.5, 0.5, depth + 0.5)
    )
    for n, row in windows.items():
        best = min(range(len(row)), key=lambda start: (row[start], -start))
        axis.plot(best, n, marker="o", markersize=4, color="white", markeredgecolor="black", markeredgewidth=0.6)
    axis.set_xlabel("first layer of the window")
    axis.set_ylabel("layers in the window")
    axis.set_title("windows; the dot is the best of each length", fontsize=9)
    _whole_numbers(axis.xaxis)
    _whole_numbers(axis.yaxis)
    figure.colorbar(image, ax=axis, label=name)


def draw_search(found: SearchResult, trace: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw every plan that a search evaluated: its value against the number of layers dropped, the best joined up."""
    figure, (axis,) = _figure(1)
    # A plan may stand in several entries, each with more of the data; the last says most.
    last = {tuple(entry["dropped"]): entry for entry in trace}
    for whole, colour, label in ((True, GREY, "evaluated"), (False, "#f0c36d", "given up early")):
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
    _whole_numbers(axis.xaxis)
    figure.suptitle(f"{found.model['name']}: {found.method}, {found.trials} plans", fontsize=11)
    _save(figure, path)


def _figure(columns: int, width: float = 5.0) -> tuple[Any, Any]:
    figures = require("matplotlib.figure", extra="report", purpose="drawing a picture")
    figure = figures.Figure(figsize=(width * columns, 3.6), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _whole_numbers(axis: Any) -> None:
    ticker = require("matplotlib.ticker", extra="report", purpose="drawing a picture")
    axis.set_major_locator(ticker.MaxNLocator(integer=True))


def _save(figure: Any, path: Path) -> None:
    matplotlib = require("matplotlib", extra="report", purpose="drawing a picture")
    metadata = {"Date": None} if path.suffix == ".svg" else None
    try:
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "depthprune"}):
            figure.savefig(path, dpi=150, metadata=metadata)
    except OSError as error:
        raise OutputError(f"the picture '{path}' cannot be written ({error.strerror}); give another place") from None
