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
        dropout: what is frozen has the model's dropout. Without, it runs in evaluation mode; where embeddings and first
            layers are frozen, they then run once and not in each epoch. For that, biases of positions that the layers
            share (MPNet's) count as embeddings.
    """

    layers: tuple[int, ...] = ()
    embeddings: bool = False
    dropped: bool = False
    all_but_last: int = 0
    dropout: bool = True

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
    from depthprune.healing.without_dropout import run_without_dropout

    try:
        modules = cut.modules(model, options.layers)
    except PlanError as error:
        raise PlanError(f"cannot freeze: {error}") from None
    embeddings = options.embeddings or options.all_but_last > 0
    modules += cut.modules(model, cut.pending) if options.dropped else []
    if options.all_but_last:
        staying = [layer for layer in cut.present if layer not in cut.pending]
        learning = staying[-options.all_but_last :]
        modules += cut.modules(model, [layer for layer in cut.present if layer not in learning])
    if not options.dropout:
        run_without_dropout(model, modules, embeddings=embeddings)
    modules += embedding_modules(model) if embeddings else []
    modules += _tables(model) if embeddings and not options.dropout else []
    for module in modules:
        module.requires_grad_(False)
    return Healed(model)


def embedding_modules(model: "PreTrainedModel") -> list["nn.Module"]:
    """Return what makes vectors of tokens: the module called `embeddings` where there is one, with positions and norm.

    Otherwise every embedding table of the body outside its layers (tokens and, for GPT-2, positions).
    """
    from torch import nn

    named = getattr(model.base_model, "embeddings", None)
    return [named] if isinstance(named, nn.Module) else _tables(model) or [model.get_input_embeddings()]


def _tables(model: "PreTrainedModel") -> list["nn.Module"]:
    """Return the embedding tables of the body outside its layers."""
    from torch import nn

    modules = model.base_model.named_modules()
    outside = (module for name, module in modules if not any(part.isdigit() for part in name.split(".")))
    return [module for module in outside if isinstance(module, nn.Embedding)]
