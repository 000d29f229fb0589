"""LoRA: low-rank adapters are trained in place of the weights, and merged into them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from depthprune.errors import UserError
from depthprune.healing.base import Cut, Healed, OnStep, Schedule, Teacher, TrainingData, healer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LoraOptions:
    """The adapters.

    Args:
        rank: of the two matrices of an adapter.
        alpha: what an adapter puts out is scaled by alpha / rank.
        dropout: of its input.
        targets: the linear layers that get one, by the ends of their names, as `query,value`; all if empty.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise UserError("rank of 'lora' is 1 or more, alpha above 0, and dropout a probability below 1")


@healer("lora", options=LoraOptions, paper="https://arxiv.org/abs/2106.09685")
def lora(
    model: "PreTrainedModel",
    data: TrainingData,
    options: LoraOptions,
    *,
    schedule: Schedule,
    seed: int,
    cut: Cut,
    teacher: Teacher | None = None,
    on_step: OnStep | None = None,
) -> Healed:
    """Train low-rank adapters and the head on the task's labels, and merge the adapters into the weights.

    Args:
        model: trained in place, and plain afterwards.
        data: rows with labels.
        options: the adapters.
        schedule: how long and how fast; LoRA wants a higher learning rate than fine-tuning.
        seed: of the adapters, of the order of the rows and of dropout.
        on_step: called after each optimiser step.

    Raises:
        UserError: PEFT is not installed, or no linear layer is a target.
    """
    from depthprune.healing.adapters import adapters
    from depthprune.healing.training import train

    if not schedule.num_epochs:
        return Healed(model)
    how = {"rank": options.rank, "alpha": options.alpha, "dropout": options.dropout, "targets": options.targets}
    with adapters(model, **how, seed=seed):
        report = train(model, data, schedule, seed=seed, on_step=on_step)
    return Healed(model, (report,))
