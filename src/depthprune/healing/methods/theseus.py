"""BERT-of-Theseus: the student's layers take the places of the teacher's, more and more of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from depthprune import processes
from depthprune.errors import UserError
from depthprune.healing.base import Cut, Healed, OnStep, Schedule, Teacher, TrainingData, healer, recipe
from depthprune.specs import Step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PAPER = "https://arxiv.org/abs/2002.02925"


@dataclass(frozen=True)
class ReplaceOptions:
    """How likely a layer of the student stands in its place: base + rise · step, up to 1. The defaults are published.

    Args:
        base: probability at the first step.
        rise: what each optimiser step adds to it.
    """

    base: float = 0.3
    rise: float = 0.0006

    def __post_init__(self) -> None:
        if not 0 < self.base <= 1 or self.rise < 0:
            raise UserError("base of 'replace' is a probability above 0, and rise not below 0")


@healer("replace", options=ReplaceOptions, needs_teacher=True, paper=PAPER)
def replace_layers(
    model: "PreTrainedModel",
    data: TrainingData,
    options: ReplaceOptions,
    *,
    schedule: Schedule,
    seed: int,
    cut: Cut,
    teacher: Teacher | None,
    on_step: OnStep | None = None,
) -> Healed:
    """Train the student's layers inside the full model, each in the place of a group of its layers, at random.

    The student starts from the teacher's weights. At each step a layer of the student stands for itself and for the
    layers that went after it, with a probability that rises; otherwise the teacher's own layers run, which learn
    nothing, nor do embeddings and head. The loss is the task's. Fine-tune afterwards (the recipe `theseus`).

    A step runs every layer of the teacher, whether its place is taken or not.

    Args:
        model: its layers are trained in place.
        data: rows with labels.
        options: how likely a layer of the student stands in its place.
        schedule: how long and how fast.
        seed: of the order of the rows, of dropout, and of whose layers run.
        cut: which layers the model still has.
        teacher: of the same architecture and depth as the full model.
        on_step: called after each optimiser step.

    Raises:
        UserError: the teacher is another architecture, or several processes share the training.
    """
    from depthprune.healing.teaching.replacing import replacement_loss
    from depthprune.healing.teaching.students import check_pair, inherit_weights
    from depthprune.healing.training import train

    assert teacher is not None, "a method that needs a teacher gets one"
    if processes.count() > 1:
        raise UserError("'replace' trains in one process; start it without torchrun")
    full = teacher.model()
    check_pair(model, full, hidden=False, depth=cut.plan.depth)
    inherit_weights(model, full, cut)
    if not schedule.num_epochs:
        return Healed(model)
    with replacement_loss(model, full, cut, options, seed=seed, schedule=schedule) as loss:
        report = train(model, data, schedule, loss=loss, seed=seed, on_step=on_step)
    return Healed(model, (report,))


recipe(
    "theseus",
    *(Step("replace"), Step("finetune")),
    summary="Replace groups of the full model's layers by the student's at random, then fine-tune the student.",
    paper=PAPER,
)
