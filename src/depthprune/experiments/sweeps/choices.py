"""Scores and searches that a sweep's strategies need, from the store or computed and stored now.

No torch until one is computed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from depthprune.experiments.choosing.choose import score_file, task_scores
from depthprune.experiments.choosing.task_search import task_search
from depthprune.quiet import no_progress
from depthprune.scores import Scores, read_scores
from depthprune.sources import ModelSource
from depthprune.strategies.search_result import SearchResult
from depthprune.strategies.searched import methods
from depthprune.tasks import TaskData


def stored_scorer(store: Path, device: str, *, take: bool, on_progress: Any = no_progress) -> Any:
    """Return the function by which a sweep's expansion gets scores and results of searches.

    Args:
        take: run the model if the store has no scores; otherwise return None.
        on_progress: called with (name of the stage, steps done, steps in all).
    """

    def scores_of(
        source: ModelSource, strategy: Any, data: TaskData, max_length: int, counts: Sequence[int] = ()
    ) -> Scores | SearchResult | None:
        if strategy.name in methods.names():
            how: dict[str, Any] = {"protect": strategy.protect, "max_length": max_length, "store": store}
            how |= {"device": device, "take": take, "on_progress": on_progress}
            return task_search(source, strategy.name, data, tuple(counts), **how)
        file = score_file(store, source, strategy.name, data, max_length)
        if file.is_file():
            return read_scores(file)
        if not take:
            return None
        from depthprune.devices import resolve_device

        return task_scores(
            source,
            strategy.name,
            data,
            max_length=max_length,
            store=store,
            device=resolve_device(device),
            on_progress=on_progress,
        )

    return scores_of
