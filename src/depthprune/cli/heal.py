"""`depthprune heal`: train a checkpoint that was cut already, taught by the model that it was cut from."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthprune.cli import options
from depthprune.cli.fields import Fields
from depthprune.cli.options import quiet_libraries
from depthprune.specs import EvalSpec, Execution, HealSpec, RunSpec, Schedule
from depthprune.tasks import TaskOptions

if TYPE_CHECKING:
    from depthprune.experiments.healed.heal import HealedCheckpoint

Teacher = Annotated[
    str,
    typer.Option(
        "--teacher", help="The model that it was cut from; for a labelled task, fine-tuned on it.", show_default=False
    ),
]
Output = Annotated[Path, typer.Option("--output", help="Where to write the checkpoint.", show_default=False)]
Texts = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Texts without labels: a file (text, a sentence a line, also .xz; CSV, JSON lines, parquet), a data set's "
        "folder or Hub id, a task's name, or - for standard input; the training texts of --task if left out.",
        show_default=False,
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="With --data: pairs to score the embeddings on without training, such as stsb. Else what to train on.",
        show_default=False,
    ),
]
Columns = Annotated[
    str | None,
    typer.Option("--text-columns", "--text-column", help="Columns with text, of --data or else of --task custom."),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        "--heal",
        help="The recipe; embedding, which needs no labels, if left out. One that needs labels trains on --task.",
        show_default=False,
    ),
]
HeldOut = Annotated[
    int | None,
    typer.Option("--held-out", help="Texts that are not trained on; 500 if left out, or a tenth of few.", min=1),
]
Samples = Annotated[int | None, typer.Option("--samples", help="How many of the texts, held-out ones included.")]
Training = Annotated[Mapping[str, Any], Fields(given=Schedule)]


def heal(
    model: options.Model,
    teacher: Teacher,
    output: Output,
    data: Texts = None,
    task: Task = None,
    dataset: options.Dataset = None,
    config: options.DataConfig = None,
    split: Annotated[str | None, typer.Option("--split", help="Of a data set; train if left out.")] = None,
    text_columns: Columns = None,
    label_column: options.LabelColumn = None,
    samples: Samples = None,
    held_out: HeldOut = None,
    max_length: options.MaxLength = EvalSpec.max_length,
    recipe: Recipe = None,
    training: Training = MappingProxyType({}),
    seed: options.Seed = RunSpec.seed,
    execution: options.ExecutionFields = Execution(),
    quiet: options.Quiet = False,
    device: options.Device = "auto",
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Heal a checkpoint that was cut already, on any text without labels, or on a task.

    It learns to give the sentence embeddings and hidden states of the full model. With --task stsb the embeddings are
    scored by their cosine, without a head. With a recipe that needs labels it is trained on the task, with a head.
    What is left out: 1 epoch, a learning rate of 5e-4 and batches of 64 texts; with labels, as `depthprune run` has it.
    """
    from depthprune.cli.progress import progress
    from depthprune.tasks.data.texts import CalibrationOptions

    columns = options.parse_columns(text_columns)
    texts = None
    if data is not None:
        texts = CalibrationOptions(
            data, dataset, config, split, None, samples, None, seed, text_columns=columns, label_column=None
        )
    with progress(quiet=quiet) as show:
        show("starting", 0, 1)  # torch and transformers take seconds to import
        quiet_libraries()
        from depthprune.experiments.healed.heal import heal as write

        done = write(
            model,
            teacher,
            output,
            data=texts,
            task=task,
            options=TaskOptions(dataset, columns if data is None else (), label_column),
            recipe=_recipe(recipe, training),
            held_out=held_out,
            max_length=max_length,
            seed=seed,
            device=device,
            execution=execution,
            allow_pickle=allow_pickle,
            trust_remote_code=trust_remote_code,
            on_progress=show,
        )
    _say(done)


def _recipe(steps: str | None, given: Mapping[str, Any]) -> HealSpec:
    """Return the recipe: what was given over the schedule that goes with its steps."""
    from depthprune.experiments.healed.heal import UNLABELLED
    from depthprune.healing.base import registry
    from depthprune.healing.recipe import parse_recipe

    if steps is None:
        return replace(UNLABELLED, **given)
    read = parse_recipe(steps)
    unlabelled = all(registry.get(step.method).unlabelled for step in read)
    return replace(UNLABELLED if unlabelled else HealSpec(), steps=read, **given)


def _say(done: "HealedCheckpoint") -> None:
    """Print how close the model came to the full one, what it scores, and where it is."""
    from depthprune.cli.display import console
    from depthprune.tasks.metrics.base import HIGHER

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for note in done.notes:
        line(note)
    trained_on, held_out = done.texts
    line(f"trained on {trained_on:,} texts in {done.training.seconds:.0f} s ({done.training.precision})")
    if done.cosine is not None:
        before, after = done.cosine
        line(f"mean cosine to the full model's embeddings on {held_out:,} other texts: {before:.4f} → {after:.4f}")
    for name, metrics in done.scores.items():
        metric = metrics[done.primary]
        kept = metric.compared(done.scores["full"][done.primary]) if name != "full" else None
        share = f", {kept} {'of ' if metric.better == HIGHER else ''}the full model's" if kept is not None else ""
        line(f"{done.primary} {metric.shown()} ({name}, {metric.examples:,} examples{share})")
    line(f"checkpoint: {done.path} (proved: plain from_pretrained takes exactly these tensors)")
