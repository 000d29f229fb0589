"""Size of a model."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def num_parameters(model: "nn.Module") -> int:
    """Return the number of parameters; tied ones count once."""
    return sum(p.numel() for p in model.parameters())


def weight_bytes(model: "nn.Module") -> int:
    """Return the bytes that the tensors take on disk in their present dtype; tied ones count once."""
    tensors = {t.data_ptr(): t.nbytes for t in model.state_dict().values()}
    return sum(tensors.values())
