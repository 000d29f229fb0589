"""How a layer puts its output together, found by running it: by a norm (post-norm) or by a sum (pre-norm).

No table of architectures: the last norm is the module whose output is the layer's, and whose weight scales it; a linear
module writes into the sum where what is added to its output is added to the sum.

Shapes: B sequences, T tokens, D hidden size.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from depthprune.healing.repair.states import Batch, Site, changed, refuse_infinite, states_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LINEAR = (nn.Linear, Conv1D)
EXACT = 1e-3  # relative to what was added: rounding in float32, and much below any effect
LARGE = 1e4  # times the states: what a norm holds down is then nothing beside what is added


@dataclass(frozen=True)
class End:
    """How the output of a layer comes about.

    Args:
        layer: the layer.
        norm: the norm whose output it is, in a post-norm model; None in a pre-norm model, where it is a sum.
    """

    layer: nn.Module
    norm: nn.Module | None

    @property
    def sum(self) -> Site:
        """Where the last sum of the layer is seen: before its norm, or as its output."""
        return Site(self.layer) if self.norm is None else Site(self.norm, entering=True)


def end_of(model: "PreTrainedModel", layer: nn.Module, batch: Batch) -> End:
    """Find out how a layer of a model makes its output."""
    return End(layer, norm_behind(model, Site(layer), list(layer.modules()), batch))


def norm_behind(model: "PreTrainedModel", site: Site, modules: list[nn.Module], batch: Batch) -> nn.Module | None:
    """Return the norm among `modules` whose output is the states at a site, and whose weight and bias scale them."""
    outputs: dict[nn.Module, Tensor] = {}
    candidates = [module for module in modules if _is_affine(module)]
    note = lambda module, args, output: outputs.update({module: output})  # noqa: E731
    handles = [module.register_forward_hook(note) for module in candidates]
    try:
        (states,) = states_at(model, batch, [site])
    finally:
        for handle in handles:
            handle.remove()
    refuse_infinite(torch.isfinite(states))
    for module in reversed(outputs):
        output = outputs[module]
        if isinstance(output, Tensor) and output.shape == states.shape and torch.equal(output, states):
            return module if _scales(model, module, site, states, batch) else None
    return None


def _is_affine(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() == 1 and not list(module.children())


def _scales(model: "PreTrainedModel", norm: nn.Module, site: Site, states: Tensor, batch: Batch) -> bool:
    """Tell whether twice the weight and bias of a norm make twice the states."""
    before = {name: parameter.data for name, parameter in norm.named_parameters()}
    try:
        for parameter in norm.parameters():
            parameter.data = 2 * parameter.data
        (twice,) = states_at(model, batch, [site])
    finally:
        for name, parameter in norm.named_parameters():
            parameter.data = before[name]
    return bool(torch.allclose(twice, 2 * states, rtol=1e-5, atol=1e-6))


def last_linear(model: "PreTrainedModel", end: End, batch: Batch) -> str | None:
    """Return the name, in the layer, of the last linear module whose output is a term of the layer's last sum.

    That is the down-projection of the MLP, where nothing stands between it and the sum.
    """
    (total,) = states_at(model, batch, [end.sum])
    generator = torch.Generator().manual_seed(0)
    added = torch.randn(total.shape, generator=generator).to(total) * total.float().std()

    def is_term(site: Site) -> bool:
        with changed(site, lambda states: states + added):
            (now,) = states_at(model, batch, [end.sum])
        return _close(now - total, added, EXACT)

    return next((name for name in reversed(_linear_names(model, end, batch)) if is_term(_site(end, name))), None)


def writers(model: "PreTrainedModel", end: End, batch: Batch) -> list[str]:
    """Return the names of the linear modules of a pre-norm layer whose outputs are terms of its output.

    Those are the down-projection and the attention's output projection. What is added to the latter changes the MLP's
    input as well; a norm holds that down, so that a large term stands out.
    """
    (total,) = states_at(model, batch, [end.sum])
    generator = torch.Generator().manual_seed(0)
    added = torch.randn(total.shape, generator=generator).to(total) * total.float().std() * LARGE

    def is_term(site: Site) -> bool:
        with changed(site, lambda states: states + added):
            (now,) = states_at(model, batch, [end.sum])
        return _close(now, added, 10 / LARGE**0.5)

    return [name for name in _linear_names(model, end, batch) if is_term(_site(end, name))]


def _site(end: End, name: str) -> Site:
    return Site(end.layer.get_submodule(name))


def _linear_names(model: "PreTrainedModel", end: End, batch: Batch) -> list[str]:
    """Return the linear modules of a layer that put out states of its size, in the order in which they run."""
    shapes: dict[str, torch.Size] = {}
    handles = []
    for name, module in end.layer.named_modules():
        if isinstance(module, LINEAR) and module.weight.is_floating_point():
            note: Any = lambda module, args, output, name=name: shapes.update({name: output.shape})  # noqa: E731
            handles.append(module.register_forward_hook(note))
    try:
        (total,) = states_at(model, batch, [end.sum])
    finally:
        for handle in handles:
            handle.remove()
    return [name for name, shape in shapes.items() if shape == total.shape]


def _close(one: Tensor, other: Tensor, relative: float) -> bool:
    one, other = one.double(), other.double()
    return bool((one - other).norm() <= relative * other.norm())
