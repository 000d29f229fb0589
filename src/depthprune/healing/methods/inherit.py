"""The full model's fine-tuned weights as the student's start."""

from typing import TYPE_CHECKING

from depthprune.healing.base import Cut, Healed, OnStep, Schedule, Teacher, TrainingData, healer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@healer("inherit", needs_teacher=True)
def inherit(
    model: "PreTrainedModel",
    data: TrainingData,
    options: None = None,
    *,
    schedule: Schedule,
    seed: int,
    cut: Cut,
    teacher: Teacher | None,
    on_step: OnStep | None = None,
) -> Healed:
    """Take the weights of the teacher, head included, and not those of the model before fine-tuning, to start from.

    With the full model as the teacher this is what the two-step recipe starts its second training from, and the full
    model is fine-tuned once for all cuts.

    Args:
        model: changed in place; what is frozen stays as it is.
        cut: which layers it has.
        teacher: of the same architecture and depth as the full model.

    Raises:
        UserError: the teacher is another architecture.
    """
    from depthprune.healing.teaching.students import check_pair, inherit_weights

    assert teacher is not None, "a method that needs a teacher gets one"
    full = teacher.model()
    check_pair(model, full, hidden=False, depth=cut.plan.depth)
    inherit_weights(model, full, cut)
    return Healed(model)
