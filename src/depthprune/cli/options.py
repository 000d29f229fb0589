"""The options that several sub-commands share, and their conversion to values."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from depthprune.cli.fields import Fields, of
from depthprune.quiet import quiet_libraries as quiet_libraries
from depthprune.specs import EvalSpec, Execution, HealSpec, RunSpec
from depthprune.tasks import TaskOptions
from depthprune.tasks.base import CLASSIFICATION, REGRESSION

if TYPE_CHECKING:
    from depthprune.tasks.data.calibration import CalibrationOptions

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A local model folder, or a Hub id.", show_default=False)]
TaskName = Annotated[
    str,
    typer.Option("--task", help="What to train and score on; `depthprune list` names them.", show_default=False),
]
Strategy = Annotated[str | None, typer.Option("--strategy", help="How to choose the layers; needs --count.")]
Count = Annotated[int | None, typer.Option("--count", help="How many layers to drop (the paper's K).")]
Layers = Annotated[str | None, typer.Option("--layers", help="Layers to drop, from 0: 8,9-11. Instead of --strategy.")]
Keep = Annotated[str | None, typer.Option("--keep", help="Layers to keep, in the same form.")]
Depths = Annotated[
    str | None,
    typer.Option(
        "--depths",
        help="Train once, and write a checkpoint for each number of layers that are left, as 12,9,6 or 4-12; --output "
        "is then a folder for all. --strategy says which layers go, top if left out; no --count.",
        show_default=False,
    ),
]
Dataset = Annotated[str | None, of(TaskOptions, "dataset")]
LabelColumn = Annotated[str | None, of(TaskOptions, "label_column")]
Regression = Annotated[bool, of(TaskOptions, "kind", REGRESSION)]
Classification = Annotated[bool, of(TaskOptions, "kind", CLASSIFICATION)]
MaxLength = Annotated[int, of(EvalSpec, "max_length")]
Seed = Annotated[int, of(RunSpec, "seed")]
# Parameters that stand for an option for each field (`cli.fields.spread`).
TaskFields = Annotated[TaskOptions, Fields()]
HealFields = Annotated[HealSpec, Fields()]
ExecutionFields = Annotated[Execution, Fields()]
Output = Annotated[Path | None, typer.Option("--output", help="Where to write the checkpoint.", show_default=False)]
StoreFolder = Annotated[Path, typer.Option("--store", help="The folder of runs.")]
Force = Annotated[bool, typer.Option("--force", help="Repeat what the store has.")]
NoProfile = Annotated[bool, typer.Option("--no-profile", help="Do not measure latencies.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="Read weights from .bin files, which can run code.")]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run the model's own modelling code.")]

Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="Calibration data: a GLUE task, a file (text, CSV, JSON lines, parquet), a data set's folder or Hub id, "
        "or - for standard input.",
        show_default=False,
    ),
]
DataConfig = Annotated[str | None, typer.Option("--config", help="A data set's configuration, such as wikitext-2-v1.")]
Split = Annotated[
    str | None,
    typer.Option(
        "--split", help="Of the data; train by default, so that layers are not chosen on the rows of the evaluation."
    ),
]
SampleColumns = Annotated[
    str | None,
    typer.Option(
        "--text-columns",
        "--text-column",
        help="Column with the text, if it is not 'text'; two with a comma between for pairs.",
    ),
]
SampleLabel = Annotated[
    str | None, typer.Option("--label-column", help="Of your own data: its rows are then those of --task custom.")
]
SampleMetric = Annotated[
    str | None, typer.Option("--task-metric", help="For the objective 'metric': what else than the task's own.")
]
Samples = Annotated[
    int | None,
    typer.Option("--samples", help="Examples or blocks of text; 256 if left out, or all of a named evaluation split."),
]
Length = Annotated[
    int | None, typer.Option("--length", help="Tokens of a block, or to which an example is cut; 128 if left out.")
]
SampleSeed = Annotated[int, typer.Option("--seed", help="Of the choice of samples, and of a search.")]
StackName = Annotated[str | None, typer.Option("--stack", help="Which stack, such as encoder, if there are several.")]
ForwardBatch = Annotated[int, typer.Option("--batch-size", help="Sequences per forward pass.", min=1)]
Dtype = Annotated[str, typer.Option("--dtype", help="auto (as it was saved), float32, bfloat16 or float16.")]
Layerwise = Annotated[
    bool, typer.Option("--layerwise", help="Load one layer at a time: for models larger than memory.")
]
CacheMemory = Annotated[str, typer.Option("--cache-memory", help="Memory for cached hidden states.")]
CacheDir = Annotated[
    Path | None, typer.Option("--cache-dir", help="Folder for hidden states that do not fit.", show_default=False)
]
Threshold = Annotated[
    float | None, typer.Option("--threshold", help="With scores: drop layers whose mean cosine is above it, as 0.95.")
]
Protect = Annotated[str | None, typer.Option("--protect", help="With scores or a search: layers to keep, as 0,-1.")]
Figure = Annotated[
    Path | None, typer.Option("--figure", help="Draw a picture into this file, .svg or .png.", show_default=False)
]
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(text: str) -> int:
    """Parse a number of bytes.

    >>> parse_bytes("1.5GB")
    1500000000

    Raises:
        UserError: if the text is not an amount of memory.
    """
    from depthprune.errors import UserError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in UNITS:
        raise UserError(f"'{text}' is not an amount of memory; write 500MB or 2GB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def engine_options(batch_size, device, dtype, cache_memory, cache_dir, *, layerwise=False):
    """Return an `Engine` from the text of the options.

    Raises:
        UserError: if an amount of memory cannot be read.
    """
    from depthprune.experiments.choosing.engine import Engine

    return Engine(batch_size, device, dtype, layerwise, parse_bytes(cache_memory), cache_dir)


def parse_columns(text: str | None) -> tuple[str, ...]:
    """Parse column names separated by commas.

    >>> parse_columns("premise, hypothesis"), parse_columns(None)
    (('premise', 'hypothesis'), ())
    """
    return tuple(column.strip() for column in (text or "").split(",") if column.strip())


def sample_options(
    data: str,
    dataset: str | None,
    config: str | None,
    split: str | None,
    samples: int | None,
    length: int | None,
    seed: int,
    *,
    text_columns: str | None,
    label_column: str | None,
    regression: bool,
    classification: bool,
    task_metric: str | None,
) -> "CalibrationOptions":
    """Return `CalibrationOptions` from the text of the options.

    Raises:
        UserError: if both --regression and --classification are given.
    """
    from depthprune.tasks.data.calibration import CalibrationOptions

    return CalibrationOptions(
        *(data, dataset, config, split, None, samples, length, seed),
        text_columns=parse_columns(text_columns),
        label_column=label_column,
        kind=task_kind(regression=regression, classification=classification),
        task_metric=task_metric,
    )


def task_kind(*, regression: bool, classification: bool) -> str | None:
    """Return the kind of task that was asked for, or None.

    Raises:
        UserError: if both are given.
    """
    from depthprune.errors import UserError

    if regression and classification:
        raise UserError("--regression and --classification exclude each other; give one")
    return "regression" if regression else "classification" if classification else None
