"""`depthprune finetune`: train a checkpoint as it is, such as one that `drop` wrote."""

from pathlib import Path
from typing import Annotated

import typer

from depthprune.cli import options
from depthprune.cli.fields import Fields
from depthprune.cli.run import run
from depthprune.specs import EvalSpec, Execution, HealSpec, RunSpec
from depthprune.tasks import TaskOptions


def finetune(
    model: options.Model,
    task: options.TaskName,
    output: Annotated[Path, typer.Option("--output", help="Where to write the checkpoint.", show_default=False)],
    data: options.TaskFields = TaskOptions(),
    seed: options.Seed = RunSpec.seed,
    max_length: options.MaxLength = EvalSpec.max_length,
    heal: Annotated[HealSpec, Fields(full=True)] = HealSpec(),
    store: options.StoreFolder = Path("runs"),
    force: options.Force = False,
    no_profile: options.NoProfile = False,
    execution: options.ExecutionFields = Execution(),
    quiet: options.Quiet = False,
    device: options.Device = "auto",
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Fine-tune a checkpoint as it is, evaluate it, save it. It is a run that drops nothing."""
    run(
        model,
        task,
        data=data,
        seed=seed,
        max_length=max_length,
        heal=heal,
        output=output,
        store=store,
        force=force,
        no_profile=no_profile,
        execution=execution,
        quiet=quiet,
        device=device,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
    )
