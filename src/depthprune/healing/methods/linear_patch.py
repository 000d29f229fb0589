"""Linear patch: a linear map in the place of the layers that go, folded into the layer before them (ReplaceMe)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from depthprune.errors import UserError
from depthprune.healing.base import Cut, Healed, OnStep, Schedule, Teacher, TrainingData, healer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from depthprune.healing.repair.gaps import Gap, Sides

NAME = "linear-patch"


@dataclass(frozen=True)
class LinearPatchOptions:
    """How the map is estimated.

    Args:
        examples: rows to calibrate on, a seeded sample; all if there are fewer.
        ridge: how much the map is drawn towards the identity, relative to the mean square of the states.
    """

    examples: int = 1024
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        if self.examples < 1 or self.ridge < 0:
            raise UserError("examples of 'linear-patch' is 1 or more, and ridge not below 0")


@healer(NAME, options=LinearPatchOptions, drops=True, unlabelled=True, paper="https://arxiv.org/abs/2505.02819")
def linear_patch(
    model: "PreTrainedModel",
    data: TrainingData,
    options: LinearPatchOptions,
    *,
    schedule: Schedule,
    seed: int,
    cut: Cut,
    teacher: Teacher | None = None,
    on_step: OnStep | None = None,
) -> Healed:
    """Drop all layers, and fold a least-squares map in their place into the layer before; no training.

    What the layer's MLP adds to the sum of the states is mapped so that the sum comes closest to the full model's after
    the dropped layers. In a post-norm model the sums before the last norms are compared, each token relative to the
    spread of its wanted sum, which the norm divides by, and the norm takes over the weight and bias of the last dropped
    layer's. Each gap is repaired by itself, the first one first; a gap at the beginning stays as it is.

    Args:
        model: changed in place.
        data: rows to calibrate on; labels are not used.
        options: how many rows, and the regularisation.
        seed: of the sample of rows.
        cut: which layers.
        teacher: the full model, for a model that was cut already.

    Raises:
        CannotDropError: the architecture does not allow the plan.
        UserError: the map cannot be folded into this model, or it cannot be estimated; the message says why.
    """
    from depthprune.healing.repair.gaps import both_sides, nothing_to_repair, repairable
    from depthprune.healing.repair.states import calibration_batches, evaluating

    if nothing_to_repair(NAME, cut, teacher):
        return Healed(model)
    found, notes = repairable(NAME, cut.plan)
    batches = calibration_batches(NAME, data, options.examples, seed, model)
    sides = both_sides(NAME, model, cut, teacher)
    with evaluating(sides.full, sides.cut):
        for number, gap in enumerate(found):

            def tell(done: int, number: int = number) -> None:
                data.on_progress("calibrating", number * len(batches) + done, len(found) * len(batches))

            notes += (_patch(sides, gap, batches, options, tell),)
    return Healed(model, (), notes)


def _patch(sides: "Sides", gap: "Gap", batches: list[dict[str, Any]], options: LinearPatchOptions, tell: Any) -> str:
    """Repair one gap, and return a note on how well."""
    from depthprune.healing.repair.ends import end_of, last_linear
    from depthprune.healing.repair.fitting import LeastSquares
    from depthprune.healing.repair.states import Site, states_at, vectors
    from depthprune.healing.repair.weights import mapped_linear, set_weights

    assert gap.before is not None
    layer, gone = sides.layers[gap.before], sides.full_layers[gap.dropped[-1]]
    end, wanted_end = end_of(sides.cut, layer, batches[0]), end_of(sides.full, gone, batches[0])
    linear_name = last_linear(sides.cut, end, batches[0])
    if linear_name is None or not _alike(end.norm, wanted_end.norm):
        what = (
            "its output has no term that a linear module puts out"
            if linear_name is None
            else f"it and layer {gap.dropped[-1]} end in different norms"
        )
        raise UserError(
            f"'{NAME}' cannot fold a map into layer {gap.before} ({type(layer).__name__}): {what}; take 'compensate' "
            "or a method that trains"
        )
    linear = layer.get_submodule(linear_name)
    (sample,) = states_at(sides.cut, batches[0], [end.sum])
    squares = LeastSquares(sample.shape[-1], sample.device)
    for number, batch in enumerate(batches):
        states = states_at(sides.cut, batch, [Site(linear), end.sum])
        term_ND, total_ND = map(vectors, states)
        (wanted_ND,) = map(vectors, states_at(sides.full, batch, [wanted_end.sum]))
        spread_N = wanted_ND.std(-1).clamp_min(1e-6) if end.norm is not None else wanted_ND.new_ones(len(wanted_ND))
        squares.add(term_ND, total_ND, wanted_ND, spread_N**-2)
        tell(number + 1)
    fit = squares.solve(ridge=options.ridge, offset=getattr(linear, "bias", None) is not None)
    values = {f"{linear_name}.{key}": value for key, value in mapped_linear(linear, fit.matrix, fit.offset).items()}
    if end.norm is not None and wanted_end.norm is not None:
        norm_name = next(name for name, module in layer.named_modules() if module is end.norm)
        values |= {f"{norm_name}.{key}": value.detach() for key, value in wanted_end.norm.named_parameters()}
    set_weights(NAME, sides.cut, layer, values)
    return (
        f"{NAME}: a map in layer {gap.before} stands for {gap}; squared error of the states {fit.before:.3f} of their "
        f"square without it, {fit.after:.3f} with it"
    )


def _alike(one: Any, other: Any) -> bool:
    """Tell whether two norms differ in nothing but their weights."""
    if one is None or other is None:
        return one is other
    return type(one) is type(other) and _numbers(one) == _numbers(other)


def _numbers(norm: Any) -> dict[str, Any]:
    shapes = {name: tuple(parameter.shape) for name, parameter in norm.named_parameters()}
    return {name: value for name, value in vars(norm).items() if isinstance(value, int | float | tuple)} | shapes
