"""How far a training is, in words: its stage, and behind `DETAIL` its last loss and score. No torch."""

from collections.abc import Callable

from depthprune.healing.base import Point

DETAIL = " · "  # what follows in the name of a stage changes from step to step, and makes no new stage of it


class TrainingProgress:
    """Tells `on_progress` of the steps of trainings.

    Args:
        on_progress: called with the stage, the steps done and the steps in all.
        stage: its name.
    """

    def __init__(self, on_progress: Callable[[str, int, int], None], stage: str):
        self._on_progress, self._stage = on_progress, stage
        self._known: dict[str, float] = {}

    def log(self, point: Point) -> None:
        """Take note of the last loss, or of the last epoch's score on rows that are held out."""
        names = {"loss": "loss", "validation_score": "held out"}
        self._known |= {said: point[name] for name, said in names.items() if name in point}

    def step(self, done: int, total: int) -> None:
        """Tell of a step."""
        if done == 1:
            self._known.pop("held out", None)  # an earlier training's
        said = ", ".join(f"{name} {value:.4g}" for name, value in self._known.items())
        self._on_progress(f"{self._stage}{DETAIL}{said}" if said else self._stage, done, total)


def counted(stage: str, done: int, total: int) -> str:
    """Write a stage with how far it is.

    >>> counted("training · loss 0.53", 30, 120)
    'training 30/120, loss 0.53'
    """
    name, _, detail = stage.partition(DETAIL)
    return f"{name} {done}/{total}" + (f", {detail}" if detail else "")
