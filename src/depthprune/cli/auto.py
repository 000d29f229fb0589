"""`depthprune auto`: the smallest model within a bound."""

from pathlib import Path
from typing import Annotated

import typer

from depthprune.cli import options

MaxLoss = Annotated[
    str | None, typer.Option("--max-loss", help="Below the full model: 1.0 is a point, 1% a share of its score.")
]
MaxParameters = Annotated[str | None, typer.Option("--max-parameters", help="Of the model: 80M.")]
MaxLatency = Annotated[float | None, typer.Option("--max-latency-ms", help="Of an example, on this machine.")]
Speedup = Annotated[float | None, typer.Option("--speedup", help="Times as fast as the full model.")]
Budget = Annotated[int | None, typer.Option("--budget", help="Try so many plans; the answer is a lower bound.", min=1)]
Strategies = Annotated[
    list[str] | None, typer.Option("--strategy", help="Strategies to try; top and contribution if left out.")
]
Report = Annotated[Path | None, typer.Option("--report", help="Where to write the report (HTML).", show_default=False)]
Workers = Annotated[int | None, typer.Option("--workers", help="Runs at a time.", min=1)]


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
    dataset: options.Dataset = None,
    text_columns: options.TextColumns = None,
    label_column: options.LabelColumn = None,
    eval_split: options.EvalSplit = None,
    epochs: options.Epochs = 3,
    learning_rate: options.LearningRate = 2e-5,
    batch_size: options.BatchSize = 32,
    max_length: options.MaxLength = 128,
    seed: options.Seed = 42,
    store: options.StoreFolder = Path("runs"),
    workers: Workers = None,
    device: options.Device = "auto",
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Find the smallest model within a bound: every number of layers is tried, fine-tuned and scored.

    Ends with the fine-tuned checkpoint and, if asked for, the report.
    """
    from depthprune.errors import UserError
    from depthprune.experiments.auto import Bounds, find, parse_loss, within_budget
    from depthprune.output import check_target
    from depthprune.result_file import check_file

    if max_loss is max_parameters is max_latency_ms is speedup is None:
        raise UserError("say what the model may lose or cost: --max-loss 1.0, --max-parameters, --speedup, …")
    loss, relative = parse_loss(max_loss) if max_loss is not None else (None, False)
    bounds = Bounds(loss, relative, _number(max_parameters), max_latency_ms, speedup)
    if output is not None:
        check_target(output)
    if report is not None:
        check_file(report)
    from depthprune.experiments.sweep_spec import parse_sweep

    heal = {"num_epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
    columns = options.parse_columns(text_columns)
    grid = parse_sweep(
        {
            **{"models": model, "tasks": task, "strategies": strategy or ["top", "contribution"]},
            **{"counts": ["1..L-1"], "seeds": [seed], "heal": heal, "max_length": max_length, "dataset": dataset},
            **{"label_column": label_column, "eval_split": eval_split},
            **({"text_columns": columns} if columns else {}),
        }
    )
    options.quiet_libraries()
    from depthprune.cli.display import console
    from depthprune.cli.live import Live, expansion_lines
    from depthprune.experiments.executors.base import Resources
    from depthprune.experiments.expansion import expand
    from depthprune.experiments.store import Store
    from depthprune.experiments.sweep_rows import estimate, remember
    from depthprune.experiments.sweep_scores import stored_scorer

    runs, resources = Store(store), Resources(workers)
    trust = {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
    expansion = expand(grid, stored_scorer(store, device, take=True), **trust)
    for line in expansion_lines(expansion, runs, estimate(expansion, runs), resources):
        console.print(line, highlight=False)
    remember(expansion, runs)
    with Live(within_budget(expansion, runs, budget), runs) as live:
        answer = find(expansion, runs, bounds, budget=budget, resources=resources, device=device, on_end=live.ended)
    if report is not None:
        from depthprune.report.page import page
        from depthprune.report.results import read_results
        from depthprune.result_file import write_text

        write_text(report, page(read_results(store), store))
        console.print(f"report: {report}", highlight=False, soft_wrap=True)
    _say(answer, runs, output)


def _say(answer, runs, output: Path | None) -> None:
    """Say what was found, and where its checkpoint is."""
    from depthprune.cli.display import console
    from depthprune.errors import UserError
    from depthprune.output import copy_checkpoint
    from depthprune.plan import format_layers

    if answer.digest is None or answer.record is None:
        raise UserError(
            f"no model is within the bounds (the full one scores {100 * answer.full:.2f}, {len(answer.tried)} runs "
            "tried); allow more loss, or give other --strategy, --epochs or --learning-rate"
        )
    outcome = answer.record["outcome"]
    dropped = outcome["plan"]["dropped"]
    score = outcome["metrics"][outcome["primary"]]["value"]
    console.print(
        f"dropped {format_layers(dropped) or 'none'} of {outcome['plan']['depth']}: {outcome['primary']} "
        f"{100 * score:.2f} against {100 * answer.full:.2f}, {outcome['profile']['parameters'] / 1e6:.1f}M parameters",
        highlight=False,
    )
    if not answer.complete:
        console.print("a lower bound: not every plan was tried (--budget)", highlight=False)
    checkpoint = runs.model_folder(answer.digest)
    if output is not None:
        checkpoint = copy_checkpoint(checkpoint, output)
    console.print(f"checkpoint: {checkpoint}", highlight=False, soft_wrap=True)


def _number(text: str | None) -> int | None:
    from depthprune.errors import UserError

    if text is None:
        return None
    factor = {"K": 10**3, "M": 10**6, "B": 10**9}.get(text[-1:].upper(), 1)
    try:
        value = float(text[:-1] if factor > 1 else text) * factor
    except ValueError:
        value = -1.0
    if value <= 0:
        raise UserError(f"--max-parameters {text} is no number of parameters; write 80M")
    return int(value)
