"""Sub-networks of a model that is trained whole: the same weights, with some layers left out.

Layers that are left out do not run (`surgery.partial`), so that a sub-network costs what its layers cost. Where a whole
pass comes first, its state before the first of these layers is taken, and the layers below run once for both.

Draws come from torch's own random state, which a training sets by its seed, and keeps and restores with the rest of it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from depthprune import processes
from depthprune.errors import UserError
from depthprune.healing.base import TrainingData
from depthprune.healing.teaching.losses import logits_loss
from depthprune.healing.training import first_batch
from depthprune.surgery.modules import find_stacks
from depthprune.surgery.partial import PartialModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from depthprune.healing.trainer import Loss


@contextmanager
def trained_in_part(
    model: "PreTrainedModel", data: TrainingData, subnetworks: Sequence[frozenset[int]], method: str
) -> Iterator[PartialModel]:
    """Give a model that can be trained without some of its layers; afterwards it is as it was.

    Args:
        model: trained in place.
        data: the first rows show how its layers pass their states on.
        subnetworks: layers that will be left out together; each is tried.
        method: its name, for complaints.

    Raises:
        CannotDropError: a layer cannot be left out.
        UserError: several processes share the training, or it keeps no activations.
    """
    if processes.count() > 1:
        raise UserError(f"'{method}' trains in one process; start it without torchrun")
    if data.execution.gradient_checkpointing:
        raise UserError(
            f"'{method}' leaves layers out, which the backward pass of gradient checkpointing would run again; "
            "leave --gradient-checkpointing out, and save memory with --accumulation"
        )
    batch = first_batch(data.tokenizer, data.rows, 2)
    batch = {name: tensor.to(model.device) for name, tensor in batch.items() if name != "labels"}
    training = model.training
    with PartialModel(model, next(iter(find_stacks(model).values()))) as parts:
        model.eval()
        with torch.no_grad():
            parts.learn(batch)
            for dropped in subnetworks:
                parts.run(batch, dropped)
        model.train(training)
        yield parts


def adaptive_loss(
    parts: PartialModel, subnetworks: Sequence[frozenset[int]], options: Any, *, accumulation: int
) -> "Loss":
    """Return the loss of the whole model and of sub-networks, drawn anew for each step, that cost no more than it does.

    Args:
        parts: the model.
        subnetworks: the layers that each leaves out.
        options: see `methods.adaptive_layers`.
        accumulation: parts of a batch, which are of one step.
    """

    def draw() -> list[frozenset[int]]:
        return _drawn_together(parts, [subnetworks[i] for i in torch.randperm(len(subnetworks)).tolist()])

    def loss(batch: dict[str, Tensor], drawn: Sequence[frozenset[int]]) -> Tensor:
        states: dict[int, Tensor] = {}
        starts = {min(dropped) if parts.resumes else 0 for dropped in drawn} - {0}
        record = (lambda i, state: states.update({i: state}) if i in starts else None) if starts else None
        whole = parts.run(batch, record=record)
        total = whole.loss
        for dropped in drawn:
            start = min(dropped) if parts.resumes else 0
            answer = parts.run(batch, dropped, start=start, state=states[start] if start else None)
            part = (1 - options.alpha) * answer.loss
            if options.alpha:
                said, aims = (_of_real_tokens(each.logits, batch) for each in (answer, whole))
                part = part + options.alpha * logits_loss(said, aims.detach(), options.temperature)
            total = total + options.weight / len(drawn) * part
        return total

    return DrawnLoss(draw, loss, accumulation)


class DrawnLoss:
    """A loss of sub-networks that are drawn once for each optimiser step.

    Args:
        draw: returns the layers that each sub-network of a step leaves out.
        loss: from a batch and what was drawn to a scalar.
        accumulation: parts of a batch, which are of one step.
    """

    def __init__(
        self,
        draw: Callable[[], list[frozenset[int]]],
        loss: Callable[[dict[str, Tensor], Sequence[frozenset[int]]], Tensor],
        accumulation: int,
    ):
        self._draw, self._loss, self._accumulation = draw, loss, accumulation
        self._batches, self._drawn = 0, list[frozenset[int]]()

    def __call__(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        if self._batches % self._accumulation == 0:
            self._drawn = self._draw()
        self._batches += 1
        return self._loss(batch, self._drawn)

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches there were, and what is drawn now (`healing.execution.resuming`)."""
        return {"batches": self._batches, "drawn": [sorted(each) for each in self._drawn]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        self._batches, self._drawn = state["batches"], [frozenset(each) for each in state["drawn"]]


def _drawn_together(parts: PartialModel, subnetworks: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    """Return those of the sub-networks, in their order, that together run at most as many layers as the model has."""
    chosen, left = [], parts.depth
    for dropped in subnetworks:
        start = min(dropped) if parts.resumes else 0
        runs = sum(layer not in dropped or layer not in parts.skipped for layer in range(start, parts.depth))
        if runs <= left:
            chosen.append(dropped)
            left -= runs
    return chosen


def layerdrop_loss(parts: PartialModel, rate: float, *, accumulation: int) -> "Loss":
    """Return the loss of the model without some layers, each of which is left out with a probability.

    Args:
        parts: the model.
        rate: the probability. A draw that leaves no layer is repeated.
        accumulation: parts of a batch, which are of one step.
    """
    return DrawnLoss(
        lambda: [_drawn(parts.depth, rate)], lambda batch, drawn: parts.run(batch, drawn[0]).loss, accumulation
    )


def _drawn(depth: int, rate: float) -> frozenset[int]:
    while True:
        gone = torch.nonzero(torch.rand(depth) < rate).flatten().tolist()
        if len(gone) < depth:
            return frozenset(gone)


def _of_real_tokens(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Return logits as one row for each prediction: of a sequence, or of each real token of a language model."""
    return logits[batch["attention_mask"].bool()] if logits.dim() > 2 else logits
