"""Score a checkpoint that has a trained head, without training. `depthprune.evaluate` lives here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from depthprune.arguments import checked
from depthprune.errors import LoadError
from depthprune.evaluation.base import evaluation_of, measure
from depthprune.evaluation.measurement import Measurement
from depthprune.quiet import no_progress, quietly
from depthprune.sources import locate
from depthprune.specs import EvalSpec
from depthprune.tasks import TaskOptions, load_task

if TYPE_CHECKING:
    from depthprune.experiments.run import Progress


@dataclass(frozen=True)
class Evaluation:
    """What a checkpoint scores.

    Args:
        metrics: name → measurement: value, examples, unit, which way is better.
        primary: name of the primary metric.
        notes: what to know about how the data was read, a sentence each.
    """

    metrics: dict[str, Measurement]
    primary: str
    notes: tuple[str, ...]

    @property
    def score(self) -> float:
        """The value of the primary metric, a fraction where its unit is one."""
        return self.metrics[self.primary].value


@checked("evaluate")
@quietly()
def evaluate(
    model: str | Path,
    task: str,
    *,
    options: TaskOptions | None = None,
    max_length: int = EvalSpec.max_length,
    batch_size: int = 32,
    device: str = "auto",
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: "Progress" = no_progress,
) -> Evaluation:
    """Score a checkpoint that has a trained head, without training. This is `depthprune.evaluate`.

    Args:
        model: a local folder or a Hub id.
        task: one of `depthprune list`: a GLUE task, `docstrings`, or `custom`.
        options: where the task's data lies, and its columns; all rows that are given are scored.
        max_length: tokens to which an example is cut.
        batch_size: examples a forward pass.
        device: `auto`, `cpu` or `cuda`.
        on_progress: called with the stage's name and how far it is.

    Raises:
        LoadError: the model has no head that was trained for such a task.
        UserError: anything else a user can cause, in one line.
    """
    from depthprune.devices import resolve_device
    from depthprune.evaluation.baseline import balance_note, majority_baseline
    from depthprune.loading import check_positions, load_tokenizer
    from depthprune.tasks.heads import fit_to_head, head_labels

    source = locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    options = replace(options or TaskOptions(), scoring_only=True)
    if options.kind is None and len(head_labels(source.config) or ()) == 1 and task == "custom":
        options = replace(options, kind="regression")  # so the head says, where whole numbers would look like classes
    data = fit_to_head(load_task(task, options), source.config, source.name, needed=True)
    on_progress("loading the model", 0, 1)
    kind = evaluation_of(data.task)
    loaded, fresh = kind.load(source, data.task, device=resolve_device(device))
    if fresh:
        raise LoadError(
            f"'{model}' has no trained head for '{task}' ('{fresh[0]}' is missing or has another shape); "
            "fine-tune it first: depthprune finetune"
        )
    tokenizer = load_tokenizer(source)
    encoded = kind.encode(data, tokenizer, max_length)
    check_positions(loaded, max(max(rows["length"]) for rows in encoded.values()), source.name)

    def step(done: int, total: int) -> None:
        on_progress("score", done, total)

    metrics = measure(loaded, tokenizer, data.task, encoded, batch_size=batch_size, on_step=step)
    notes = (*data.notes, *balance_note(data, majority_baseline(data)))
    return Evaluation(metrics, data.task.primary, notes)
