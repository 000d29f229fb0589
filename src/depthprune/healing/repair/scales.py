"""Scale the states at a gap, and fold the scale into weights that stay.

Shapes: N tokens of a batch, D hidden size.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from depthprune.errors import UserError
from depthprune.healing.repair.ends import end_of, norm_behind, writers
from depthprune.healing.repair.gaps import Gap, Sides
from depthprune.healing.repair.states import Batch, Site, changed, refuse_infinite, states_at, vectors
from depthprune.healing.repair.weights import scaled, set_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}  # relative; the epsilon in a norm is seen in small states
COARSE = 5e-2  # of other dtypes


def compensate_gap(
    sides: Sides, gap: Gap, batches: Sequence[Batch], total: float, tell: Callable[[int], None], *, per_dimension: bool
) -> tuple[str, float]:
    """Compensate one gap.

    Args:
        total: what later layers of a pre-norm model have been divided by so far.
        tell: called with the number of batches done.
        per_dimension: a scale and an offset for each dimension, by least squares.

    Returns:
        A note, and the new total.

    Raises:
        UserError: the scale cannot be folded into the weights.
    """
    model = sides.cut
    site = _site(sides, gap)
    wanted = Site(sides.full_layers[gap.dropped[-1]])
    norm = _norm(sides, gap, site, batches[0])
    if norm is None and gap.after is None:
        return f"compensate: no layer follows {gap}, and a scale before the last norm is without effect", total
    if norm is None and per_dimension:
        raise UserError(
            f"'compensate' with per_dimension scales the output of a norm, and what leaves before {gap} of a "
            f"{type(model).__name__} is a sum; leave per_dimension out"
        )
    sums = _Sums(model, site, sides.full, wanted, batches, tell)
    scale: Any = sums.ratio()
    offset, shown = None, f"{scale:.3f}"
    if per_dimension:
        scale, offset = sums.affine()
        shown = f"{float(scale.mean()):.3f} on average, each dimension by its own"
    step = scale if norm is not None else scale / total
    apply = lambda states: (states * step + (0 if offset is None else offset)).to(states)  # noqa: E731
    with changed(site, apply):
        expected = model.base_model(**batches[0])[0]
    if norm is not None:
        owner, name = _owner(model, norm)
        values = {f"{name}.{key}": value for key, value in _scaled_norm(norm, step, offset).items()}
        set_weights(sides.name, model, owner, values)
    else:
        _divide_later(sides, gap, step, batches[0])
        total = float(scale)
    _check(sides, gap, expected, batches[0])
    return f"compensate: the states after {gap} are scaled by {shown}", total


def _site(sides: Sides, gap: Gap) -> Site:
    """Return where the cut model's states pass a gap."""
    if gap.before is not None:
        return Site(sides.layers[gap.before])
    assert gap.after is not None
    return Site(sides.layers[gap.after], entering=True)


def _norm(sides: Sides, gap: Gap, site: Site, batch: Batch) -> nn.Module | None:
    """Return the norm that the states at a gap come from, in the layer before or before all layers."""
    if gap.before is not None:
        return end_of(sides.cut, sides.layers[gap.before], batch).norm
    inside = {module for layer in sides.layers.values() for module in layer.modules()}
    outside = [module for module in sides.cut.modules() if module not in inside]
    return norm_behind(sides.cut, site, outside, batch)


def _scaled_norm(norm: nn.Module, scale: Any, offset: Tensor | None) -> dict[str, Tensor]:
    if offset is not None and getattr(norm, "bias", None) is None:
        raise UserError(
            f"'compensate' with per_dimension needs a norm with a bias, and a {type(norm).__name__} has none; leave "
            "per_dimension out"
        )
    return scaled(norm, scale, offset)


def _owner(model: "PreTrainedModel", norm: nn.Module) -> tuple[nn.Module, str]:
    path = next(name for name, module in model.named_modules() if module is norm)
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name


def _divide_later(sides: Sides, gap: Gap, scale: float, batch: Batch) -> None:
    """Divide what layers after a gap add to the states."""
    for number, layer in sides.layers.items():
        if number < gap.dropped[-1]:
            continue
        end = end_of(sides.cut, layer, batch)
        names = writers(sides.cut, end, batch) if end.norm is None else []
        if not names:
            raise UserError(
                f"'compensate' cannot be folded into layer {number} ({type(layer).__name__}): no linear module writes "
                "into its sum; take a method that trains"
            )
        values = {}
        for name in names:
            values |= {f"{name}.{key}": value for key, value in scaled(layer.get_submodule(name), 1 / scale).items()}
        set_weights(sides.name, sides.cut, layer, values)


def _check(sides: Sides, gap: Gap, expected: Tensor, batch: Batch) -> None:
    """Refuse weights that do not do what the scale did."""
    got = sides.cut.base_model(**batch)[0]
    error = float((got.double() - expected.double()).norm() / expected.double().norm())
    if not error <= TOLERANCE.get(got.dtype, COARSE):
        raise UserError(
            f"'compensate' cannot be folded into the weights of a {type(sides.cut).__name__}: scaling the states after "
            f"{gap} and scaling the weights differ by {error:.1%}; take a method that trains"
        )


class _Sums:
    """Running sums over the states at a gap and the full model's."""

    def __init__(
        self,
        model: "PreTrainedModel",
        site: Site,
        full: "PreTrainedModel",
        wanted: Site,
        batches: Sequence[Batch],
        tell: Callable[[int], None],
    ):
        self._tokens, self._sums = 0, [torch.zeros(())] * 6
        for number, batch in enumerate(batches):
            (x_ND,), (y_ND,) = (
                map(vectors, states_at(model, batch, [site])),
                map(vectors, states_at(full, batch, [wanted])),
            )
            new = (x_ND, y_ND, x_ND * x_ND, x_ND * y_ND, x_ND.abs(), y_ND.abs())
            self._sums = [old.to(each) + each.sum(0) for old, each in zip(self._sums, new, strict=True)]
            self._tokens += len(x_ND)
            tell(number + 1)
        refuse_infinite(torch.isfinite(torch.stack(self._sums)))

    def ratio(self) -> float:
        """Return the mean absolute value of the full model's states over that of the cut model's."""
        return float(self._sums[5].sum() / self._sums[4].sum())

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return scale and offset [D] that come closest to the full model's states in each dimension."""
        x_D, y_D, xx_D, xy_D = (each / self._tokens for each in self._sums[:4])
        spread_D = xx_D - x_D**2
        scale_D = torch.where(spread_D > 0, (xy_D - x_D * y_D) / spread_D, torch.ones_like(x_D))
        return scale_D, y_D - scale_D * x_D
