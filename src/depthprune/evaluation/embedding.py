"""Sentence embeddings: compute them, compare those of two models, score them by their cosine alone.

An embedding is the pooled last hidden states (`tasks.pooling`). What a sentence-transformers folder applies after that
(a dense layer, a normalisation) is left out: a normalisation changes no cosine.

Shapes: N texts, B sequences, T tokens, D dimensions of an embedding.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from depthprune.errors import UserError
from depthprune.evaluation.base import OnStep, in_unit_of
from depthprune.evaluation.batching import collate, refuse_nan
from depthprune.evaluation.measurement import Measurement
from depthprune.tasks import TaskData
from depthprune.tasks.base import Task
from depthprune.tasks.metrics.base import registry as metrics
from depthprune.tasks.pooling import MEAN, pooled_BD

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def last_states(model: "PreTrainedModel", inputs: dict[str, Any]) -> Tensor:
    """Return the hidden states [B, T, D] that leave the last layer of a model with or without a head.

    Raises:
        UserError: the model is an encoder-decoder, whose states are not those of its input.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        raise UserError(
            f"embeddings are read from an encoder's or a decoder's last layer, and '{model.config.model_type}' is an "
            "encoder-decoder; give another model"
        )
    output = model.base_model(**inputs)
    return output[0] if isinstance(output, tuple) else output.last_hidden_state


def embed(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: "Dataset",
    pooling: tuple[str, ...] = MEAN,
    *,
    batch_size: int = 64,
    on_step: OnStep | None = None,
) -> Tensor:
    """Return the embeddings of tokenised texts as float32 [N, D] on the CPU, in the order of the rows.

    Args:
        model: runs in evaluation mode where its weights are, in their dtype.
        tokenizer: pads the rows.
        rows: `input_ids`, …, `length` (`tasks.data.sentences.encode_texts`).
        pooling: ways of pooling, as the model's folder has them (`tasks.pooling.read_pooling`).
        batch_size: texts a forward pass; the longest go first.
        on_step: called with (batches done, batches in all).

    Raises:
        UserError: the model puts out NaN for some rows, or is an encoder-decoder.
    """
    lengths = rows["length"][:]
    order = sorted(range(len(rows)), key=lengths.__getitem__, reverse=True)
    ordered = rows.select(order)
    parts: list[Tensor] = []
    was_training = model.training
    model.eval()
    starts = range(0, len(ordered), batch_size)
    with torch.inference_mode():
        for step, start in enumerate(starts):
            inputs = collate(tokenizer, ordered[start : start + batch_size], device=model.device)
            states_BTD = last_states(model, inputs)
            parts.append(pooled_BD(states_BTD.float(), inputs["attention_mask"], pooling).cpu())
            if on_step is not None:
                on_step(step + 1, len(starts))
    model.train(was_training)
    embeddings_ND = torch.cat(parts)
    refuse_nan(int(embeddings_ND.isnan().any(-1).sum()), len(rows))
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return embeddings_ND[back]


def mean_cosine(one_ND: Tensor, other_ND: Tensor) -> float:
    """Return the mean cosine of corresponding embeddings: 1 where two models agree on the direction of every one."""
    return float(functional.cosine_similarity(one_ND, other_ND, dim=-1).mean())


def check_similarity_task(task: Task) -> None:
    """Refuse a task that the cosine of two embeddings cannot answer without training.

    Raises:
        UserError: it is not an amount of similarity for pairs of texts.
    """
    if not task.regression or len(task.text_columns) != 2:
        raise UserError(
            f"without a head, embeddings are scored on pairs with an amount of similarity, such as stsb, and "
            f"'{task.name}' has none; give such a task, or leave it out"
        )


def similarity(embed_texts: Callable[[Sequence[str]], Tensor], data: TaskData) -> dict[str, Measurement]:
    """Score the cosine of the embeddings of pairs against the amounts in the data, without training (zero-shot).

    That is how sentence encoders are compared on STS-B (Reimers and Gurevych, 2019,
    https://arxiv.org/abs/1908.10084): by the Spearman correlation.

    Args:
        embed_texts: embeddings [N, D] of texts, by the model that is scored.
        data: a regression on pairs; its evaluation splits are scored.

    Returns:
        Metric name → what was measured; `spearman` and `pearson`, after a split's prefix.

    Raises:
        UserError: the task is not about pairs with an amount.
    """
    check_similarity_task(data.task)
    found: dict[str, Measurement] = {}
    for prefix, split in data.task.eval_splits.items():
        rows = data.splits[split]
        one_ND, other_ND = (embed_texts(rows[column][:]) for column in data.task.text_columns)
        cosines = functional.cosine_similarity(one_ND, other_ND, dim=-1).tolist()
        expected = [float(label) for label in rows[data.task.label_column]]
        for name in ("spearman", "pearson"):
            found[prefix + name] = in_unit_of(name, metrics.get(name).function(expected, cosines), len(rows))
    return found
