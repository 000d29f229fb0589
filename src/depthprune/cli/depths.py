"""`depthprune run --depths`: one training, several depths."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.cli.options import quiet_libraries

if TYPE_CHECKING:
    from depthprune.experiments.depths.curve import DepthCurve


def run_depths(model: str, task: str, depths: str, *, beside: list[str], quiet: bool, store: Path, **how: Any) -> None:
    """Train once, score every depth beside the full model, and say where the checkpoints are.

    Args:
        beside: options that were given and exclude --depths.
        how: what `depthprune.train_once` takes.

    Raises:
        UserError: options exclude each other; see also `train_once`.
    """
    from depthprune.errors import UserError

    if beside:
        raise UserError(f"--depths and {beside[0]} exclude each other: a depth is how many layers are left; give one")
    from depthprune.cli.progress import progress
    from depthprune.experiments.depths.recipe import read_depths, training_recipe

    read_depths(depths)  # before torch is imported
    training_recipe(how["heal"])
    with progress(quiet=quiet) as show:
        show("starting", 0, 1)  # torch and transformers take seconds to import
        quiet_libraries()
        from depthprune.experiments.depths.curve import train_once

        curve = train_once(model, task, depths, store=store, on_progress=show, **how)
    _say(curve, f"{model} on {task}, one training for all depths")


def _say(curve: "DepthCurve", title: str) -> None:
    """Print the full model and every depth beside each other, and where their checkpoints are."""
    from depthprune.cli.display import console, results_table
    from depthprune.plan import format_layers

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    results = [curve.full, *curve.runs.values()]
    for note in dict.fromkeys(note for result in results for note in result.outcome["notes"]):
        line(note)
    rows: list[dict[str, Any]] = [{"name": "full", "dropped": "", "result": curve.full}]
    for depth, result in curve.runs.items():
        dropped = format_layers(result.outcome["plan"]["dropped"])
        rows.append({"name": f"depth {depth}", "dropped": dropped, "result": result})
    console.print(results_table(title, rows, curve.full.outcome["primary"]))
    for depth, result in curve.runs.items():
        state = "stored before" if result.stored else "done now"
        line(f"depth {depth}: run {result.digest} ({state}); checkpoint: {result.model}")
