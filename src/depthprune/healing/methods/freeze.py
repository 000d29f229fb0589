"""Freezing: parts of the model learn nothing in the steps that follow."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from depthprune.errors import PlanError, UserError
from depthprune.healing.base import Cut, Healed, OnStep, Schedule, Teacher, TrainingData, healer

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class FreezeOptions:
    """What is frozen.

    Args:
        layers: by index before the drop.
        embeddings: the embeddings.
        dropped: the layers that a later step drops.
        all_but_last: the embeddings, and every layer but so many nearest the output, of those that stay; none if 0.
    """

    layers: tuple[int, ...] = ()
    embeddings: bool = False
    dropped: bool = False
    all_but_last: int = 0

    def __post_init__(self) -> None:
        if self.all_but_last < 0:
            raise UserError(f"all_but_last of 'freeze' is a number of layers, not {self.all_but_last}")


@healer("freeze", options=FreezeOptions, paper="https://arxiv.org/abs/2004.03844", unlabelled=True)
def freeze(
    model: "PreTrainedModel",
    data: TrainingData,
    options: FreezeOptions,
    *,
    schedule: Schedule,
    seed: int,
    cut: Cut,
    teacher: Teacher | None = None,
    on_step: OnStep | None = None,
) -> Healed:
    """Freeze layers or the embeddings for the steps that follow.

    Args:
        model: its parameters are marked; `healing.recipe.heal` lets them learn again after the last step.
        options: what is frozen.
        cut: which layers there are.

    Raises:
        PlanError: if a layer does not exist.
    """
    try:
        modules = cut.modules(model, options.layers)
    except PlanError as error:
        raise PlanError(f"cannot freeze: {error}") from None
    modules += embedding_modules(model) if options.embeddings or options.all_but_last else []
    modules += cut.modules(model, cut.pending) if options.dropped else []
    if options.all_but_last:
        staying = [layer for layer in cut.present if layer not in cut.pending]
        learning = staying[-options.all_but_last :]
        modules += cut.modules(model, [layer for layer in cut.present if layer not in learning])
    for module in modules:
        module.requires_grad_(False)
    return Healed(model)


def embedding_modules(model: "PreTrainedModel") -> list["nn.Module"]:
    """Return what makes vectors of tokens: the module called `embeddings` where there is one, with positions and norm.

    Otherwise every embedding table of the body outside its layers (tokens and, for GPT-2, positions).
    """
    from torch import nn

    body = model.base_model
    named = getattr(body, "embeddings", None)
    if isinstance(named, nn.Module):
        return [named]
    outside = (module for name, module in body.named_modules() if not any(p.isdigit() for p in name.split(".")))
    return [module for module in outside if isinstance(module, nn.Embedding)] or [model.get_input_embeddings()]
