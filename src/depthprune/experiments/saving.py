"""Write the checkpoint of a run."""

import shutil
from pathlib import Path
from typing import Any

from depthprune.experiments.environment import checkpoint_provenance
from depthprune.healing.recipe import show
from depthprune.plan import LayerPlan
from depthprune.sources import ModelSource
from depthprune.specs import HealSpec, RunSpec
from depthprune.tasks import TaskData


def save_run(
    model: Any, data: TaskData, source: ModelSource, plan: LayerPlan, folder: Path, spec: RunSpec, profile: Any
) -> None:
    """Save the checkpoint of a run, with the files beside the model's weights, its card and its history."""
    from depthprune.checkpoints.save import save_made

    if data.task.labels:
        model.config.id2label = dict(enumerate(data.task.output_labels))
        model.config.label2id = {label: i for i, label in enumerate(data.task.output_labels)}
    shutil.rmtree(folder, ignore_errors=True)  # of the run that this one replaces
    sizes = (profile.get("full_parameters"), profile.get("parameters"))
    save_made(
        model,
        folder,
        source=source,
        provenance=checkpoint_provenance(source, plan, task=data.task.name, run=spec.digest()),
        name=f"{source.title}-{data.task.name}",
        parameters=sizes if all(sizes) else None,
        training=_training(spec.heal, data.task.name, spec.seed) if spec.heal.trains else None,
    )


def _training(spec: HealSpec, task: str, seed: int) -> str:
    """Say how a checkpoint was trained, for its card."""
    how = f"the recipe {show(spec.steps)}" if spec.steps else f"{spec.num_epochs + spec.epochs_before:g} epochs"
    rate = f"a learning rate of {spec.learning_rate:g}"
    return f"{how} on {task}, with {rate}, batches of {spec.batch_size} and the seed {seed}"
