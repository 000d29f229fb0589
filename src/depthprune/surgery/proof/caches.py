"""Check that a cut model still runs with the cache that transformers creates by default.

The cache is created from the configuration, not from the layers. A hybrid model takes the sequence length from the
cache of its first attention layer, and fails if none is left (LFM2, Qwen3-Next, Bamba, Jamba, …). T5, ProphetNet and
similar models size it by the encoder's depth, which is too small if the decoder is deeper (for T5 `formulas.py` adds an
entry). Such a model would pass the comparison, but `forward` or `generate` would fail.
"""

from typing import Any

from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from depthprune.errors import CannotDropError
from depthprune.surgery.modules import REFUSALS


def check_caches(old: PreTrainedModel, new: PreTrainedModel) -> None:
    """Refuse a cut model for which transformers creates a cache that does not fit, if it fitted the full model.

    Args:
        old: the full model; the meta device is enough.
        new: the cut model.

    Raises:
        CannotDropError: if the model would not run; the message says what to keep.
    """
    before, after = _layers(old.config), _layers(new.config)
    attention = [i for i, layer in enumerate(before) if isinstance(layer, CacheLayerMixin)]
    if attention and after and not any(isinstance(layer, CacheLayerMixin) for layer in after):
        raise CannotDropError(
            f"this plan leaves '{old.config.model_type}' no layer with attention, and without one transformers cannot "
            f"run it with its cache; keep one of layers {', '.join(map(str, attention))}"
        )
    for whole, cut in zip(_sizes(old), _sizes(new), strict=False):
        if whole[0] >= whole[1] and cut[0] < cut[1]:
            raise CannotDropError(
                f"this plan leaves '{old.config.model_type}' {cut[1]} decoder layers, for which transformers makes a "
                f"cache of {cut[0]}, the depth of the encoder, so that it cannot generate; "
                f"drop at least {cut[1] - cut[0]} decoder layers more, or fewer of the encoder"
            )


def _layers(config: PreTrainedConfig) -> list[Any]:
    try:
        return list(DynamicCache(config=config).layers)
    except REFUSALS:  # the model has no such cache
        return []


def _sizes(model: PreTrainedModel) -> list[tuple[int, int]]:
    """Return (layers of a cache, layers that use it) for `forward` and, where the model can, for `generate`."""
    if not getattr(model.config, "is_encoder_decoder", False):
        return []
    try:
        decoder: Any = model.get_decoder()
    except REFUSALS:
        return []
    indices = [module.layer_idx for module in decoder.modules() if isinstance(getattr(module, "layer_idx", None), int)]
    of_decoder = getattr(decoder, "config", model.config)  # FSMT's class has none
    configs = [of_decoder, *([model.config] if model.can_generate() else [])]
    return [(len(_layers(config)), max(indices, default=-1) + 1) for config in configs]
