"""LayerDrop: at each step every layer is left out with a probability, so that the model can be cut at any depth."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from depthprune.errors import UserError
from depthprune.healing.base import Cut, Healed, OnStep, Schedule, Teacher, TrainingData, healer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LayerDropOptions:
    """How many layers are left out.

    Args:
        rate: the probability, of every layer and step. 0.2 is the paper's for cuts to about half the depth; 1 minus the
            share of the layers that stay is where a depth is trained most often.
    """

    rate: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise UserError(f"rate of 'layerdrop' is a probability between 0 and 1, not {self.rate:g}")

    @property
    def any_plan(self) -> bool:
        """The training is the same whichever layers are dropped afterwards."""
        return True


@healer("layerdrop", options=LayerDropOptions, drops=True, paper="https://arxiv.org/abs/1909.11556")
def layerdrop(
    model: "PreTrainedModel",
    data: TrainingData,
    options: LayerDropOptions,
    *,
    schedule: Schedule,
    seed: int,
    cut: Cut,
    teacher: Teacher | None = None,
    on_step: OnStep | None = None,
) -> Healed:
    """Train the whole model, leaving every layer out of a step with a probability; then drop.

    A step costs the layers that run. At least one of them does.

    Args:
        model: trained in place.
        data: rows with labels.
        options: the probability.
        schedule: how long and how fast.
        seed: of the order of the rows, of dropout, and of the layers that are left out.
        cut: the layers to drop.
        on_step: called after each optimiser step.

    Raises:
        CannotDropError: if the architecture does not allow it.
        UserError: several processes share the training.
    """
    from depthprune.healing.teaching.subnetworks import layerdrop_loss, trained_in_part
    from depthprune.healing.training import train

    trainings = ()
    if schedule.num_epochs:
        each = [frozenset({layer}) for layer in range(len(cut.present))] if len(cut.present) > 1 else []
        with trained_in_part(model, data, each, "layerdrop") as parts:
            loss = layerdrop_loss(parts, options.rate, accumulation=schedule.accumulation)
            trainings = (train(model, data, schedule, loss=loss, seed=seed, on_step=on_step),)
    cut.drop(model, cut.pending)
    return Healed(model, trainings)
