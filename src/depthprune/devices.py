"""Where a model runs. Nothing is detected at import, and torch is imported when a device is asked for."""

from depthprune import processes
from depthprune.errors import UserError


def resolve_device(device: str) -> str:
    """Return `cpu` or `cuda` for `auto`, and check the others.

    Raises:
        UserError: if this machine has no such device.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and torch.cuda.is_available() and processes.count() > 1:
        return f"cuda:{processes.local_index()}"  # one GPU per process
    if device == "cpu" or (device.startswith("cuda") and torch.cuda.is_available()):
        return device
    raise UserError(f"there is no device '{device}' here; use --device cpu")
