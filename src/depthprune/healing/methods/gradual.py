"""Gradual dropping: one layer after another goes within a single training (Sajjad et al., section 5)."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from depthprune.errors import UserError
from depthprune.healing.base import Cut, Healed, OnStep, Schedule, Teacher, TrainingData, healer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class GradualOptions:
    """When a layer is dropped.

    Args:
        every: epochs from one layer to the next; 1 if neither is given.
        every_steps: the same, counted in optimiser steps.
    """

    every: float = 0.0
    every_steps: int = 0

    def __post_init__(self) -> None:
        if self.every < 0 or self.every_steps < 0 or (self.every and self.every_steps):
            raise UserError("every counts epochs and every_steps optimiser steps; give one of them, above 0")


@healer("gradual", options=GradualOptions, drops=True, one_by_one=True, paper="https://arxiv.org/abs/2004.03844")
def gradual(
    model: "PreTrainedModel",
    data: TrainingData,
    options: GradualOptions,
    *,
    schedule: Schedule,
    seed: int,
    cut: Cut,
    teacher: Teacher | None = None,
    on_step: OnStep | None = None,
) -> Healed:
    """Fine-tune and drop a layer every so many epochs; after the last one train for num_epochs more.

    Args:
        model: trained in place.
        data: rows with labels.
        options: when a layer is dropped.
        schedule: how long to train after the last layer has gone; the learning rate decays over the whole training.
        seed: of the order of the rows and of dropout.
        cut: the layers to drop, and their order.
        on_step: called after each optimiser step.

    Raises:
        CannotDropError: if the architecture does not allow an intermediate plan.
        UserError: if no training follows the last drop.
    """
    from depthprune.healing.training import train

    if not schedule.num_epochs:
        raise UserError("after the last layer has gone, gradual trains for num_epochs; give num_epochs above 0")
    pending = cut.pending
    steps, epochs = drop_steps(options, len(pending), len(data.rows), schedule)
    events = [(step, lambda layer=layer: cut.drop(model, (layer,))) for step, layer in zip(steps, pending, strict=True)]
    report = train(model, data, replace(schedule, num_epochs=epochs), seed=seed, events=events, on_step=on_step)
    assert not cut.pending, "a layer was to go after the last step"
    return Healed(model, (report,))


def drop_steps(options: GradualOptions, count: int, num_rows: int, schedule: Schedule) -> tuple[list[int], float]:
    """Return after which optimiser steps a layer is dropped, and the epochs of the whole training.

    >>> drop_steps(GradualOptions(every=2), count=2, num_rows=95, schedule=Schedule(num_epochs=3, batch_size=10))
    ([20, 40], 7.0)
    """
    per_epoch = math.ceil(num_rows / schedule.batch_size)
    every = options.every_steps or max(1, round((options.every or 1) * per_epoch))
    steps = [every * (i + 1) for i in range(count)]
    return steps, schedule.num_epochs + every * count / per_epoch
