"""The tables and lines that the commands end in, on standard output."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from depthprune.cli.progress import progress as progress
from depthprune.plan import format_layers

console = Console()
BAR_WIDTH = 50


def bar(fraction: float, width: int = BAR_WIDTH) -> str:
    """Draw a fraction as a bar of text.

    >>> bar(0.5, 4)
    '██░░'
    """
    full = round(min(max(fraction, 0.0), 1.0) * width)
    return "█" * full + "░" * (width - full)


def results_table(title: str, rows: Sequence[dict[str, Any]], primary: str) -> Table:
    """Return the table that compares runs, at most 80 columns wide; the first row is the full model.

    Columns: score (the primary metric) and the share of the full model's that is kept, parameters, weights on disk,
    milliseconds an example, speed-up over the full model timed in turns with it, seconds of training.

    Args:
        title: of the table; the primary metric's name follows it.
        rows: `name`, `dropped` (text) and `result` (a `Result`) each.
        primary: the name of the primary metric.
    """
    from depthprune.experiments.records import retention, speedup_of

    table = Table(
        title=f"{title} (score: {primary}; ms an example)",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    numbers = ("score", "kept", "params", "disk", "ms", "speed", "train")
    for heading in ("model", "dropped"):
        table.add_column(heading, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    full_score = rows[0]["result"].score
    for row in rows:
        result = row["result"]
        profile, heal = result.outcome["profile"], result.outcome["heal"]
        kept = retention(result.score, full_score)
        table.add_row(
            row["name"],
            row["dropped"] or "none",
            f"{100 * result.score:.2f}",
            f"{100 * kept:.1f}%" if kept is not None else "n/a",
            f"{profile['parameters'] / 1e6:.1f}M",
            f"{profile['weight_bytes'] / 1e6:.0f}MB",
            f"{profile['latency_ms']:.2f}" if profile["latency_ms"] is not None else "n/a",
            f"{speedup:.2f}×" if (speedup := speedup_of(profile)) is not None else "n/a",
            f"{heal['seconds']:.0f}s",
        )
    baseline = rows[0]["result"].outcome.get("baseline", {}).get(primary)
    if baseline is not None:
        kept = retention(baseline, full_score)
        cells = (f"{100 * baseline:.2f}", f"{100 * kept:.1f}%" if kept is not None else "n/a")
        table.add_row("largest class", "", *cells, *("",) * 5)
    return table


def lost_line(lost: float, interval: tuple[float, float] | None, examples: int) -> str:
    """Return how much a run lost against the full model and how far that can be told, as a sentence.

    >>> lost_line(0.02, (-0.01, 0.05), 100)
    'lost 2.00 points, 95 % interval -1.00 to 5.00 over 100 rows: too few rows to tell it from nothing'
    >>> lost_line(0.04, (0.01, 0.07), 900)
    'lost 4.00 points, 95 % interval 1.00 to 7.00 over 900 rows'
    """
    said = f"lost {100 * lost:.2f} points"
    if interval is None:
        return said
    low, high = interval
    unclear = ": too few rows to tell it from nothing" if low <= 0 <= high else ""
    return f"{said}, 95 % interval {100 * low:.2f} to {100 * high:.2f} over {examples} rows{unclear}"


def found_table(found: Any) -> Table:
    """Return the best plan that a search found for each number of layers."""
    objective = found.objective["name"]
    table = Table(
        title=f"{found.model['name']}: {found.method} on {objective}, lower is better ({found.trials} plans)",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for heading in ("count", "dropped", objective, "more than full"):
        table.add_column(heading, justify="left" if heading == "dropped" else "right", no_wrap=True)
    table.add_row("0", "none", f"{found.full:.4g}", "")
    for count, (dropped, value) in sorted(found.plans.items()):
        table.add_row(str(count), format_layers(dropped), f"{value:.4g}", f"{value - found.full:+.4g}")
    return table


def score_picture(rows: Sequence[dict[str, Any]]) -> str:
    """Draw the scores as bars, a line a run, from 0 to 100."""
    width = max(len(row["name"]) for row in rows)
    return "\n".join(
        f"{row['name']:<{width}} {bar(row['result'].score)} {100 * row['result'].score:.1f}" for row in rows
    )


def speed_line(speedup: dict[str, float]) -> str:
    """Return a speed-up with its uncertainty, as a sentence.

    >>> speed_line({"value": 1.48, "low": 1.41, "high": 1.55, "batches": 8})
    'speed: 1.48 times the full model (95 % interval 1.41 to 1.55, 8 batches timed in turns)'
    """
    low, high = speedup["low"], speedup["high"]
    return (
        f"speed: {speedup['value']:.2f} times the full model (95 % interval {low:.2f} to {high:.2f}, "
        f"{speedup['batches']} batches timed in turns)"
    )


def metrics_line(metrics: dict[str, dict[str, float]]) -> str:
    """Return every metric with its number of examples, as a sentence.

    >>> metrics_line({"accuracy": {"value": 0.5, "examples": 10}})
    'accuracy 50.00 (10 examples)'
    """
    return ", ".join(f"{name} {100 * m['value']:.2f} ({m['examples']} examples)" for name, m in metrics.items())
