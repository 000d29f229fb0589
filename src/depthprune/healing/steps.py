"""Carry out the steps of a recipe, one after the other. No torch before a step needs it.

The first steps of some recipes are the same for all plans: they train the whole model once, which is cut at any depth
then. Such a part ends with a step that trains sub-networks (`adaptive-layers`, `layerdrop`).
"""

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
            data if step.healer.teacher_loss else data.labelled_rows(),
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


def shared_length(recipe: Sequence[PlannedStep]) -> int:
    """Return how many of a recipe's first steps train alike for all plans; 0 where none of them is for any plan.

    Args:
        recipe: from `healing.recipe.resolve`.
    """
    last = max((i for i, step in enumerate(recipe) if step.any_plan), default=-1)
    # A step before may freeze the layers of the plan.
    return 0 if any(getattr(step.options, "dropped", False) for step in recipe[:last]) else last + 1


def remaining(recipe: Sequence[PlannedStep]) -> tuple[PlannedStep, ...]:
    """Return what is left of a recipe, for one plan, after the part for all plans: the drop, and what follows."""
    length = shared_length(recipe)
    assert length, "a recipe with a shared part"
    return (PlannedStep(registry.get("drop"), None, recipe[length - 1].schedule), *recipe[length:])
