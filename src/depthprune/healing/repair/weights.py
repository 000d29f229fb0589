"""Put new values into the weights of a model, or say why that cannot be."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from depthprune.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def set_weights(name: str, model: "PreTrainedModel", module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give parameters of a module new values, in the dtype that they had.

    The old tensors stay as they are: the full model may share them.

    Args:
        name: of the method, for messages.
        values: dotted name of a parameter inside the module → its new value.

    Raises:
        UserError: a parameter is frozen, quantised or shared by other modules, or a value is not finite. Nothing has
            been changed then.
    """
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    for key, value in values.items():
        old = module.get_parameter(key)
        known = next((path for path, parameter in model.named_parameters() if parameter is old), key)
        if not old.requires_grad and old.is_floating_point():
            raise UserError(f"'{name}' changes '{known}', which is frozen; repair the cut before anything is frozen")
        if not old.is_floating_point() or uses[id(old)] > 1:
            what = "shared by several modules" if old.is_floating_point() else "quantised"
            raise UserError(f"'{name}' cannot change '{known}', which is {what}; take a method that trains")
        if not torch.isfinite(value).all():
            raise UserError(f"'{name}' found no finite values for '{known}'; load the model in float32")
    for key, value in values.items():
        path, _, attribute = key.rpartition(".")
        owner = module.get_submodule(path)
        old = getattr(owner, attribute)
        setattr(owner, attribute, nn.Parameter(value.to(old), requires_grad=old.requires_grad))


def mapped_linear(linear: nn.Module, matrix: Tensor, offset: Tensor | None) -> dict[str, Tensor]:
    """Return the parameters of a linear module whose output y is to become y · matrix + offset.

    Args:
        linear: `nn.Linear` or GPT-2's `Conv1D`.
        matrix: float64 [D, D].
        offset: float64 [D]; None without one.
    """
    weight: Tensor = linear.weight.detach().double()  # pyright: ignore[reportAssignmentType, reportCallIssue]
    values = {"weight": weight @ matrix if isinstance(linear, Conv1D) else matrix.T @ weight}
    bias = getattr(linear, "bias", None)
    if isinstance(bias, Tensor):
        values["bias"] = bias.detach().double() @ matrix + (offset if offset is not None else 0)
    return values


def scaled(module: nn.Module, scale: Tensor | float, offset: Tensor | None = None) -> dict[str, Tensor]:
    """Return the weight and bias of a module whose output y is to become scale · y + offset."""
    values = {name: parameter.detach().double() * scale for name, parameter in module.named_parameters()}
    if offset is not None:
        values["bias"] = values["bias"] + offset
    return values
