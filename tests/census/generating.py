"""Whether a model generates the same with a cache and without."""

import traceback
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from .inputs import Call
from .tiny import short

NEW_TOKENS = 6
ROUNDING = 1e-5  # of logits of order 1


def fault_of_generating(model: PreTrainedModel, call: Call, *, to_the_logit: bool = False) -> str | None:
    """Say how a cache changes what the model generates, or None.

    A token that differs where the logits agree but for rounding was a tie, which random weights make common.

    Args:
        to_the_logit: whether the same text with other logits is a fault too: XLM's cache changes them.
    """
    try:
        return _caching_changes(model, call, to_the_logit)
    except Exception as error:
        return trace(error)


def _caching_changes(model: PreTrainedModel, call: Call, to_the_logit: bool) -> str | None:
    given = {k: v for k, v in call.items() if k not in ("use_cache", "decoder_input_ids")}
    generate: Any = model.generate
    texts = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        config = GenerationConfig(
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
            use_cache=use_cache,
            pad_token_id=0,
            decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None) or 1,
            eos_token_id=None,
            return_dict_in_generate=True,
            output_logits=True,
        )
        with torch.no_grad():
            texts.append(generate(**given, generation_config=config))
    ids = [getattr(text, "sequences", text) for text in texts]
    if not isinstance(ids[0], torch.Tensor) or (torch.equal(*ids) and not to_the_logit):
        return None
    steps = list(zip(*(getattr(text, "logits", None) or () for text in texts), strict=False))
    # The first step whose logits do not agree is the fault; those after a tie was broken otherwise say nothing.
    for one, other in steps:
        if not torch.allclose(one, other, rtol=ROUNDING, atol=ROUNDING):
            return "the cache changes the text"
        if not torch.equal(one.argmax(-1), other.argmax(-1)):
            return None
    return None if torch.equal(*ids) else "the cache changes the text"


def trace(error: BaseException) -> str:
    """Return an error in one line, with where it came from."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
    return f"{short(error)} at {where}"
