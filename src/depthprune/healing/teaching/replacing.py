"""A full model in which layers of the student stand in the places of its own, at random."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from depthprune.healing.base import Cut, Schedule
from depthprune.healing.teaching.mapping import layer_groups
from depthprune.plan import LayerPlan
from depthprune.surgery.bypass import hand_on

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from depthprune.healing.trainer import Loss


@contextmanager
def replacement_loss(
    student: "PreTrainedModel", teacher: "PreTrainedModel", cut: Cut, options: Any, *, seed: int, schedule: Schedule
) -> Iterator["Loss"]:
    """Give the task's loss of the teacher with some groups of its layers replaced; gradients reach the student alone.

    Args:
        student: its layers are called, and get the gradients.
        teacher: not changed; a copy that shares its tensors runs, with dropout, as in the paper's code.
        cut: which layers the student has.
        options: `base` and `rise` of the probability; see `methods.theseus`.
        seed: of the choice.
        schedule: its precision is used for autocast, and its parts of a batch are one step.
    """
    tensors = (*teacher.parameters(), *teacher.buffers())
    whole = copy.deepcopy(teacher, {id(tensor): tensor for tensor in tensors}).train()
    depth = cut.plan.depth
    layers = Cut(LayerPlan(depth, ())).modules(whole, range(depth))
    mine = cut.modules(student, cut.present)
    idle = next(parameter for parameter in student.parameters() if parameter.requires_grad)
    loss = _ReplacementLoss(whole, idle, len(mine), options, seed=seed, schedule=schedule)

    def hook(group: int, first: bool) -> Any:
        def act(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if not loss.replaced[group]:
                return None
            return mine[group](*args, **kwargs) if first else hand_on(module, args, kwargs, output)

        return act

    handles = []
    for number, group in enumerate(layer_groups(cut.present, depth)):
        for layer in group:
            act = hook(number, layer == group[0])
            handles.append(layers[layer].register_forward_hook(act, with_kwargs=True, prepend=True))
    try:
        yield loss
    finally:
        for handle in handles:
            handle.remove()


class _ReplacementLoss:
    """The loss of the full model, and whose layers run in it."""

    def __init__(self, whole: Any, idle: Tensor, groups: int, options: Any, *, seed: int, schedule: Schedule):
        self._whole, self._idle, self._options, self._schedule = whole, idle, options, schedule
        self._generator = torch.Generator().manual_seed(seed)
        self._batches = 0
        self.replaced = [False] * groups

    def __call__(self, _: Any, batch: dict[str, Tensor]) -> Tensor:
        chance = min(1.0, self._options.base + self._options.rise * (self._batches // self._schedule.accumulation))
        self.replaced = (torch.rand(len(self.replaced), generator=self._generator) < chance).tolist()
        self._batches += 1
        bfloat16 = self._schedule.precision == "bfloat16"
        with torch.autocast(self._whole.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            value = self._whole(**batch).loss.float()
        # Where no layer that learns stands in its place, the step changes nothing.
        return value if value.requires_grad else value + 0 * self._idle.sum()

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches there were, and the random numbers that come next (`healing.execution.resuming`)."""
        return {"batches": self._batches, "random": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        self._batches = state["batches"]
        self._generator.set_state(state["random"])
