"""Parts of a model that learn nothing for a while."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let the parameters of `modules` get no gradients for as long as the context lasts."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def embedding_modules(model: PreTrainedModel) -> list[nn.Module]:
    """Return what makes vectors of tokens: the module called `embeddings` where there is one, with positions and norm.

    Otherwise every embedding table of the body outside its layers (tokens and, for GPT-2, positions).
    """
    body = model.base_model
    named = getattr(body, "embeddings", None)
    if isinstance(named, nn.Module):
        return [named]
    outside = (module for name, module in body.named_modules() if not any(p.isdigit() for p in name.split(".")))
    return [module for module in outside if isinstance(module, nn.Embedding)] or [model.get_input_embeddings()]
