"""Scores as text: bars, and the triangle of windows in shades."""

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from depthprune.cli.display import bar
from depthprune.plan import format_layers
from depthprune.scores.base import LayerScores, Scores

BAR = 40
COLOURS = ("#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725")  # viridis, dark is low
SHADES = "·░▒▓█"


def scores_table(scores: Scores) -> Table:
    """Return the scores of every method in the file, one layer per row."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")
    table.title = f"{scores.model['name']} ({scores.model['weights']}): higher means keep"
    table.add_column("layer", justify="right")
    names = sorted(scores.by_method, key=lambda name: (name != scores.method, name))
    for name in names:
        table.add_column(name, justify="right")
    lowest = {name: min(scores.of(name).layers) for name in names}
    for i in range(scores.depth):
        cells = [(scores.of(name).layers[i], lowest[name]) for name in names]
        table.add_row(str(i), *(Text(f"{value:.4g}", style="bold red" if value == low else "") for value, low in cells))
    return table


def windows_table(name: str, scores: LayerScores) -> Table:
    """Return the best window of each length."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("consecutive layers", "best window", name):
        table.add_column(heading, justify="right")
    for n, values in scores.windows.items():
        if n < len(scores.layers):
            start = scores.best_window(n)
            table.add_row(str(n), format_layers(range(start, start + n)), f"{values[start]:.4g}")
    return table


def bars_picture(name: str, scores: LayerScores) -> str:
    """Draw the scores as bars, one line per layer, from 0 to the highest."""
    top = max(max(scores.layers), 0.0) or 1.0
    width = len(str(len(scores.layers) - 1))
    lines = [f"{i:>{width}} {bar(value / top, BAR)} {value:.4g}" for i, value in enumerate(scores.layers)]
    return "\n".join([f"{name}, layer 0 first", *lines])


def triangle_picture(scores: LayerScores, *, colours: bool) -> Text:
    """Draw the score of every window: longer windows higher up, one column per first layer; the lowest is marked.

    Args:
        colours: paint cells; else shades of text, dark for low.
    """
    windows = scores.windows
    values = [value for row in windows.values() for value in row]
    low, span = min(values), (max(values) - min(values)) or 1.0
    picture = Text("windows: number of layers upwards, first layer to the right; ◆ the lowest of each length\n")
    for n in sorted(windows, reverse=True):
        best = scores.best_window(n)
        picture.append(f"{n:>3} ")
        for start, value in enumerate(windows[n]):
            share = (value - low) / span
            if colours:
                colour = COLOURS[min(int(share * len(COLOURS)), len(COLOURS) - 1)]
                picture.append("◆ " if start == best else "  ", style=f"white on {colour}")
            else:
                picture.append(("◆" if start == best else SHADES[min(int(share * 5), 4)]) + " ")
        picture.append("\n")
    picture.append("    " + "".join(f"{start:<2}" if start % 5 == 0 else "  " for start in range(max(windows))))
    return picture
