"""Drop and fine-tune in the order that a recipe asks for.

Dropped first and fine-tuned then is the paper's way; the others are its experiments (Sajjad et al., sections 5 and 6):
fine-tune, drop, fine-tune again; or drop a layer every so many epochs of one training.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from depthprune.errors import PlanError
from depthprune.healing.frozen import embedding_modules
from depthprune.plan import LayerPlan
from depthprune.specs import DropSpec, HealSpec
from depthprune.surgery import drop_layers
from depthprune.surgery.modules import find_stacks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from depthprune.healing.finetune import HealReport

# (epochs, modules that learn nothing, (step, what to do after it) …) to what the training took
Train = Callable[..., "HealReport"]


def carry_out(
    model: "PreTrainedModel", drop: DropSpec, heal: HealSpec, *, train: Train, num_rows: int
) -> "tuple[HealReport, ...]":
    """Drop the layers of `model`, in place, and fine-tune it; returns a report for each training.

    Args:
        model: the whole model.
        drop: what goes, and for a recipe that drops gradually, in which order.
        train: `(num_epochs, frozen=modules, events=[(step, function)])`.
        num_rows: training examples, which with the batch size give the steps of an epoch.

    Raises:
        PlanError: a layer to be frozen does not exist.
        CannotDropError: the architecture does not allow a plan on the way.
    """
    depth = _depth(model)
    lasting = _layers(model, heal.freeze_layers) if heal.freeze_layers else []
    lasting += embedding_modules(model) if heal.freeze_embeddings else []
    if heal.gradual and drop.dropped:
        return (_gradually(model, depth, drop, heal, train, lasting, num_rows),)
    reports = []
    if heal.epochs_before and drop.dropped:
        going = _layers(model, drop.dropped) if heal.freeze_dropped else []
        reports.append(train(heal.epochs_before, frozen=[*lasting, *going]))
    drop_layers(model, LayerPlan(depth, drop.dropped))
    if heal.num_epochs or not reports:
        reports.append(train(heal.num_epochs, frozen=lasting))
    return tuple(reports)


def together(reports: "Sequence[HealReport]") -> "HealReport":
    """Put several trainings into one report: times and steps are sums, loss and precision those of the last."""
    seconds = sum(report.seconds for report in reports)
    examples = sum(report.examples_per_second * report.seconds for report in reports)
    return replace(
        reports[-1],
        seconds=seconds,
        examples_per_second=examples / seconds if seconds else 0.0,
        steps=sum(report.steps for report in reports),
    )


def drop_steps(heal: HealSpec, count: int, num_rows: int) -> tuple[list[int], float]:
    """Return after which steps a layer goes, and the epochs of the whole training.

    >>> drop_steps(HealSpec(num_epochs=3, drop_every=2, batch_size=10), count=2, num_rows=95)
    ([20, 40], 7.0)
    """
    per_epoch = math.ceil(num_rows / heal.batch_size)
    every = heal.drop_every_steps or max(1, round(heal.drop_every * per_epoch))
    steps = [every * (i + 1) for i in range(count)]
    return steps, heal.num_epochs + steps[-1] / per_epoch


def _gradually(
    model: "PreTrainedModel",
    depth: int,
    drop: DropSpec,
    heal: HealSpec,
    train: Train,
    lasting: list[nn.Module],
    num_rows: int,
) -> "HealReport":
    steps, epochs = drop_steps(heal, len(drop.dropped), num_rows)
    left = list(range(depth))

    def drop_one(layer: int) -> Callable[[], None]:
        def act() -> None:
            drop_layers(model, LayerPlan(len(left), (left.index(layer),)))
            left.remove(layer)

        return act

    events = [(step, drop_one(layer)) for step, layer in zip(steps, drop.order, strict=True)]
    report = train(epochs, frozen=lasting, events=events)
    assert len(left) == depth - len(drop.dropped), "a layer was to go after the last step"
    return report


def _depth(model: "PreTrainedModel") -> int:
    return next(iter(find_stacks(model).values())).depth


def _layers(model: "PreTrainedModel", layers: Sequence[int]) -> list[nn.Module]:
    """Return layers of the model's stack, by index in the model that was given."""
    stack = next(iter(find_stacks(model).values()))
    wrong = [layer for layer in layers if not 0 <= layer < stack.depth]
    if wrong:
        raise PlanError(f"layer {wrong[0]} cannot be frozen: the stack has layers 0 to {stack.depth - 1}")
    return [model.get_submodule(path).get_submodule(str(i)) for path in stack.paths for i in layers]
