"""Layer merging: the weights of the layers that go are added to the layer before them (LaCo)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from depthprune.errors import UserError
from depthprune.healing.base import Cut, Healed, OnStep, Schedule, Teacher, TrainingData, healer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from depthprune.healing.repair.gaps import Gap, Sides

NAME = "merge"


@dataclass(frozen=True)
class MergeOptions:
    """How much of the dropped layers is added.

    Args:
        weight: of the sum of the differences; 1 is LaCo's, and 1 / (dropped + 1) makes the mean of the layers.
    """

    weight: float = 1.0


@healer(NAME, options=MergeOptions, drops=True, unlabelled=True, paper="https://arxiv.org/abs/2402.11187")
def merge(
    model: "PreTrainedModel",
    data: TrainingData,
    options: MergeOptions,
    *,
    schedule: Schedule,
    seed: int,
    cut: Cut,
    teacher: Teacher | None = None,
    on_step: OnStep | None = None,
) -> Healed:
    """Drop all layers, and add the differences of their weights to the layer before; no data, no training.

    W_i + weight · Σ (W_j - W_i) over the dropped layers j after layer i, for all its parameters (equation 2 of the
    paper; the code that its authors published comes to the projections of the last merged layer alone). A gap at the
    beginning stays as it is.

    Args:
        model: changed in place.
        data: not needed.
        options: how much is added.
        cut: which layers.
        teacher: the full model, for a model that was cut already.

    Raises:
        CannotDropError: the architecture does not allow the plan.
        UserError: layers that differ in more than their weights.
    """
    from depthprune.healing.repair.gaps import both_sides, nothing_to_repair, repairable

    if nothing_to_repair(NAME, cut, teacher):
        return Healed(model)
    found, notes = repairable(NAME, cut.plan)
    sides = both_sides(NAME, model, cut, teacher)
    for gap in found:
        _merge(sides, gap, options.weight)
    return Healed(model, (), (*notes, *(f"{NAME}: {gap} went into layer {gap.before}" for gap in found)))


def _merge(sides: "Sides", gap: "Gap", weight: float) -> None:
    from depthprune.healing.repair.weights import set_weights

    assert gap.before is not None
    layer = sides.layers[gap.before]
    own = dict(layer.named_parameters())
    values = {name: parameter.detach().double() for name, parameter in own.items()}
    for number in gap.dropped:
        other = dict(sides.full_layers[number].named_parameters())
        odd = sorted(set(own) ^ set(other)) or [name for name in own if own[name].shape != other[name].shape]
        if odd:
            raise UserError(
                f"'{NAME}' cannot add layer {number} to layer {gap.before}: they differ in '{odd[0]}'; take another "
                "method, or other layers"
            )
        for name, parameter in own.items():
            difference = other[name].detach().double() - parameter.detach().double()
            values[name] = values[name] + weight * difference
    set_weights(NAME, sides.cut, layer, values)
