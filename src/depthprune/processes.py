"""The processes of torchrun or `accelerate launch`, which share one training. torch is imported on first use.

All of them load the model and the data and train; only the first one measures, evaluates and writes, and broadcasts its
results, so that all take the same decisions.
"""

import os
from datetime import timedelta
from typing import Any, TypeVar

from depthprune.errors import UserError

Value = TypeVar("Value")
WAIT_HOURS = 6  # the others wait while the first one evaluates; torch's default is half an hour


def count() -> int:
    """Return the number of processes; one unless torchrun started more, whatever other variables a cluster sets."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def is_first() -> bool:
    """Return whether this process is the one that writes; a single process is."""
    return count() == 1 or os.environ.get("RANK", "0") == "0"


def local_index() -> int:
    """Return this process's rank on its machine, which is its GPU's index."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def uses_fsdp() -> bool:
    """Return whether accelerate's configuration asks for sharded weights."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")


def begin(device: str) -> None:
    """Initialise the process group; does nothing for a single process.

    Raises:
        UserError: if sharded weights were asked for without a GPU.
    """
    if count() == 1:
        return
    if uses_fsdp() and not device.startswith("cuda"):
        raise UserError("accelerate's FSDP needs GPUs, and trains without sharding on a CPU; use torchrun there")
    from accelerate import PartialState

    PartialState(cpu=not device.startswith("cuda"), timeout=timedelta(hours=WAIT_HOURS))


def agree(value: Value) -> Value:
    """Broadcast the first process's value; it has to be picklable."""
    if count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    values: list[Any] = [value]
    broadcast_object_list(values)
    return values[0]


def end() -> None:
    """Destroy the process group."""
    if count() == 1:
        return
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
