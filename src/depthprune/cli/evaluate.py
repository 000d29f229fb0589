"""`depthprune evaluate`: score a fine-tuned checkpoint."""

from depthprune.cli import options
from depthprune.cli.options import quiet_libraries, task_options


def evaluate(
    model: options.Model,
    task: options.TaskName,
    dataset: options.Dataset = None,
    text_columns: options.TextColumns = None,
    label_column: options.LabelColumn = None,
    eval_split: options.EvalSplit = None,
    regression: options.Regression = False,
    classification: options.Classification = False,
    metric: options.TaskMetric = None,
    max_length: options.MaxLength = 128,
    batch_size: options.BatchSize = 32,
    device: options.Device = "auto",
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Score a checkpoint that has a trained head, without training."""
    quiet_libraries()
    from depthprune.cli.display import console, metrics_line, progress
    from depthprune.experiments.evaluate import evaluate as score

    said = task_options(
        *(dataset, text_columns, label_column, eval_split),
        regression=regression,
        classification=classification,
        metric=metric,
        scoring_only=True,
    )
    with progress() as show:
        found = score(
            model,
            task,
            options=said,
            max_length=max_length,
            batch_size=batch_size,
            device=device,
            allow_pickle=allow_pickle,
            trust_remote_code=trust_remote_code,
            on_progress=show,
        )
    for note in found.notes:
        console.print(note, highlight=False, markup=False)
    console.print(f"{model} on {task}: {metrics_line(found.metrics)}", highlight=False, markup=False, soft_wrap=True)
