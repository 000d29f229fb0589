"""Plain fine-tuning on the task, and the two-step recipe of it (Sajjad et al., section 5)."""

from typing import TYPE_CHECKING

from depthprune.healing.base import Cut, Healed, OnStep, Schedule, Teacher, TrainingData, healer, recipe
from depthprune.specs import Step

if TYPE_CHECKING:
    from transformers import PreTrainedModel


PAPER = "https://arxiv.org/abs/2004.03844"


@healer("finetune", paper=PAPER)
def finetune(
    model: "PreTrainedModel",
    data: TrainingData,
    options: None = None,
    *,
    schedule: Schedule,
    seed: int,
    cut: Cut,
    teacher: Teacher | None = None,
    on_step: OnStep | None = None,
) -> Healed:
    """Train all parameters that are not frozen on the task's labels.

    Args:
        model: trained in place.
        data: rows with labels.
        options: none.
        schedule: how long and how fast.
        seed: of the order of the rows and of dropout.
        cut: not needed.
        teacher: not needed.
        on_step: called after each optimiser step.
    """
    from depthprune.healing.training import train

    report = train(model, data, schedule, seed=seed, on_step=on_step)
    return Healed(model, (report,) if report.steps else ())


recipe(
    "two-step",
    *(Step("finetune"), Step("drop"), Step("finetune")),
    summary="Fine-tune the full model, drop, and fine-tune what is left.",
    paper=PAPER,
)
