"""Magnitude compensation: the states after a gap get the size that they had in the full model (Prune&Comp)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from depthprune.errors import UserError
from depthprune.healing.base import Cut, Healed, OnStep, Schedule, Teacher, TrainingData, healer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "compensate"


@dataclass(frozen=True)
class CompensateOptions:
    """What is estimated.

    Args:
        examples: rows to calibrate on, a seeded sample; all if there are fewer.
        per_dimension: a scale and an offset for each dimension, by least squares, in place of one scale for all; only
            post-norm models can take them.
    """

    examples: int = 128
    per_dimension: bool = False

    def __post_init__(self) -> None:
        if self.examples < 1:
            raise UserError("examples of 'compensate' is 1 or more")


@healer(NAME, options=CompensateOptions, drops=True, unlabelled=True, paper="https://arxiv.org/abs/2507.18212")
def compensate(
    model: "PreTrainedModel",
    data: TrainingData,
    options: CompensateOptions,
    *,
    schedule: Schedule,
    seed: int,
    cut: Cut,
    teacher: Teacher | None = None,
    on_step: OnStep | None = None,
) -> Healed:
    """Drop all layers, and scale the states there to the size that the full model's have after them; no training.

    The scale is the ratio of the mean absolute values of the states. A post-norm model takes it into the weight and
    bias of the norm before the gap. In a pre-norm model all that later layers add to the states is divided by it, which
    comes to the same, since every later norm divides by the size of the states (the paper multiplies the embeddings and
    what earlier layers add, which a head that shares the embeddings could not take); after the last layer it is without
    effect. Each gap is compensated by itself, the first one first.

    Args:
        model: changed in place.
        data: rows to calibrate on; labels are not used.
        options: how many rows, and what is estimated.
        seed: of the sample of rows.
        cut: which layers.
        teacher: the full model, for a model that was cut already.

    Raises:
        CannotDropError: the architecture does not allow the plan.
        UserError: the scale cannot be folded into this model; the message says why.
    """
    from depthprune.healing.repair.gaps import both_sides, gaps, nothing_to_repair
    from depthprune.healing.repair.scales import compensate_gap
    from depthprune.healing.repair.states import calibration_batches, evaluating

    if nothing_to_repair(NAME, cut, teacher):
        return Healed(model)
    batches = calibration_batches(NAME, data, options.examples, seed, model)
    sides = both_sides(NAME, model, cut, teacher)
    found, notes = gaps(cut.plan), list[str]()
    total: Any = 1.0  # of all scales so far, in a model that has divided later layers by it
    with evaluating(sides.full, sides.cut):
        for number, gap in enumerate(found):

            def tell(done: int, number: int = number) -> None:
                data.on_progress("calibrating", number * len(batches) + done, len(found) * len(batches))

            note, total = compensate_gap(sides, gap, batches, total, tell, per_dimension=options.per_dimension)
            notes.append(note)
    return Healed(model, (), tuple(notes))
