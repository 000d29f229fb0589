"""Scores that a sweep's strategies need: from the store, or taken now and put there. No torch until one is taken."""

from pathlib import Path
from typing import Any

from depthprune.experiments.choosing import score_file, task_scores
from depthprune.scores import Scores, read_scores
from depthprune.sources import ModelSource
from depthprune.tasks import TaskData


def stored_scorer(store: Path, device: str, *, take: bool) -> Any:
    """Return a function that a sweep's expansion asks for scores.

    Args:
        take: run the model where the store has no scores; otherwise the answer is None.
    """

    def scores_of(source: ModelSource, strategy: Any, data: TaskData, max_length: int) -> Scores | None:
        file = score_file(store, source, strategy.name, data, max_length)
        if file.is_file():
            return read_scores(file)
        if not take:
            return None
        from depthprune.experiments.prepare import resolve_device

        return task_scores(
            source,
            strategy.name,
            data,
            max_length=max_length,
            store=store,
            device=resolve_device(device),
            on_progress=lambda stage, done, total: None,
        )

    return scores_of
