"""What all drawings are made on: a figure with its axes, the colours, and how it becomes SVG or a file (matplotlib).

Text stays text, and the same numbers give the same bytes. No torch.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthprune.errors import OutputError
from depthprune.optional import require
from depthprune.scores.base import LayerScores

FORMATS = (".svg", ".png")
# Okabe and Ito's palette, which those who see fewer colours can tell apart, with markers for those who see none.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b6673", "#b3372b")
BLUE, AMBER, GREY, RED = COLOURS[0], COLOURS[4], COLOURS[6], COLOURS[7]
MARKERS = "osD^vP*X"


@dataclass(frozen=True)
class Scheme:
    """The colours of a drawing: of text, background and what is faint, and those that tell things apart."""

    ink: str
    paper: str
    faint: str
    colours: tuple[str, ...]


LIGHT = Scheme("#1d2430", "#ffffff", "#d0d7de", COLOURS)
DARK = Scheme(
    "#e6edf3", "#0d1117", "#3d444d",
    ("#58a9e8", "#ff9248", "#3fcf9f", "#e6a3cc", "#f0b429", "#9bdcff", "#a9b4c0", "#ff8577"),
)  # fmt: skip
SCHEMES = {"light": LIGHT, "dark": DARK}


def matplotlib(module: str = "") -> Any:
    """Return matplotlib, or a module of it.

    Raises:
        UserError: it is not installed.
    """
    return require(f"matplotlib{module and '.'}{module}", extra="report", purpose="a drawing")


def check_figure(path: Path) -> None:
    """Refuse a file that no picture can be written to, before anything is computed.

    Raises:
        OutputError: its ending is not one of a picture, or its folder does not exist.
        UserError: matplotlib is not installed.
    """
    if path.suffix not in FORMATS:
        raise OutputError(f"'{path}' is not a supported picture format; end it in {' or '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise OutputError(f"there is no folder '{path.parent}' for the picture; create it first")
    matplotlib()


def new_figure(columns: int = 1, *, width: float = 5.4, height: float = 3.6) -> tuple[Any, Any]:
    """Return a figure and its axes, side by side, each `width` × `height` inches."""
    figure = matplotlib("figure").Figure(figsize=(width * columns, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def whole_numbers(*axes: Any) -> None:
    """Mark whole numbers only, on each of the given x or y axes."""
    for axis in axes:
        axis.set_major_locator(matplotlib("ticker").MaxNLocator(integer=True))


def draw_bars(axis: Any, scores: LayerScores, name: str) -> None:
    """Draw the scores of layers as bars, the lowest in red."""
    lowest = min(range(len(scores.layers)), key=scores.layers.__getitem__)
    colours = [RED if i == lowest else BLUE for i in range(len(scores.layers))]
    axis.bar(range(len(scores.layers)), scores.layers, color=colours)
    axis.set_xlabel("layer (0 is nearest the input)")
    axis.set_ylabel(f"{name} (higher: keep)")
    whole_numbers(axis.xaxis)


def as_svg(figure: Any) -> str:
    """Return a figure as an SVG element, to stand in a page."""
    out = io.StringIO()
    with _plain():
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def save_figure(figure: Any, path: Path, *, words: str = "") -> None:
    """Write a figure to a file.

    Args:
        words: what it shows, for those who cannot see it; an SVG file holds them as its description.

    Raises:
        OutputError: it cannot be written.
    """
    svg = path.suffix == ".svg"
    try:
        with _plain():
            figure.savefig(path, dpi=150, metadata={"Date": None, "Description": words or None} if svg else None)
    except OSError as error:
        raise OutputError(f"the picture '{path}' cannot be written ({error.strerror}); give another place") from None


@contextmanager
def _plain() -> Iterator[None]:
    with matplotlib().rc_context({"svg.fonttype": "none", "svg.hashsalt": "depthprune"}):
        yield


@contextmanager
def painted(scheme: Scheme) -> Iterator[None]:
    """Give figures that are made meanwhile the colours of a scheme, and text that can be read at half their size."""
    ink, paper = scheme.ink, scheme.paper
    colours = dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), ink)
    colours |= {"axes.edgecolor": ink, "grid.color": scheme.faint}
    colours |= {"figure.facecolor": paper, "axes.facecolor": paper}
    with matplotlib().rc_context(colours | {"font.size": 11, "axes.titlesize": 11.5, "axes.labelsize": 11}):
        yield
