"""The processes that torchrun or `accelerate launch` starts, which share one training. No torch until one is asked.

All of them load the model and the data and train; the first alone measures, scores and writes, and what it found out
is told to the others, so that none decides otherwise.
"""

import os
from datetime import timedelta
from typing import Any, TypeVar

from depthprune.errors import UserError

Value = TypeVar("Value")
WAIT_HOURS = 6  # the others wait while the first one scores; torch's own limit is half an hour


def count() -> int:
    """Return how many processes there are; one where nobody started more, whatever else a cluster's shell says."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def is_first() -> bool:
    """Tell whether this process is the one that writes; a process alone is."""
    return count() == 1 or os.environ.get("RANK", "0") == "0"


def local_index() -> int:
    """Return this process's place on its machine, which is its GPU's number."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def uses_fsdp() -> bool:
    """Tell whether accelerate's configuration asks for sharded weights."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")


def begin(device: str) -> None:
    """Let the processes find each other; does nothing for a process alone.

    Raises:
        UserError: sharded weights were asked for without a GPU.
    """
    if count() == 1:
        return
    if uses_fsdp() and not device.startswith("cuda"):
        raise UserError("accelerate's FSDP needs GPUs, and trains without sharding on a CPU; use torchrun there")
    from accelerate import PartialState

    PartialState(cpu=not device.startswith("cuda"), timeout=timedelta(hours=WAIT_HOURS))


def agree(value: Value) -> Value:
    """Return the first process's value in all of them; values have to be picklable."""
    if count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    values: list[Any] = [value]
    broadcast_object_list(values)
    return values[0]


def end() -> None:
    """Leave the others in good order."""
    if count() == 1:
        return
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
