"""Heal on the labelled rows of a task, with a head: the recipes of `depthprune run` after the cut."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from depthprune.evaluation.measurement import Measurement
from depthprune.experiments.healed.pair import Pair
from depthprune.experiments.healed.unlabelled import Outcome
from depthprune.experiments.models import FullModel, check_given
from depthprune.healing.base import PlannedStep, TrainingData
from depthprune.healing.execution.place import Place
from depthprune.healing.execution.progress import TrainingProgress
from depthprune.healing.recipe import heal, together
from depthprune.loading import check_positions
from depthprune.specs import Execution
from depthprune.specs.healing import ARCHITECTURE
from depthprune.tasks import TaskData
from depthprune.tasks.heads import fit_to_head, own_head

if TYPE_CHECKING:
    from depthprune.experiments.run import Progress


def heal_labelled(
    pair: Pair,
    data: TaskData,
    recipe: Sequence[PlannedStep],
    *,
    max_length: int,
    seed: int,
    device: str,
    execution: Execution,
    place: Place | None,
    on_progress: "Progress",
) -> Outcome:
    """Heal a cut model on a task's training rows, and score it beside its teacher.

    Args:
        data: the task's rows.
        max_length: tokens to which an example is cut.
        execution, place: how trainings are carried out, and where they keep what outlives them.

    Raises:
        UserError: the teacher has no trained head for the task, its outputs stand in another order, texts are too
            long, or the training diverged.
    """
    from transformers import set_seed

    from depthprune.evaluation.base import evaluation_of, measure, merit_on_rows

    on_progress("loading the models", 0, 1)
    head = own_head(pair.teacher.config) or ARCHITECTURE
    fitted = fit_to_head(data, pair.student.config, pair.student.name, head=head)
    check_given(pair.teacher, pair.student, fitted)
    teacher = FullModel(pair.teacher, fitted.task, device)
    full = teacher.model()
    set_seed(seed)  # a fresh head is random
    kind = evaluation_of(fitted.task)
    student, fresh = kind.load(pair.student, fitted.task, device=device)
    encoded = kind.encode(fitted, pair.tokenizer, max_length)
    check_positions(student, max(max(rows["length"]) for rows in encoded.values()), pair.student.name)

    def scores(model: Any) -> dict[str, Measurement]:
        step = lambda done, total: on_progress("scoring", done, total)  # noqa: E731
        return measure(model, pair.tokenizer, fitted.task, encoded, on_step=step)

    before = {"full": scores(full)} | ({} if fresh else {"cut": scores(student)})

    told, measured = TrainingProgress(on_progress, "healing"), merit_on_rows(pair.tokenizer, fitted.task)
    how = {"execution": execution, "place": place, "on_log": told.log}
    healed = heal(
        student,
        TrainingData(encoded["train"], pair.tokenizer, on_progress, measured, **how),
        recipe,
        cut=pair.cut(),
        seed=seed,
        teacher=teacher,
        on_step=told.step,
    )
    model: Any = healed.model
    if fitted.task.labels:
        model.config.id2label = dict(enumerate(fitted.task.output_labels))
        model.config.label2id = {label: i for i, label in enumerate(fitted.task.output_labels)}
    return Outcome(
        model,
        together(healed.trainings),
        scores=before | {"healed": scores(model)},
        primary=fitted.task.primary,
        texts=(len(encoded["train"]), 0),
        data=data.fingerprint,
        notes=data.notes,
    )
