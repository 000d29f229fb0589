"""Compare the outputs of a cut model with those of the old one with the dropped layers bypassed, on random input.

The input is random text, image or sound. A stack that does not influence the outputs would agree whatever the cut did,
so bypassing each stack that loses layers must change the outputs; for a model that the census does not cover, every
stack must.
"""

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from depthprune.errors import CannotDropError
from depthprune.surgery.bypass import bypassed
from depthprune.surgery.coverage import Beyond
from depthprune.surgery.modules import REFUSALS, find_stacks, first_line
from depthprune.surgery.sized_tensors import kept_part
from depthprune.surgery.stacks import ModulePlans

BATCH = 2
TOKENS = 12
SAMPLES = 4000  # of a sound: long enough for the convolutions of speech models
LEFT_OUT = ("past_key_values", "hidden_states", "attentions")  # one a layer

Outputs = dict[str, Tensor]


def same_logits(
    model_class: type[PreTrainedModel], old: Path, new: Path, plans: ModulePlans, beyond: Beyond | None = None
) -> str:
    """Compare the outputs of a saved model with those of the old one with the dropped layers bypassed.

    Returns:
        What was compared.

    Raises:
        CannotDropError: if they differ, or no input can be generated that the dropped layers act on.
    """
    chosen: Any = model_class
    whole = chosen.from_pretrained(old, dtype="auto").eval()
    batch = _batch(whole, beyond)
    before, rounding = _wanted(whole, batch, plans, beyond), _rounding(whole, plans)
    del whole
    return _compare(before, _run(chosen.from_pretrained(new, dtype="auto").eval(), batch), beyond, rounding)


def check_in_memory(
    model: PreTrainedModel, plans: ModulePlans, cut: Callable[[PreTrainedModel], object], beyond: Beyond
) -> None:
    """Make a cut on a copy of a model that shares its tensors, and compare the outputs.

    Args:
        model: unchanged.
        plans: the layers to drop.
        cut: makes the cut, in place.
        beyond: why the check is needed.

    Raises:
        CannotDropError: if the outputs differ, or no input can be generated that the dropped layers act on.
    """
    tensors = (*model.parameters(), *model.buffers())
    if any(tensor.is_meta for tensor in tensors):
        raise CannotDropError(f"{beyond.reason}, so it has to be run, and its weights are not loaded; load them first")
    trial = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()
    batch = _batch(trial, beyond)
    before, rounding = _wanted(trial, batch, plans, beyond), _rounding(trial, plans)
    cut(trial)
    _compare(before, _run(trial, batch), beyond, rounding)


def _wanted(model: PreTrainedModel, batch: Mapping[str, Tensor], plans: ModulePlans, beyond: Beyond | None) -> Outputs:
    """Return the outputs with all dropped layers bypassed, after checking that every stack influences them."""
    going = {stack.name: plan.dropped for stack, plan in plans.items() if plan.dropped}
    shown = dict(going)
    if beyond is not None and beyond.new_type:
        shown = {name: going.get(name, (stack.depth // 2,)) for name, stack in find_stacks(model).items()}
    try:
        full = _run(model, batch)
        for name, layers in shown.items():
            if _same(full, _bypassed(model, batch, {name: layers})):
                raise CannotDropError(f"random input does not reach the stack '{name}', so {_advice(beyond)}")
        return _bypassed(model, batch, going)
    except REFUSALS as error:
        raise CannotDropError(
            f"the model cannot be run on random input ({first_line(error)}), so {_advice(beyond)}"
        ) from None


def _advice(beyond: Beyond | None) -> str:
    if beyond is None:
        return "--verify logits proves nothing; use --verify full"
    return f"the cut cannot be checked, and {beyond.reason}; {beyond.other_way}"


def _bypassed(model: PreTrainedModel, batch: Mapping[str, Tensor], layers: Mapping[str, tuple[int, ...]]) -> Outputs:
    with ExitStack() as bypasses:
        for name, indices in layers.items():
            bypasses.enter_context(bypassed(model, indices, stack=name))
        return _run(model, batch)


def _run(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Outputs:
    """Return every output tensor except those with one per layer. Random numbers are the same in each run."""
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(0)
        output = model(**batch)
    if not isinstance(output, Mapping):
        return {"first": output[0]}
    return {name: value for name, value in output.items() if isinstance(value, Tensor) and name not in LEFT_OUT}


def _rounding(model: PreTrainedModel, plans: ModulePlans) -> float:
    """Return the tolerance, relative to the largest output.

    Zero, unless weights of a sum were merged, which changes the order of additions: a hundred times their precision.
    """
    parts = (kept_part(name, tuple(tensor.shape), plans) for name, tensor in model.state_dict().items())
    return 100 * torch.finfo(model.dtype).eps if any(part is not None and part.merged for part in parts) else 0.0


def _compare(before: Outputs, after: Outputs, beyond: Beyond | None, rounding: float) -> str:
    if not before or not _same(before, after, rounding):
        what = "the cut model's outputs differ from those of the old one with these layers bypassed"
        then = "nothing was saved, please report it" if beyond is None else f"{beyond.reason}; {beyond.other_way}"
        raise CannotDropError(f"{what}; {then}")
    how = "to within rounding, since weights were merged" if rounding else "bit for bit"
    return f"{tuple(next(iter(after.values())).shape)} outputs are equal, {how}"


def _same(one: Outputs, other: Outputs, rounding: float = 0.0) -> bool:
    return one.keys() == other.keys() and all(_equal(one[name], other[name], rounding) for name in one)


def _equal(one: Tensor, other: Tensor, rounding: float) -> bool:
    if one.shape != other.shape:
        return False
    one, other = one.nan_to_num(), other.nan_to_num()
    if torch.equal(one, other):
        return True
    return bool((one - other).abs().max() <= rounding * one.abs().max()) if rounding else False


def _batch(model: PreTrainedModel, beyond: Beyond | None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first = next(model.parameters())
    if model.main_input_name == "input_ids":
        size = min(1000, int(model.get_input_embeddings().get_parameter("weight").shape[0]))
        ids = torch.randint(0, size, (BATCH, TOKENS), generator=generator).to(first.device)
        extra = {"decoder_input_ids": ids[:, :5]} if model.config.is_encoder_decoder else {}
        return {"input_ids": ids, **extra}
    side = getattr(model.config, "image_size", None)
    shape: tuple[int, ...] | None = None
    if model.main_input_name == "pixel_values" and isinstance(side, int):
        shape = (BATCH, getattr(model.config, "num_channels", 3), side, side)
    elif model.main_input_name == "input_values" and hasattr(model.config, "conv_stride"):
        shape = (BATCH, SAMPLES)
    if shape is None:
        raise CannotDropError(
            f"no input can be generated for a model that reads {model.main_input_name}, so {_advice(beyond)}"
        )
    return {model.main_input_name: torch.randn(shape, generator=generator).to(first.device, first.dtype)}
