"""A causal language model: how well it predicts the tokens of running text, block by block.

The text is cut into blocks of `max_length` tokens that do not overlap, each with the token in front that the tokenizer
begins a text with, where there is one. Every token but a block's first is predicted from those before it in the block.
So published perplexities of other lengths, or without that first token, are other numbers.

Shapes: B blocks, T tokens, V vocabulary.
"""

from typing import TYPE_CHECKING, Any

from depthprune.errors import LoadError
from depthprune.evaluation.base import EvaluationKind, OnStep, registry
from depthprune.evaluation.batching import in_order, outputs, refuse_nan
from depthprune.loading import load_language_model
from depthprune.sources import ModelSource
from depthprune.tasks.base import Task
from depthprune.tasks.data.encoding import encode_blocks
from depthprune.tasks.metrics.base import LANGUAGE_MODEL

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MOST_BLOCKS = 8  # in a batch: the logits of a token are as many as the vocabulary
TRIED = 8  # tokens that show whether a model looks ahead


def load(source: ModelSource, task: Task, *, device: str = "cpu") -> tuple[Any, list[str]]:
    """Load a causal language model.

    Raises:
        LoadError: it has no trained head of this kind, or looks ahead, so that its likelihoods mean nothing.
    """
    model = load_language_model(source, device=device)
    if _looks_ahead(model):
        raise LoadError(
            f"'{source.name}' sees the tokens that come after, so it is no causal language model and has no "
            "perplexity; give another model, or another task"
        )
    return model, []


def _looks_ahead(model: Any) -> bool:
    """Tell whether another last token changes what a model predicts before it."""
    import torch

    ids_BT = torch.arange(TRIED, device=model.device)[None] % model.config.get_text_config().vocab_size
    other_BT = ids_BT.clone()
    other_BT[0, -1] = ids_BT[0, 0]
    with torch.inference_mode():
        one_TV, other_TV = (model.eval()(input_ids=ids).logits[0, :-1] for ids in (ids_BT, other_BT))
    return not torch.allclose(one_TV, other_TV, rtol=1e-3, atol=1e-4)


def predict(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: Task,
    rows: "Dataset",
    *,
    batch_size: int = 32,
    on_step: OnStep | None = None,
) -> tuple[list[int], list[float]]:
    """Return, for each block, how many tokens are predicted, and their negative log-likelihood in nats, summed.

    Raises:
        UserError: the model puts out no numbers (NaN) for some blocks.
    """
    import torch
    from torch.nn import functional

    places, tokens, losses, broken = [], [], [], 0
    size = min(batch_size, MOST_BLOCKS)
    for numbers, batch, logits_BTV in outputs(model, tokenizer, rows, batch_size=size, on_step=on_step):
        places += numbers
        for ids, logits_TV in zip(batch["labels"], logits_BTV, strict=True):
            targets_T = torch.tensor(ids[1:], device=logits_TV.device)
            loss = functional.cross_entropy(logits_TV[: len(targets_T)], targets_T, reduction="sum")
            broken += int(loss.isnan())
            tokens.append(len(targets_T))
            losses.append(float(loss))
    refuse_nan(broken, len(rows))
    return in_order(places, tokens), in_order(places, losses)


registry.add(LANGUAGE_MODEL, EvaluationKind(LANGUAGE_MODEL, load, encode_blocks, predict))
