"""Parts of a model that run in evaluation mode, without dropout, while the rest is trained."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from depthprune.surgery.modules import find_stacks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WHOLE, UP_TO_LAYERS = MARKS = ("_runs_without_dropout", "_runs_without_dropout_up_to_its_layers")


def run_without_dropout(model: "PreTrainedModel", layers: Sequence[nn.Module], *, embeddings: bool) -> None:
    """Mark what runs in evaluation mode in the trainings that follow.

    Args:
        layers: those of `model`.
        embeddings: all that runs before the first layer, too.
    """
    for layer in layers:
        setattr(layer, WHOLE, True)
    if embeddings:
        setattr(model.base_model, UP_TO_LAYERS, True)


def run_with_dropout(model: "PreTrainedModel") -> None:
    """Remove all marks of `run_without_dropout`."""
    for module in model.modules():
        for mark in MARKS:
            module.__dict__.pop(mark, None)


def has_parts_without_dropout(model: "PreTrainedModel") -> bool:
    """Tell whether anything is marked."""
    return any(_marked(module, *MARKS) for module in model.modules())


@contextmanager
def without_dropout(model: "PreTrainedModel") -> Iterator[None]:
    """Let what is marked run in evaluation mode while the context lasts."""
    with ExitStack() as until_the_end:
        handles = [module.register_forward_pre_hook(_evaluate) for module in model.modules() if _marked(module, WHOLE)]
        if _marked(model.base_model, UP_TO_LAYERS):
            handles += _evaluate_up_to_layers(model)
        for handle in handles:
            until_the_end.callback(handle.remove)
        yield


def _marked(module: nn.Module, *marks: str) -> bool:
    return any(mark in module.__dict__ for mark in marks)


def _evaluate(module: nn.Module, args: Any) -> None:
    module.eval()


def _evaluate_up_to_layers(model: "PreTrainedModel") -> list[Any]:
    """Let a model's body run in evaluation mode up to its layers; from there on it is as it was."""
    body, was_training = model.base_model, []
    path = next(iter(find_stacks(model).values())).paths[0]

    def enter(module: nn.Module, args: Any) -> None:
        was_training[:] = [module.training]
        module.eval()

    def leave(module: nn.Module, args: Any) -> None:  # at the first layer, whichever that is now
        if was_training and was_training.pop():
            body.train()

    layers: Any = model.get_submodule(path)
    # Prepended: a layer that is marked itself is put into evaluation mode again by its own hook.
    return [body.register_forward_pre_hook(enter), *(i.register_forward_pre_hook(leave, prepend=True) for i in layers)]
