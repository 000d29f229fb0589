"""What transformers makes of a checkpoint: the module names of its tensors, and the size of the cache."""

from collections.abc import Iterable

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from depthprune.surgery.modules import REFUSALS


def module_names(model: PreTrainedModel, names: Iterable[str]) -> dict[str, str]:
    """Return checkpoint name → the name under which `from_pretrained` would load it into `model`.

    Tensors that are fused while loading share a name; names that the model does not have are left out.
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
    """Return the number of bytes by which the key-value cache of a generating model grows per token, or None if it has
    none.

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
