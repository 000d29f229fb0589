"""How long a model takes to answer."""

import statistics
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MIN_PASSES = 3
MAX_SECONDS = 4.0


def latency_ms(model: "PreTrainedModel", batches: list[dict[str, Any]]) -> float:
    """Time the forward pass, in float32 or whatever the weights are in.

    Args:
        model: runs where its weights are.
        batches: padded inputs, each passed as keywords.

    Returns:
        Milliseconds an example: the median over passes through all `batches`, after a first batch that is not
        counted; at least three passes, and more until four seconds are up.
    """
    import torch

    examples = sum(len(batch["input_ids"]) for batch in batches)
    was_training = model.training
    model.eval()
    passes: list[float] = []
    with torch.inference_mode():
        _one_pass(model, batches[:1])
        begun = time.perf_counter()
        while len(passes) < MIN_PASSES or (time.perf_counter() - begun < MAX_SECONDS and len(passes) < 20):
            passes.append(_one_pass(model, batches))
    model.train(was_training)
    return statistics.median(passes) / examples * 1000


def _one_pass(model: "PreTrainedModel", batches: list[dict[str, Any]]) -> float:
    import torch

    started = time.perf_counter()
    for batch in batches:
        model(**batch)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
