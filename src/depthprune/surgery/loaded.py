"""What loading makes of a checkpoint: module names of its tensors, the size of the cache, whether outputs agree."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan
from depthprune.surgery.bypass import bypassed
from depthprune.surgery.modules import REFUSALS, first_line
from depthprune.surgery.stacks import Stack

BATCH = 2
TOKENS = 12


def module_names(model: PreTrainedModel, names: Iterable[str]) -> dict[str, str]:
    """Return checkpoint name → the name under which `from_pretrained` would load it into `model`.

    Tensors that are fused while loading share a name; names that the model has no place for are left out.
    """
    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    state = model.state_dict()
    found = {}
    for name in names:
        renamed, _ = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        if renamed not in state and name in state:
            renamed = name
        if renamed in state:
            found[name] = renamed
    return found


def cache_bytes_per_token(model: PreTrainedModel) -> int | None:
    """Return by how many bytes the cache of a generating model grows with a token, or None where it has none.

    Measured on the meta device: two prompts, one a token longer. State-space layers and sliding windows that are full
    do not grow.
    """
    if not model.can_generate() or model.main_input_name != "input_ids" or model.config.is_encoder_decoder:
        return None

    def size(tokens: int) -> int:
        ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
        cache = model.eval()(input_ids=ids, use_cache=True).past_key_values
        layers = getattr(cache, "layers", None)
        if layers is None:
            raise TypeError("the model returns no cache of layers")
        tensors = (value for layer in layers for value in vars(layer).values() if isinstance(value, torch.Tensor))
        return sum(tensor.numel() for tensor in tensors) * _item_bytes(model)

    try:
        with torch.no_grad():
            return size(3) - size(2)
    except REFUSALS:
        return None


def _item_bytes(model: PreTrainedModel) -> int:
    dtype = getattr(model.config, "dtype", None)
    return (dtype if isinstance(dtype, torch.dtype) else torch.float32).itemsize


def same_logits(model_class: type[PreTrainedModel], old: Path, new: Path, plans: Mapping[Stack, LayerPlan]) -> str:
    """Compare the outputs of a written model with those of the old one with the dropped layers bypassed.

    Returns:
        What was compared.

    Raises:
        CannotDropError: they differ, or no batch can be made for the model.
    """
    chosen: Any = model_class
    whole = chosen.from_pretrained(old, dtype="auto").eval()
    batch = _batch(whole)
    try:
        with torch.no_grad(), ExitStack() as bypasses:
            for stack, plan in plans.items():
                bypasses.enter_context(bypassed(whole, plan.dropped, stack=stack.name))
            before = whole(**batch)[0]
    except REFUSALS as error:
        raise CannotDropError(
            f"--verify logits cannot run this model ({first_line(error)}); use --verify full"
        ) from None
    del whole
    with torch.no_grad():
        after = chosen.from_pretrained(new, dtype="auto").eval()(**batch)[0]
    if before.shape != after.shape or not torch.equal(before.nan_to_num(), after.nan_to_num()):
        raise CannotDropError(
            "the cut model does not compute what the old one does with these layers bypassed; "
            "nothing was saved, please report it"
        )
    return f"{tuple(after.shape)} outputs are equal, bit for bit"


def _batch(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    if model.main_input_name == "input_ids":
        size = min(1000, int(model.get_input_embeddings().get_parameter("weight").shape[0]))
        ids = torch.randint(0, size, (BATCH, TOKENS), generator=generator)
        extra = {"decoder_input_ids": ids[:, :5]} if model.config.is_encoder_decoder else {}
        return {"input_ids": ids, **extra}
    side = getattr(model.config, "image_size", None)
    if model.main_input_name == "pixel_values" and isinstance(side, int):
        channels = getattr(model.config, "num_channels", 3)
        dtype = next(model.parameters()).dtype
        return {"pixel_values": torch.randn(BATCH, channels, side, side, generator=generator).to(dtype)}
    raise CannotDropError(
        f"--verify logits cannot make a batch for a model whose input is {model.main_input_name}; use --verify full"
    )
