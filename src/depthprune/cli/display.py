"""The tables and lines that the commands end in, on standard output."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from depthprune.cli.progress import progress as progress
from depthprune.plan import format_layers

if TYPE_CHECKING:
    from depthprune.evaluation.measurement import Measurement

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

    Columns: score (the primary metric) and the share of the full model's that is kept, or how many times the full
    model's it is where lower is better; parameters, weights on disk, milliseconds an example, speed-up over the full
    model timed in turns with it, seconds of training.

    Args:
        title: of the table; the primary metric's name follows it.
        rows: `name`, `dropped` (text) and `result` (a `Result`) each.
        primary: the name of the primary metric.
    """
    from depthprune.experiments.store.records import speedup_of
    from depthprune.tasks.metrics.base import LOWER

    full = rows[0]["result"].measured
    direction = ", lower is better" if full.better == LOWER else ""
    table = Table(
        title=f"{title} (score: {primary}{direction}; ms an example)",
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
    for row in rows:
        result = row["result"]
        profile, heal = result.outcome["profile"], result.outcome["heal"]
        table.add_row(
            row["name"],
            row["dropped"] or "none",
            *_score_cells(result.measured, full),
            f"{profile['parameters'] / 1e6:.1f}M",
            f"{profile['weight_bytes'] / 1e6:.0f}MB",
            f"{profile['latency_ms']:.2f}" if profile["latency_ms"] is not None else "n/a",
            f"{speedup:.2f}×" if (speedup := speedup_of(profile)) is not None else "n/a",
            f"{heal['seconds']:.0f}s",
        )
    baseline = rows[0]["result"].outcome.get("baseline", {}).get(primary)
    if baseline is not None:
        table.add_row("largest class", "", *_score_cells(replace(full, value=baseline), full), *("",) * 5)
    return table


def _score_cells(measured: "Measurement", full: "Measurement") -> tuple[str, str]:
    return measured.shown(), (measured.compared(full) or "n/a").replace(" ", "")


def lost_line(
    pruned: "Measurement", full: "Measurement", primary: str, interval: tuple[float, float] | None = None
) -> str:
    """Return how much a run lost against the full model and how far that can be told, as a sentence.

    Args:
        interval: of the loss, in the unit of the values.

    >>> from depthprune.evaluation.measurement import Measurement
    >>> lost_line(Measurement(0.78, 100), Measurement(0.80), "accuracy", (-0.01, 0.05))
    'lost 2.00 points, 95 % interval -1.00 to 5.00 over 100 rows: too few rows to tell it from nothing'
    >>> lost_line(Measurement(5.28, 9, "", "lower"), Measurement(4.0, 9, "", "lower"), "perplexity")
    "1.32 × the full model's perplexity: lost 1.28"
    """
    from depthprune.tasks.metrics.base import LOWER

    said = f"lost {pruned.amount(pruned.lost(full))}"
    if pruned.better == LOWER and (ratio := pruned.compared(full)) is not None:
        said = f"{ratio} the full model's {primary}: {said}"
    if interval is None:
        return said
    low, high = (f"{pruned.scale * end:.2f}" for end in interval)
    unclear = ": too few rows to tell it from nothing" if interval[0] <= 0 <= interval[1] else ""
    return f"{said}, 95 % interval {low} to {high} over {pruned.examples} rows{unclear}"


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


def metrics_line(metrics: "Mapping[str, Measurement]") -> str:
    """Return every metric with its number of examples, as a sentence.

    >>> from depthprune.evaluation.measurement import Measurement
    >>> metrics_line({"accuracy": Measurement(0.5, 10), "perplexity": Measurement(5.3, 9, "", "lower", 0.25)})
    'accuracy 50.00 (10 examples), perplexity 5.30 (9 examples, standard error 0.25)'
    """
    said = []
    for name, each in metrics.items():
        error = each.standard_error
        sure = f", standard error {each.scale * error:.2g}" if error is not None else ""
        said.append(f"{name} {each.shown()} ({each.examples} examples{sure})")
    return ", ".join(said)
