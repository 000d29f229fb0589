"""The history of a training: the points of its curve, for the record, for whoever watches, and for `report_to`."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback

from depthprune.healing.base import Point

MOST_LOSSES = 100  # in a record


class History(TrainerCallback):
    """Collects the points of a training, and hands each on to transformers' log, which `report_to` sends away.

    transformers' own logging stays off: it sums losses by interval, so that their mean would depend on it.

    Args:
        on_log: called with each point.
    """

    def __init__(self, on_log: Callable[[Point], None]):
        self._on_log = on_log
        self._sum, self._steps, self._rate = 0.0, 0, 0.0  # of the interval
        self._total = torch.zeros(())
        self._trainer: Trainer | None = None
        self.points: list[Point] = []

    def belong_to(self, trainer: Trainer) -> None:
        """Say whose history it is."""
        self._trainer = trainer

    def add(self, loss: Tensor) -> None:
        """Add the loss of a step, or of a part of it."""
        self._total = self._total.to(loss.device) + loss
        self._sum += loss.item()

    def mean_loss(self, steps: int) -> float:
        """Return the mean loss of all steps; Trainer's own leaves out those before a resume."""
        return self._total.item() / max(steps, 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the points so far and the sums; see `healing.execution.resuming`."""
        points = [dict(point) for point in self.points]
        return {"points": points, "sum": self._sum, "steps": self._steps, "total": self._total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        self.points, self._total = list(state["points"]), state["total"]
        self._sum, self._steps = state["sum"], state["steps"]

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the learning rate of the step."""
        self._rate = float(kwargs["lr_scheduler"].get_last_lr()[0])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add a point at the end of an interval."""
        self._steps += 1
        step = state.global_step
        if step % math.ceil(state.max_steps / MOST_LOSSES) and step < state.max_steps:
            return
        trainer = self._trainer
        assert trainer is not None, "it belongs to one"
        mean = torch.tensor([self._sum / self._steps], device=args.device, dtype=torch.float32)
        loss = trainer.accelerator.gather(mean).mean().item()  # pyright: ignore[reportAttributeAccessIssue]
        self._sum, self._steps = 0.0, 0
        values = {"loss": loss, "learning_rate": self._rate}
        self._keep(step, values, values)

    def scored(self, step: int, score: float) -> None:
        """Add the score of an epoch on the rows that are held out."""
        self._keep(step, {"validation_score": score}, {"eval_score": score})

    def _keep(self, step: int, values: dict[str, float], logged: dict[str, float]) -> None:
        point = {"step": step, **{name: float(f"{value:.6g}") for name, value in values.items()}}
        self.points.append(point)
        assert self._trainer is not None, "it belongs to one"
        self._trainer.log(dict(logged))  # which adds to it
        self._on_log(point)
