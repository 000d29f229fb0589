"""`depthprune probe` and `depthprune similarity`: what each layer knows, and what fine-tuning changed."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from depthprune.cli import options
from depthprune.cli.fields import Fields
from depthprune.cli.options import quiet_libraries
from depthprune.scores.base import token_words
from depthprune.specs import EvalSpec
from depthprune.tasks import TaskOptions

TaskFields = Annotated[TaskOptions, Fields(without=("kind", "metric"))]
Before = Annotated[
    str, typer.Argument(metavar="BEFORE", help="The pre-trained model: a folder, or a Hub id.", show_default=False)
]
After = Annotated[
    str, typer.Argument(metavar="AFTER", help="The same model fine-tuned, with all its layers.", show_default=False)
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="first, last, mean (of all real tokens), or several with commas, in one pass; the sentence's if left out.",
    ),
]
TrainingRows = Annotated[
    int | None, typer.Option("--samples", help="Training rows, chosen by the seed; all if left out.")
]
Seed = Annotated[int, typer.Option("--seed", help="Of the choice of training rows.")]
HoldOutSeed = Annotated[int, typer.Option("--seed", help="Of a hold-out (--task custom).")]
File = Annotated[
    Path | None, typer.Option("--output", help="Where to write the values too (JSON).", show_default=False)
]


def probe(
    model: options.Model,
    task: options.TaskName,
    data: TaskFields = TaskOptions(),
    token: Token = None,
    samples: TrainingRows = None,
    seed: Seed = 42,
    max_length: options.MaxLength = EvalSpec.max_length,
    batch_size: options.ForwardBatch = 32,
    output: File = None,
    store: options.StoreFolder = Path("runs"),
    force: options.Force = False,
    device: options.Device = "auto",
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Fit a linear probe on every layer: how much of a task its sentence token encodes."""
    _prepare(output)
    from depthprune.cli.display import progress
    from depthprune.experiments.analyses.analyse import probe as analyse

    with progress() as show:
        result = analyse(
            model,
            task,
            options=data,
            token=token,
            samples=samples,
            max_length=max_length,
            seed=seed,
            batch_size=batch_size,
            store=store,
            device=device,
            force=force,
            allow_pickle=allow_pickle,
            trust_remote_code=trust_remote_code,
            on_progress=show,
        )
    _show(result, output)


def similarity(
    before: Before,
    after: After,
    task: options.TaskName,
    data: TaskFields = TaskOptions(),
    token: Token = None,
    seed: HoldOutSeed = 42,
    max_length: options.MaxLength = EvalSpec.max_length,
    batch_size: options.ForwardBatch = 32,
    output: File = None,
    store: options.StoreFolder = Path("runs"),
    force: options.Force = False,
    device: options.Device = "auto",
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Compare a model before and after fine-tuning: the cosine of the sentence token, layer by layer."""
    _prepare(output)
    from depthprune.cli.display import progress
    from depthprune.experiments.analyses.analyse import similarity as analyse

    with progress() as show:
        result = analyse(
            before,
            after,
            task,
            options=replace(data, seed=seed),
            token=token,
            max_length=max_length,
            seed=seed,
            batch_size=batch_size,
            store=store,
            device=device,
            force=force,
            allow_pickle=allow_pickle,
            trust_remote_code=trust_remote_code,
            on_progress=show,
        )
    _show(result, output)


def _prepare(output: Path | None) -> None:
    if output is not None:
        from depthprune.result_file import check_file

        check_file(output)
    quiet_libraries()


def _show(result: Any, output: Path | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from depthprune.cli.display import console

    for note in result.notes:
        console.print(note, highlight=False)
    results = (result, *result.more)
    record = result.record
    probing = record["kind"] == "probe"
    models = record["model"]["name"] if probing else f"{record['before']['name']} against {record['model']['name']}"
    tokens = [token_words(each.record["token"]) for each in results]
    # A line of its own: a title would be folded to the width of so narrow a table.
    console.print(f"{models}, {record['task']}, {', '.join(tokens)}", highlight=False, soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("after", no_wrap=True)
    for words in tokens:
        table.add_column(record["metric"] + (f", {words}" if result.more else ""), justify="right", no_wrap=True)
    for i in range(len(record["values"])):
        place = f"{i} layer{'s' if i > 1 else ''}" if i else "the embeddings"
        table.add_row(place, *(_value(each.record, i) for each in results))
    console.print(table)
    counts = record["examples"]
    fitted = f"fitted on {counts['train']} rows, scored on" if probing else "mean over"
    spread = "; ± is the standard error over these rows" if "covariance" in record else ""
    console.print(f"{fitted} {counts['evaluation']}{spread}", highlight=False)
    if output is not None:
        from depthprune.result_file import write_json

        write_json(output, [each.record for each in results] if result.more else record)
        console.print(f"values: {output}", highlight=False, soft_wrap=True)
    for each in results:
        state = "stored before" if each.stored else "done now"
        console.print(f"record: {each.file} ({state})", highlight=False, soft_wrap=True)


def _value(record: dict[str, Any], layer: int) -> str:
    """Write a value of an analysis, with its standard error where that is known."""
    scale, digits = (100, 2) if record["kind"] == "probe" else (1, 3)
    text = f"{scale * record['values'][layer]:.{digits}f}"
    if "covariance" not in record:
        return text
    return f"{text} ± {scale * max(record['covariance'][layer][layer], 0.0) ** 0.5:.{digits}f}"
