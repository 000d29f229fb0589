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
    from depthprune.errors import LoadError
    from depthprune.loading import check_positions, load_classifier, load_tokenizer
    from depthprune.sources import locate
    from depthprune.tasks import load_task
    from depthprune.tasks.heads import fit_to_head, head_labels

    source = locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    quiet_libraries()
    if not classification and len(head_labels(source.config) or ()) == 1 and task == "custom":
        regression = True  # the head says so, where whole numbers alone would look like classes
    said = task_options(
        *(dataset, text_columns, label_column, eval_split),
        regression=regression,
        classification=classification,
        metric=metric,
        scoring_only=True,
    )
    data = load_task(task, said)
    data = fit_to_head(data, source.config, model, needed=True)
    from depthprune.cli.display import console, metrics_line, progress
    from depthprune.evaluation.classification import evaluate as score
    from depthprune.experiments.prepare import resolve_device
    from depthprune.tasks.encoding import encode

    classifier, fresh = load_classifier(source, data.task.num_outputs, device=resolve_device(device))
    if fresh:
        raise LoadError(
            f"'{model}' has no trained head for '{task}' ('{fresh[0]}' is missing or has another shape); "
            "fine-tune it first: depthprune finetune"
        )
    tokenizer = load_tokenizer(source)
    encoded = encode(data, tokenizer, max_length)
    check_positions(classifier, max(max(rows["length"]) for rows in encoded.values()), model)
    with progress() as show:
        metrics = score(
            classifier,
            tokenizer,
            data.task,
            encoded,
            batch_size=batch_size,
            on_step=lambda done, total: show("score", done, total),
        )
    for note in data.notes:
        console.print(note, highlight=False)
    console.print(f"{model} on {task}: {metrics_line(metrics)}", highlight=False, soft_wrap=True)
