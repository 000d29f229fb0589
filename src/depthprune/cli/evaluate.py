"""`depthprune evaluate`: score a fine-tuned checkpoint."""

from dataclasses import replace

from depthprune.cli import options
from depthprune.cli.options import quiet_libraries
from depthprune.specs import EvalSpec
from depthprune.tasks import TaskOptions


def evaluate(
    model: options.Model,
    task: options.TaskName,
    data: options.TaskFields = TaskOptions(),
    max_length: options.MaxLength = EvalSpec.max_length,
    batch_size: options.ForwardBatch = 32,
    device: options.Device = "auto",
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Evaluate a checkpoint that has a trained head, without training."""
    quiet_libraries()
    from depthprune.cli.display import console, metrics_line, progress
    from depthprune.experiments.evaluate import evaluate as score

    with progress() as show:
        found = score(
            model,
            task,
            options=replace(data, scoring_only=True),
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
