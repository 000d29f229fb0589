"""The interface of an executor."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from depthprune.registry import Registry

Function = Callable[[Any], Any]
LOST = 2  # workers that may die on an item before it counts as lost


@dataclass(frozen=True)
class Resources:
    """What an item needs, and what there is.

    Args:
        workers: number of parallel items; by cores or GPUs if None.
        cpus: per item; the cores divided by the workers if None.
        gpus: per item; a fraction if several items share one.
        address: of a cluster.
    """

    workers: int | None = None
    cpus: int | None = None
    gpus: float = 0
    address: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome of an item.

    Args:
        item: the item.
        result: of the function; None if the worker was lost.
        lost: why there is no result; None if there is one.
    """

    item: Any
    result: Any = None
    lost: str | None = None


class Executor(Protocol):
    """Maps a picklable function over items."""

    def __call__(self, function: Function, items: Sequence[Any], resources: Resources) -> Iterator[Outcome]:
        """Yield an outcome for every item, in the order in which they end."""
        ...


registry: Registry[Executor] = Registry("executor", "depthprune.experiments.sweeps.executors")
