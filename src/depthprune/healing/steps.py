"""Carry out the steps of a recipe, one after the other. No torch before a step needs it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from depthprune.errors import UserError
from depthprune.healing.base import Cut, Healed, HealReport, OnStep, PlannedStep, Teacher, TrainingData, registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def run_steps(
    model: "PreTrainedModel",
    data: TrainingData,
    recipe: Sequence[PlannedStep],
    *,
    cut: Cut,
    seed: int,
    teacher: Teacher | None,
    on_step: OnStep | None,
) -> Healed:
    """Run the steps on a model; what they freeze stays frozen. See `healing.recipe.heal` for the arguments.

    Raises:
        UserError: a step needs a teacher and there is none.
    """
    trainings: list[HealReport] = []
    notes: list[str] = []
    was_cut = not cut.pending  # what drops and repairs then compares with the teacher
    for step in recipe:
        name = step.healer.name
        if step.healer.needs_teacher and teacher is None:
            raise UserError(f"'{name}' needs a teacher, the full model; give one")
        healed = step.healer.function(
            model,
            data,
            step.options,
            schedule=step.schedule,
            seed=seed,
            cut=cut,
            teacher=teacher if step.healer.needs_teacher or (was_cut and step.healer.drops) else None,
            on_step=on_step,
        )
        model = registry.check_returned(name, healed, Healed).model
        trainings += healed.trainings
        notes += healed.notes
        notes += [f"the frozen layers' states: {each.frozen}" for each in healed.trainings if each.frozen]
    return Healed(model, tuple(trainings), tuple(notes))
