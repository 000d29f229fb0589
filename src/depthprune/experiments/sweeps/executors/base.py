"""What an executor is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from depthprune.registry import Registry

Function = Callable[[Any], Any]
LOST = 2  # workers that an item may take with it before it is given up


@dataclass(frozen=True)
class Resources:
    """What one item needs, and how much there is.

    Args:
        workers: items at a time; decided by what there is if None.
        cpus: of an item; the cores shared among the workers if None.
        gpus: of an item; a fraction where several items share one.
        address: of a cluster.
    """

    workers: int | None = None
    cpus: int | None = None
    gpus: float = 0
    address: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of an item.

    Args:
        item: as it was given.
        result: of the function, or None where the worker was lost.
        lost: why there is no result.
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
