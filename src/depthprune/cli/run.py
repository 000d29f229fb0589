"""`depthprune run`: drop, fine-tune, score beside the full model, save."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from depthprune.cli import options
from depthprune.cli.options import quiet_libraries
from depthprune.plan import format_layers
from depthprune.specs import EvalSpec, Execution, HealSpec, RunSpec
from depthprune.tasks import TaskOptions


def run(
    model: options.Model,
    task: options.TaskName,
    strategy: options.Strategy = None,
    count: options.Count = None,
    layers: options.Layers = None,
    keep: options.Keep = None,
    threshold: options.Threshold = None,
    protect: options.Protect = None,
    depths: options.Depths = None,
    data: options.TaskFields = TaskOptions(),
    seed: options.Seed = RunSpec.seed,
    max_length: options.MaxLength = EvalSpec.max_length,
    heal: options.HealFields = HealSpec(),
    output: options.Output = None,
    store: options.StoreFolder = Path("runs"),
    force: options.Force = False,
    no_profile: options.NoProfile = False,
    execution: options.ExecutionFields = Execution(),
    quiet: options.Quiet = False,
    device: options.Device = "auto",
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Drop layers, fine-tune what is left, score it beside the full model, save it.

    Both runs are recorded in the store, and a recorded run is not run again. Under torchrun the processes share the
    training, and the first one records. With --depths one training serves several depths, each a checkpoint.
    """
    how: dict[str, Any] = {"strategy": strategy, "protect": protect, "options": data, "teacher": heal.teacher or None}
    how |= {"heal": replace(heal, teacher="")}  # a spec has the content of a teacher
    how |= {"max_length": max_length, "seed": seed, "store": store, "device": device, "force": force}
    how |= {"profile": not no_profile, "execution": execution}
    how |= {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
    chosen = {"count": count, "layers": layers, "keep": keep, "threshold": threshold}
    if depths is not None:
        from depthprune.cli.depths import run_depths

        beside = [f"--{name}" for name, value in chosen.items() if value is not None]
        run_depths(model, task, depths, beside=beside, quiet=quiet, output=output, **how)
        return
    if output is not None:
        from depthprune.output import check_target

        check_target(output)

    from depthprune import processes
    from depthprune.cli.progress import progress

    with progress(quiet=quiet) as show:
        show("starting", 0, 1)  # torch and transformers take seconds to import
        quiet_libraries()
        from depthprune.experiments.comparison import compare

        result = compare(model, task, **chosen, **how, on_progress=show)
    if processes.is_first():
        _say(result, f"{model} on {task}", strategy or "chosen", store, output)
    processes.end()


def _say(result, title: str, chosen: str, store: Path, output: Path | None) -> None:
    """Print both runs beside each other, and where they are recorded; move the checkpoint if asked for."""
    from depthprune.cli.display import console, lost_line, metrics_line, results_table, speed_line
    from depthprune.evaluation.measurement import measurements_of
    from depthprune.experiments.resampling import lost_interval

    for note in dict.fromkeys([*result.full.outcome["notes"], *result.pruned.outcome["notes"]]):
        console.print(note, highlight=False)
    rows = [{"name": "full", "dropped": "", "result": result.full}]
    dropped = result.pruned.outcome["plan"]["dropped"]
    if dropped:
        rows.append({"name": chosen, "dropped": format_layers(dropped), "result": result.pruned})
    console.print(results_table(title, rows, result.full.outcome["primary"]))
    for row in rows:
        state = "stored before" if row["result"].stored else "done now"
        console.print(f"{row['name']}: {metrics_line(measurements_of(row['result'].outcome))}", highlight=False)
        console.print(
            f"  record: {store / row['result'].digest / 'record.json'} ({state})",
            highlight=False,
            soft_wrap=True,
        )
    if dropped:
        primary = result.full.outcome["primary"]
        full, pruned = (store / run.digest for run in (result.full, result.pruned))
        interval = lost_interval(full, pruned, primary)
        line = lost_line(result.pruned.measured, result.full.measured, primary, interval)
        console.print(line, highlight=False, soft_wrap=True)
    if "speedup" in (profile := result.pruned.outcome["profile"]):
        console.print(speed_line(profile["speedup"]), highlight=False)
    assert result.pruned.model is not None
    checkpoint = result.pruned.model
    if output is not None:
        from depthprune.experiments.store.kept_checkpoints import hand_over
        from depthprune.experiments.store.store import Store

        checkpoint = hand_over(Store(store), result.pruned.digest, output)
    console.print(f"checkpoint: {checkpoint}", highlight=False, soft_wrap=True)
