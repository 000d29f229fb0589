from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from depthprune.experiments.sweeps.executors.base import Outcome, Resources
from depthprune.experiments.sweeps.executors.base import registry as executors


@pytest.fixture
def one_by_one(monkeypatch) -> None:
    """Carry out runs one after the other in this process: what workers import takes longer than tiny runs."""

    def in_this_process(do: Callable, items: Sequence[Any], resources: Resources) -> Iterator[Outcome]:
        for item in items:
            yield Outcome(item, do(item))

    executors.names()
    monkeypatch.setitem(executors._parts, "local", in_this_process)
