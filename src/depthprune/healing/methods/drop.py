"""The drop as a step, for recipes that train before it."""

from typing import TYPE_CHECKING

from depthprune.healing.base import Cut, Healed, OnStep, Schedule, Teacher, TrainingData, healer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@healer("drop", drops=True, unlabelled=True)
def drop(
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
    """Drop the layers of the plan; a recipe without this step begins with it.

    Args:
        model: changed in place.
        cut: which layers.

    Raises:
        CannotDropError: if the architecture does not allow it.
    """
    cut.drop(model, cut.pending)
    return Healed(model)
