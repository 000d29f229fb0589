"""Make inputs for any model from the signature of its `forward` and its configuration.

A call is a dictionary of arguments. Several forms are proposed, since an image can be a square, a row of patches or a
video, and those are kept that run. A message that counts the features an image has tells how many placeholders the
text needs.
"""

import inspect
import itertools
import re
import time
from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedModel

from .calls import CALLS
from .forms import BATCH, TOKENS, Call, Names, find, images_for, noise, number, sounds_for, text_for, width_of
from .tiny import short

SEARCH_SECONDS = 20
MOST_PROPOSALS = 60
ROUNDS = ("text", "image", "sound", "all")
FEATURES, TOKENS_HAD = re.compile(r"features?\D{0,12}(\d+)"), re.compile(r"tokens?\D{0,6}(\d+)")
MOST_PLACEHOLDERS = 5000
COMMON = ("decoder_input_ids",)  # the rest are of towers that some models run only on demand


def calls_that_run(model: PreTrainedModel) -> tuple[list[Call], str]:
    """Return the calls that `model` takes, with text alone, an image, a sound, and why one of these fails."""
    names = inspect.signature(model.forward).parameters
    calls, reason, text_only, until = [], "", False, time.monotonic() + SEARCH_SECONDS
    for round_ in ROUNDS:
        if round_ == "all" and calls:
            continue
        said = ""
        for call in itertools.islice(_proposals(model, names, round_), MOST_PROPOSALS):
            if time.monotonic() > until:
                said = said or "no time left to find inputs"
                break
            error = _run_or_adapt(model, call)
            if error is None:
                calls.append(call)
                said = ""
                break
            if not said or re.search(r"unpack|missing \d|Expected \dD", said):  # another form says more
                said = f"{round_}: {error}"
        if said and (round_ != "text" or not reason):
            reason, text_only = said, round_ == "text"
    if calls and text_only:  # it takes no text alone, and need not
        reason = ""
    return [call for n, call in enumerate(calls) if set(call) not in [set(other) for other in calls[:n]]], reason


def run(model: PreTrainedModel, call: Call, seed: int = 0) -> Any:
    """Return the output of a call. Whatever the model draws at random, it draws the same again."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return model(**{k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in call.items()})


def _run_or_adapt(model: PreTrainedModel, call: Call) -> str | None:
    """Run a call; where the text lacks placeholders for the features of an image, add them. Returns the error."""
    for _ in range(4):
        try:
            run(model, call)
            return None
        except Exception as error:
            if not _add_placeholders(model, call, str(error)):
                return short(error)
    return "placeholders and features do not match"


def _add_placeholders(model: PreTrainedModel, call: Call, message: str) -> bool:
    """Give the text as many placeholders as the message counts features, in the unit in which it counts tokens."""
    kind = re.search(r"(image|video|audio)", message, re.IGNORECASE)
    wanted, had = FEATURES.search(message), TOKENS_HAD.search(message)
    if kind is None or wanted is None or "input_ids" not in call:
        return False
    token = _token(model.config, kind[1].lower())
    if token is None:
        return False
    ids = call["input_ids"]
    present = int((ids == token).sum())
    width = number(getattr(model.config, "text_config", model.config), "hidden_size", default=1)
    unit = int(had[1]) // present if had is not None and present else 1
    count = int(wanted[1]) // max(unit, 1)
    if count % width == 0 and (count == present or count > MOST_PLACEHOLDERS):  # it counts numbers, not features
        count //= width
    if count == present or count > MOST_PLACEHOLDERS or count % len(ids):
        return False
    others = [[t for t in row if t != token] for row in ids.tolist()]
    call["input_ids"] = torch.tensor([[*row[:2], *[token] * (count // len(ids)), *row[2:]] for row in others])
    if "attention_mask" in call:
        call["attention_mask"] = torch.ones_like(call["input_ids"])
    for key in ("mm_token_type_ids", "token_type_ids"):
        if key in call:
            call[key] = _kinds(model.config, call["input_ids"])
    return True


def _kinds(config: Any, ids: torch.Tensor) -> torch.Tensor:
    kinds = torch.zeros_like(ids)
    for mark, kind in enumerate(("image", "video", "audio"), start=1):
        if (token := _token(config, kind)) is not None:
            kinds[ids == token] = mark
    return kinds


def _token(config: Any, kind: str) -> int | None:
    names = (f"{kind}_token_id", f"{kind}_token_index", f"{kind}_patch_id", f"{kind}_context_token_id")
    token = find(config, *names)
    return token if isinstance(token, int) else None


def _proposals(model: PreTrainedModel, names: Names, round_: str) -> Iterator[Call]:
    config = model.config
    for make in CALLS.get(config.model_type, ()):
        yield make(config)
    text = text_for(config, names)
    if "mm_token_type_ids" in names and "input_ids" in text and round_ != "text":
        text["mm_token_type_ids"] = torch.zeros_like(text["input_ids"])
    if round_ == "text":
        yield dict(text)
        if "attention_mask" in text and "input_ids" not in text:
            yield {k: v for k, v in text.items() if k != "attention_mask"}
        yield {k: v for k, v in text.items() if not k.endswith(("_input_ids", "_attention_mask")) or k in COMMON}
        if "encoder_hidden_states" in names and "encoder_hidden_states" not in text:
            wide = number(config, "encoder_hidden_size", "cross_attention_hidden_size", default=width_of(config))
            yield {**text, "encoder_hidden_states": noise(BATCH, TOKENS, wide)}
        if "inputs_embeds" in names and "input_ids" in text:
            embeds = {k: v for k, v in text.items() if k != "input_ids"}
            yield {**embeds, "inputs_embeds": noise(BATCH, TOKENS, width_of(config))}
        return
    pictured = {"pixel_values", "pixel_values_videos", "image", "grid_thw", "flattened_patches"} & set(names)
    images = images_for(config, names) if pictured and round_ in ("image", "all") else []
    sounds = [s for s in sounds_for(config) if next(iter(s)) in names] if round_ in ("sound", "all") else []
    if round_ == "all" and not (images and sounds):
        return
    for image, sound in itertools.product(images or [{}], sounds or [{}]):
        if not image and not sound:
            return
        more = {k: v for k, v in {**image, **sound}.items() if k in names}
        yield {**text, **more}
        if "attention_mask" in text and "input_ids" not in text:
            yield {**{k: v for k, v in text.items() if k != "attention_mask"}, **more}
    for image in images:
        if "input_ids" in text:  # one picture, one text
            both = {**text, **image}
            one = {k: v[:1] if isinstance(v, torch.Tensor) and len(v) == BATCH else v for k, v in both.items()}
            yield {k: v for k, v in one.items() if k in names}
