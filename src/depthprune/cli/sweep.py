"""`depthprune sweep`: a grid of runs that can be stopped, moved and extended; `depthprune status`: how far it is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthprune.cli import options
from depthprune.cli.fields import Fields, given_entries, parameter_names
from depthprune.specs import EvalSpec, Execution, HealSpec, RunSpec
from depthprune.specs.options import options_of
from depthprune.tasks import TaskOptions

if TYPE_CHECKING:
    from depthprune.experiments.store.store import Store
    from depthprune.experiments.sweeps.expansion import Expansion

SpecFiles = Annotated[
    list[Path] | None, typer.Argument(metavar="[SPEC]...", help="YAML files, run in this order; or say it in options.")
]
Names = list[str] | None
Models = Annotated[Names, typer.Option("--model", help="A model; can be given again.")]
Tasks = Annotated[Names, typer.Option("--task", help="A task; can be given again.")]
Strategies = Annotated[
    Names, typer.Option("--strategy", help="A strategy, or as in a file: {name: contribution, threshold: 0.95}.")
]
Baselines = Annotated[Names, typer.Option("--baseline", help="A model to compare with as it is; can be given again.")]
Recipes = Annotated[
    Names,
    typer.Option(
        "--heal",
        help="A recipe: its name, its steps, or as in a file: {name: slow, drop_every: 1}; can be given again.",
    ),
]
Counts = Annotated[Names, typer.Option("--count", help="Layers to drop: 2, 1-4 or 1..L-1; can be given again.")]
Seeds = Annotated[list[int] | None, typer.Option("--seed", help="A seed; can be given again.")]
ExecutorName = Annotated[str, typer.Option("--executor", help="local (processes) or ray (a cluster).")]
Workers = Annotated[int | None, typer.Option("--workers", help="Parallel runs; by cores or GPUs by default.", min=1)]
Cpus = Annotated[int | None, typer.Option("--cpus", help="Threads of a run; the cores shared if left out.", min=1)]
Gpus = Annotated[
    float | None, typer.Option("--gpus", help="GPUs of a run; 0.1: ten runs share one. One if left out.", min=0)
]
Address = Annotated[str | None, typer.Option("--address", help="Of a Ray cluster: auto, or ray://HOST:PORT.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show how many runs there are, and execute none.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try runs again that failed before.")]


TRAINING = Fields(without=("steps",))  # the recipes are given by --heal, again and again
# What a file says whole: beside one, these would change nothing.
OF_THE_GRID = (
    *("model", "task", "strategy", "count", "seed", "baseline", "heal"),
    *parameter_names(options_of(TaskOptions)),
    *parameter_names(TRAINING.chosen(HealSpec)),
    "max_length",
)


def sweep(
    context: typer.Context,
    spec: SpecFiles = None,
    model: Models = None,
    task: Tasks = None,
    strategy: Strategies = None,
    count: Counts = None,
    seed: Seeds = None,
    baseline: Baselines = None,
    heal: Recipes = None,
    data: options.TaskFields = TaskOptions(),
    training: Annotated[HealSpec, TRAINING] = HealSpec(),
    max_length: options.MaxLength = EvalSpec.max_length,
    store: options.StoreFolder = Path("runs"),
    executor: ExecutorName = "local",
    workers: Workers = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    address: Address = None,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
    no_profile: options.NoProfile = False,
    execution: options.ExecutionFields = Execution(),
    device: options.Device = "auto",
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Run a grid: models × strategies × counts × tasks × seeds. The same command resumes it.

    Each run is recorded once; start the same sweep on several machines that share the store.
    """
    from depthprune.errors import UserError
    from depthprune.experiments.sweeps.executors import local
    from depthprune.experiments.sweeps.executors.base import Resources
    from depthprune.experiments.sweeps.executors.base import registry as executors
    from depthprune.experiments.sweeps.grid import parse_sweep, read_sweep

    executors.get(executor)
    if address is not None and executor != "ray":
        raise UserError("--address is that of a Ray cluster; add --executor ray")
    if spec:
        _refuse_beside(context, spec)
        grids = [read_sweep(file) for file in spec]
    else:
        asked: dict[str, Any] = {"models": model, "tasks": task, "counts": _counts(count), "max_length": max_length}
        asked |= {"strategies": _as_in_a_file(strategy), "baselines": baseline or [], "seeds": seed or [RunSpec.seed]}
        asked |= given_entries(data) | given_entries(training) | {"heal": _as_in_a_file(heal) or {}}
        grids = [parse_sweep(asked)]
    options.quiet_libraries()
    from depthprune.cli.display import console
    from depthprune.cli.live import expansion_lines
    from depthprune.cli.progress import messages, progress
    from depthprune.experiments.store.store import Store
    from depthprune.experiments.sweeps.rows import estimate
    from depthprune.experiments.sweeps.sweep import plan_sweep

    runs, trust = Store(store), {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
    with progress() as show:
        expansion = plan_sweep(grids, runs, device=device, dry=dry_run, on_progress=show, **trust)
    resources = Resources(workers, cpus, local.gpus_of_a_run(device) if gpus is None else gpus, address)
    for line in expansion_lines(expansion, runs, estimate(expansion, runs), resources):
        (console if dry_run else messages).print(line, highlight=False, markup=False, soft_wrap=True)
    if dry_run:
        return
    how: dict[str, Any] = {"executor": executor, "resources": resources, "device": device}
    how |= {"retry_failed": retry_failed, "profile": not no_profile, "execution": execution}
    _run_and_show(expansion, runs, how)


def _run_and_show(expansion: "Expansion", store: "Store", how: dict[str, Any]) -> None:
    """Execute the runs, showing their progress and the result.

    Raises:
        UserError: if runs failed.
    """
    from depthprune.cli.display import console
    from depthprune.cli.live import Live
    from depthprune.cli.progress import messages
    from depthprune.errors import UserError
    from depthprune.experiments.sweeps.sweep import run_sweep

    live = Live(expansion, store)
    try:
        with live:
            result = run_sweep(expansion, store, on_end=live.ended, **how)
    except KeyboardInterrupt:
        messages.print(f"{live.done} of {len(expansion.jobs)} runs are done", highlight=False)
        raise
    console.print(live.table())
    if result.failed:
        raise UserError(_failures(result.failed, len(expansion.jobs), store))
    report = f"depthprune report {store.root} --output report.html"
    console.print(f"records: {store.root}; {report}", highlight=False, markup=False, soft_wrap=True)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _failures(lines: dict[str, str], runs: int, store: "Store") -> str:
    """Describe which runs failed, why, and what to do."""
    shown = "; ".join(f"{digest}: {line}" for digest, line in list(lines.items())[:3])
    more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
    tracebacks = any((store.folder(digest) / "failure.json").is_file() for digest in lines)
    where = f" (more in failure.json in their folders under '{store.root}')" if tracebacks else ""
    again = "again with --retry-failed" if tracebacks else "again"
    return f"{len(lines)} of {runs} runs failed: {shown}{more}{where}; fix it and run {again}"


def _refuse_beside(context: typer.Context, specs: list[Path]) -> None:
    """Refuse options that a sweep's files define.

    Raises:
        UserError: if there are any.
    """
    from depthprune.errors import UserError

    parameters = {parameter.name: parameter for parameter in context.command.params}
    beside = [parameters[name].opts[0] for name in OF_THE_GRID if _is_given(context, name)]
    if beside:
        raise UserError(
            f"'{specs[0]}' defines the sweep, and {', '.join(beside)} would change nothing; write it into the "
            "file, or leave the file out and give all in options"
        )


def _as_in_a_file(texts: list[str] | None) -> list[Any] | None:
    """Parse an option that begins with a brace as an entry of a sweep's file.

    Raises:
        UserError: if it is not YAML.
    """
    import yaml

    from depthprune.errors import UserError

    try:
        return [yaml.safe_load(text) if text.lstrip().startswith("{") else text for text in texts] if texts else None
    except yaml.YAMLError as error:
        raise UserError(f"an option is not as in a file ({' '.join(str(error).split())}); write {{name: …}}") from None


def _counts(texts: list[str] | None) -> list[int | str] | None:
    return [int(text) if text.isdigit() else text for text in texts] if texts else None


def status(store: options.StoreFolder = Path("runs")) -> None:
    """Show the progress of the sweeps in a store: done, running, failed, and the best plans so far."""
    from depthprune.cli.display import console
    from depthprune.cli.live import status_lines
    from depthprune.errors import UserError
    from depthprune.experiments.store.store import Store

    if not store.is_dir():
        raise UserError(f"there is no store '{store}'; give --store FOLDER, where runs were recorded")
    for line in status_lines(Store(store)):
        console.print(line, highlight=False)
