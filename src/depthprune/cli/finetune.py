"""`depthprune finetune`: train a checkpoint as it is, such as one that `drop` wrote."""

from pathlib import Path
from typing import Annotated

import typer

from depthprune.cli import options
from depthprune.cli.run import run


def finetune(
    model: options.Model,
    task: options.TaskName,
    output: Annotated[Path, typer.Option("--output", help="Where to write the checkpoint.", show_default=False)],
    dataset: options.Dataset = None,
    text_columns: options.TextColumns = None,
    label_column: options.LabelColumn = None,
    eval_split: options.EvalSplit = None,
    regression: options.Regression = False,
    classification: options.Classification = False,
    metric: options.TaskMetric = None,
    seed: options.Seed = 42,
    epochs: options.Epochs = 3,
    learning_rate: options.LearningRate = 2e-5,
    batch_size: options.BatchSize = 32,
    max_length: options.MaxLength = 128,
    precision: options.Precision = "auto",
    similar_lengths: options.SimilarLengths = False,
    store: options.StoreFolder = Path("runs"),
    force: options.Force = False,
    no_profile: options.NoProfile = False,
    quiet: options.Quiet = False,
    device: options.Device = "auto",
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Fine-tune a checkpoint as it is, score it, save it. It is a run that drops nothing."""
    run(
        model,
        task,
        dataset=dataset,
        text_columns=text_columns,
        label_column=label_column,
        eval_split=eval_split,
        regression=regression,
        classification=classification,
        metric=metric,
        seed=seed,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        max_length=max_length,
        precision=precision,
        similar_lengths=similar_lengths,
        output=output,
        store=store,
        force=force,
        no_profile=no_profile,
        quiet=quiet,
        device=device,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
    )
