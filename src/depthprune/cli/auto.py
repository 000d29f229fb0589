"""`depthprune auto`: the smallest model within a bound."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthprune.cli import options
from depthprune.specs import EvalSpec, Execution, HealSpec, RunSpec
from depthprune.tasks import TaskOptions

if TYPE_CHECKING:
    from depthprune.evaluation.measurement import Measurement

MaxLoss = Annotated[
    str | None, typer.Option("--max-loss", help="Below the full model: 1.0 is a point, 1% a share of its score.")
]
MaxParameters = Annotated[str | None, typer.Option("--max-parameters", help="Of the model: 80M.")]
MaxLatency = Annotated[float | None, typer.Option("--max-latency-ms", help="Of an example, on this machine.")]
Speedup = Annotated[float | None, typer.Option("--speedup", help="Times as fast as the full model.")]
Budget = Annotated[
    int | None, typer.Option("--budget", help="Try so many plans, where they tell most; a lower bound then.", min=1)
]
Strategies = Annotated[
    list[str] | None,
    typer.Option("--strategy", help="How to choose layers; greedy and contribution if left out. Can be given again."),
]
Report = Annotated[Path | None, typer.Option("--report", help="Where to write the report (HTML).", show_default=False)]
Workers = Annotated[int | None, typer.Option("--workers", help="Runs at a time; by cores or GPUs if left out.", min=1)]


def auto(
    model: options.Model,
    task: options.TaskName,
    output: options.Output = None,
    max_loss: MaxLoss = None,
    max_parameters: MaxParameters = None,
    max_latency_ms: MaxLatency = None,
    speedup: Speedup = None,
    budget: Budget = None,
    strategy: Strategies = None,
    report: Report = None,
    data: options.TaskFields = TaskOptions(),
    heal: options.HealFields = HealSpec(),
    max_length: options.MaxLength = EvalSpec.max_length,
    seed: options.Seed = RunSpec.seed,
    store: options.StoreFolder = Path("runs"),
    workers: Workers = None,
    no_profile: options.NoProfile = False,
    execution: options.ExecutionFields = Execution(),
    quiet: options.Quiet = False,
    device: options.Device = "auto",
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Find the smallest model within a bound: layers are chosen, dropped, and what is left is fine-tuned and scored.

    Every number of layers is tried. Ends with the layers that go, what that costs and saves, and the checkpoint.
    """
    from depthprune.experiments.sweeps.auto import STRATEGIES, find, plans_for, resources, sure_runs
    from depthprune.experiments.sweeps.bounds import make_bounds
    from depthprune.output import check_target
    from depthprune.reporting.written import check_page

    bounds = make_bounds(max_loss, max_parameters, max_latency_ms, speedup, timed=not no_profile)
    if output is not None:
        check_target(output)
    if report is not None:
        check_page(report)
    options.quiet_libraries()
    from depthprune.cli.display import console, progress
    from depthprune.cli.live import Live, expansion_lines
    from depthprune.cli.progress import messages
    from depthprune.experiments.store.store import Store
    from depthprune.experiments.sweeps.rows import estimate

    runs, shared = Store(store), resources(workers, device)
    with progress(quiet=quiet) as show:
        expansion = plans_for(
            *(model, task),
            strategies=strategy or STRATEGIES,
            options=data,
            heal=replace(heal, teacher=""),  # of which a spec has the content
            teacher=heal.teacher or None,
            max_length=max_length,
            seed=seed,
            store=runs,
            device=device,
            allow_pickle=allow_pickle,
            trust_remote_code=trust_remote_code,
            on_progress=show,
        )
    for line in () if quiet else expansion_lines(expansion, runs, estimate(expansion, runs), shared):
        messages.print(line, highlight=False, markup=False)
    sure, todo = sure_runs(expansion, runs)
    total = len(sure) + (len(todo) if budget is None else min(budget, len(todo)))
    how: dict[str, Any] = {"budget": budget, "resources": shared, "device": device, "profile": not no_profile}
    how |= {"execution": execution}
    if quiet:
        answer = find(expansion, runs, bounds, **how)
    else:
        with Live(expansion, runs, total=total) as live:
            answer = find(expansion, runs, bounds, on_end=live.ended, **how)
    if report is not None:
        _write_report(report, store, answer)
    checkpoint = answer.checkpoint
    if output is not None and answer.digest is not None and checkpoint is not None:
        from depthprune.experiments.store.kept_checkpoints import hand_over

        checkpoint = hand_over(runs, answer.digest, output)
    for line in answer_lines(answer, expansion, checkpoint):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if report is not None:
        console.print(f"report: {report}", highlight=False, markup=False, soft_wrap=True)


def _write_report(file: Path, store: Path, answer: Any) -> None:
    from depthprune.reporting.page import page
    from depthprune.reporting.results import read_results
    from depthprune.result_file import write_text

    write_text(file, page(read_results(store), store, chosen=answer.digest))


def answer_lines(answer: Any, expansion: Any, checkpoint: Path | None) -> Iterator[str]:
    """Say what was found: layers, score with its interval, size, speed, and where the checkpoint is.

    Raises:
        UserError: if no model is within the bounds.
    """
    from depthprune.errors import UserError
    from depthprune.experiments.store.records import speedup_of
    from depthprune.plan import format_layers

    cuts = [record for record in answer.tried.values() if record["spec"]["drop"]["dropped"]]
    counts = format_layers({len(record["spec"]["drop"]["dropped"]) for record in cuts}) or "none"
    if answer.record is None:
        raise UserError(
            f"no model is within the bounds; tried were {len(cuts)} plans, of {counts} layers dropped (the full model "
            f"scores {answer.full.shown()}); loosen a bound, or give other --strategy, --epochs or --learning-rate"
        )
    outcome = answer.record["outcome"]
    primary, profile = outcome["primary"], outcome["profile"]
    if answer.dropped:
        names = sorted({row.strategy for row in expansion.rows if row.digest == answer.digest})
        yield f"answer: drop layers {format_layers(answer.dropped)} of {outcome['plan']['depth']} ({', '.join(names)})"
    else:
        yield f"answer: the full model; of {len(cuts)} plans tried ({counts} layers dropped) none is within the bounds"
        if cuts:
            yield f"  nearest: {_nearest(cuts, answer.full)}"
    said = f"  score: {primary} {answer.measured.shown()} on {answer.measured.examples} rows"
    if answer.dropped:
        said += f", {_apart(answer.measured, answer.full)} the full model's {answer.full.shown()}"
    if answer.interval is not None:
        low, high = (answer.full.scale * value for value in answer.interval)
        said += f" (95 % interval of the loss, over these rows: {low:+.2f} to {high:+.2f})"
    yield said
    yield (
        f"  size: {profile['parameters'] / 1e6:.1f}M parameters of {profile['full_parameters'] / 1e6:.1f}M, "
        f"{profile['weight_bytes'] / 1e6:.0f} MB"
    )
    if (ratio := speedup_of(profile)) is not None:
        where = answer.record["environment"].get("device")
        on = f" on {where}" if where else ""
        spread = profile.get("speedup", {})
        sure = f" (95 % interval {spread['low']:.2f} to {spread['high']:.2f})" if {"low", "high"} <= {*spread} else ""
        yield f"  speed: {profile['latency_ms']:.2f} ms an example{on}, {ratio:.2f} times the full model's{sure}"
    if not answer.complete:
        yield f"  a lower bound: --budget left plans out; tried were {len(cuts)}, of {counts} layers dropped"
    yield f"  checkpoint: {checkpoint}"
    baseline = outcome.get("baseline", {}).get(primary)
    if baseline is not None and answer.full.lost(largest := replace(answer.full, value=baseline)) >= 0:
        yield (
            f"beware: the full model scores {answer.full.shown()}, and always saying the largest class "
            f"{largest.shown()}: nothing was learned that a cut could lose; give more --epochs, or another "
            "--learning-rate"
        )


def _apart(pruned: "Measurement", full: "Measurement") -> str:
    """Say how far a score is from the full model's."""
    gap = pruned.value - full.value
    how = "above" if gap > 0 or (gap == 0 and pruned.better == "lower") else "below"
    return f"{pruned.scale * abs(gap):.2f} {how}"


def _nearest(cuts: list[dict[str, Any]], full: "Measurement") -> str:
    """Say which of the plans tried scores best."""
    from depthprune.experiments.store.records import measured
    from depthprune.plan import format_layers

    best = max(cuts, key=lambda record: measured(record).merit)
    layers = format_layers(best["spec"]["drop"]["dropped"])
    return (
        f"without layers {layers} {best['outcome']['primary']} is {measured(best).shown()}, "
        f"{_apart(measured(best), full)}"
    )
