"""Adaptive layers: the whole model and shallower sub-networks of it are trained together, and cut at any depth then.

The adaptive layer loss of sentence-transformers trains the whole model and, at each step, one of its first layers' ends
(2D Matryoshka embeddings, https://arxiv.org/abs/2402.14776); slimmable networks (https://arxiv.org/abs/1903.05134) and
DynaBERT (https://arxiv.org/abs/2004.04037) let the sub-networks learn from the whole network of the same step.
"""

from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from depthprune.errors import UserError
from depthprune.healing.base import Cut, Healed, OnStep, Schedule, Teacher, TrainingData, healer
from depthprune.plan import HIGHEST_LAYER

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class AdaptiveLayersOptions:
    """Which sub-networks are trained, and their loss.

    The loss of a step: whole model + weight · mean over the drawn sub-networks of ((1 - alpha) · labels + alpha ·
    logits), where `logits` is the divergence from those of the whole model in this step, through which no gradient
    flows.

    Args:
        depths: of the sub-networks; without them the only one is what the plan leaves.
        order: the layers in the order in which they go, with commas between them: a sub-network of depth d lacks as
            many of the first. The plan's layers, the one nearest the output first, if empty.
        weight: of the sub-networks' loss beside the whole model's.
        alpha: weight of the whole model's logits, against 1 - alpha of the labels.
        temperature: of both distributions; a regression has none.
    """

    depths: tuple[int, ...] = ()
    order: str = ""
    weight: float = 1.0
    alpha: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or self.temperature <= 0 or self.weight <= 0:
            raise UserError("alpha is between 0 and 1, and temperature and weight are above 0")
        if 0 in self.depths:
            raise UserError("a depth of 'adaptive-layers' is a number of layers, 1 or more, not 0")
        _ = self.removal_order

    @property
    def removal_order(self) -> tuple[int, ...]:
        """The layers in the order in which they go.

        Raises:
            UserError: it is no list of layers, or has one twice.
        """
        parts = [part.strip() for part in self.order.split(",")] if self.order else []
        if not all(part.isdecimal() and int(part) <= HIGHEST_LAYER for part in parts) or len(set(parts)) < len(parts):
            raise UserError(f"the order '{self.order}' of 'adaptive-layers' is no list of layers; write 5,4,3")
        return tuple(map(int, parts))

    @property
    def any_plan(self) -> bool:
        """Whether the sub-networks do not depend on which layers are dropped afterwards."""
        return bool(self.depths and self.order)

    def subnetworks(self, cut: Cut) -> tuple[frozenset[int], ...]:
        """Return the layers that each sub-network leaves out, the deepest first.

        Args:
            cut: which layers there are, and which of them are to go.

        Raises:
            UserError: there is no such sub-network.
        """
        depth, order = len(cut.present), self.removal_order or cut.pending
        if not order:
            raise UserError(
                "'adaptive-layers' trains sub-networks of a model whose layers go afterwards, and none are to go here; "
                "use another recipe, or say depths and order"
            )
        if wrong := [layer for layer in order if layer not in cut.present]:
            raise UserError(f"the order of 'adaptive-layers' has layer {wrong[0]}, which the model does not have")
        depths = self.depths or (depth - len(order),)
        if max(depths) >= depth:
            raise UserError(
                f"the depths of 'adaptive-layers' are below the model's, and {max(depths)} is not below {depth}"
            )
        if depth - min(depths) > len(order):
            raise UserError(
                f"a depth of {min(depths)} lacks {depth - min(depths)} layers, and the order of 'adaptive-layers' has "
                f"{len(order)}; give more"
            )
        positions = [cut.present.index(layer) for layer in order]
        return tuple(frozenset(positions[: depth - each]) for each in sorted(set(depths), reverse=True))


@healer("adaptive-layers", options=AdaptiveLayersOptions, drops=True, paper="https://arxiv.org/abs/2402.14776")
def adaptive_layers(
    model: "PreTrainedModel",
    data: TrainingData,
    options: AdaptiveLayersOptions,
    *,
    schedule: Schedule,
    seed: int,
    cut: Cut,
    teacher: Teacher | None = None,
    on_step: OnStep | None = None,
) -> Healed:
    """Train the whole model and shallower sub-networks of it, which learn from labels and from the whole; then drop.

    Each step trains the whole model and as many of the sub-networks, drawn anew, as together run no more layers than it
    has: all of them where layers go from the top, since what is below the first layer that goes runs once for all. So a
    step costs at most twice what one of plain fine-tuning does.

    An epoch that is chosen by rows held out is the one of the best mean over the whole model and all sub-networks.

    Args:
        model: trained in place.
        data: rows with labels.
        options: which sub-networks, and the loss.
        schedule: how long and how fast.
        seed: of the order of the rows, of dropout, and of the draws.
        cut: the layers to drop.
        on_step: called after each optimiser step.

    Raises:
        CannotDropError: if the architecture does not allow it.
        UserError: there is no such sub-network, or several processes share the training.
    """
    from depthprune.healing.teaching.subnetworks import adaptive_loss, trained_in_part
    from depthprune.healing.training import train

    subnetworks = options.subnetworks(cut)
    trainings = ()
    if schedule.num_epochs:
        with trained_in_part(model, data, subnetworks, "adaptive-layers") as parts:
            loss = adaptive_loss(parts, subnetworks, options, accumulation=schedule.accumulation)
            if (measure := data.measure) is not None:

                def mean(trained: "PreTrainedModel", rows: "Dataset") -> float:
                    found = [measure(trained, rows)]
                    for dropped in subnetworks:
                        with parts.without(dropped):
                            found.append(measure(trained, rows))
                    return fmean(found)

                data = replace(data, measure=mean)
            trainings = (train(model, data, schedule, loss=loss, seed=seed, on_step=on_step),)
    cut.drop(model, cut.pending)
    return Healed(model, trainings)
