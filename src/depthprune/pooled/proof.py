"""Prove a folder with a pooled head: loaded with what others have, it gives the logits of the model in memory.

Shapes: B texts, C outputs.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from depthprune.errors import CannotDropError
from depthprune.pooled.folder import read_head
from depthprune.pooled.model import PooledClassifier, taken
from depthprune.tasks.pooling import pooled_BD

PROBES: tuple[Any, ...] = (
    ["A cat sat on the mat.", "Fewer layers, the same words!", "7"],
    [("A cat sat on the mat.", "A cat was sitting there."), ("Is it so?", "No")],
)
TOLERANCE = 1e-4  # of the largest logit, or of 1: a batch is summed in another order than a row


def prove_head(model: PooledClassifier, folder: Path) -> str:
    """Compare the logits of single texts and of pairs by the model with those of the written folder.

    They are taken by `AutoModel` and the linear layer, and by sentence-transformers where that is installed.

    Returns:
        How it was proved, as a sentence without a full stop.

    Raises:
        CannotDropError: the folder gives other logits.
    """
    from transformers import AutoModel, AutoTokenizer

    weight_CD, bias_C = read_head(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    less = {"add_pooling_layer": False} if model.without_pooler else {}
    body = AutoModel.from_pretrained(folder, dtype="auto", **less).eval()
    encoder = _encoder(folder)
    was_training = model.training
    model.eval()
    for texts in PROBES:
        columns = zip(*texts, strict=True) if isinstance(texts[0], tuple) else (texts,)
        batch = tokenizer(*map(list, columns), padding=True, return_tensors="pt")
        with torch.no_grad():
            expected_BC = model(**taken(model, batch.to(model.device))).logits.cpu()
            states_BTD = body(**taken(body, batch.to("cpu"))).last_hidden_state
            logits_BC = pooled_BD(states_BTD, batch["attention_mask"], (model.pooling,)) @ weight_CD.T + bias_C
        _compare(logits_BC, expected_BC, "AutoModel and the linear layer")
        if encoder is not None:
            said_BC: Any = encoder.encode(texts, convert_to_tensor=True, show_progress_bar=False)
            _compare(said_BC, expected_BC, "sentence-transformers")
    model.train(was_training)
    by = "the linear layer beside them gives its logits"
    return by if encoder is None else f"{by}, as does SentenceTransformer"


def _encoder(folder: Path) -> Any:
    """Load a folder with sentence-transformers; None where that is not installed.

    Raises:
        CannotDropError: it does not load.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return None
    try:
        return SentenceTransformer(str(folder), device="cpu")
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CannotDropError(
            f"sentence-transformers does not load what was written ({error}); nothing was saved, please report it"
        ) from None


def _compare(said_BC: Tensor, expected_BC: Tensor, by: str) -> None:
    """Refuse other logits; NaN of a diverged training is what it is on both sides."""
    said_BC, expected_BC = said_BC.float().nan_to_num(), expected_BC.float().nan_to_num()
    scale = max(1.0, expected_BC.abs().max().item())
    if said_BC.shape != expected_BC.shape or not (said_BC - expected_BC).abs().max().item() <= TOLERANCE * scale:
        raise CannotDropError(f"the folder gives other logits by {by}; nothing was saved, please report it")
