"""The depth entries of a configuration, and how a drop changes the configuration.

No torch, no transformers: everything works on plain dictionaries, as from `config.json` or `config.to_dict()`. A depth
key is a dotted path into the configuration: `num_hidden_layers`, `text_config.num_hidden_layers`, or `depths.2` for the
third stage of a model that has stages.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from depthprune.errors import CannotDropError
from depthprune.surgery.config import entries as rules
from depthprune.surgery.config import formulas
from depthprune.surgery.config.quantised import edit_rules
from depthprune.surgery.stacks import STAGE_KEYS, StackPlans

DEPTH_KEYS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "layers",
    "depth",
    "num_blocks",
    "num_layers_per_stack",
    "encoder_layers",
    "decoder_layers",
    "num_encoder_layers",
    "num_decoder_layers",
    "encoder_num_hidden_layers",
    "decoder_num_hidden_layers",
    "num_global_layers",
    "l_layers",
    "x_layers",
    "r_layers",
    "resampler_depth",
    "conf_num_hidden_layers",
    "speech_encoder_layers",
    "t2u_encoder_layers",
    "t2u_decoder_layers",
    "num_spatial_layers",
    "num_temporal_layers",
    "num_auxiliary_layers",
    "memory_attention_num_layers",
    "pred_num_hidden_layers",
    "folding_trunk_num_hidden_layers",
    "num_self_attends_per_block",
    "prompt_layers",
)
LIST_KEYS = ("layers_block_type", "attn_layers", "gnn_layers_types")  # lists whose length is the depth

# Names of a module's layer index, and of values that depend on the depth during training only.
INDEX_ATTRIBUTES = frozenset({"layer_idx", "layer_id", "layer_number", "layer_index", "layer_num"})
TRAINING_ONLY_ATTRIBUTES = frozenset({"drop_prob", "drop_path", "drop_path_rate", "layerdrop", "training"})

# All passes share the weights of one layer: only the number of passes can be reduced.
SHARED_LAYERS = frozenset({"albert"})

# Computations that depend on a layer's index or on the depth, and are not visible in names, shapes or attributes.
_BRIDGE = "its cross-modal layers read the layers of its towers by position"
_BYTES = "its cross-attention layers run beside its first or last layer"
_SELF_CONDITIONING = "it feeds its own predictions back after the layer in the middle"
_LEVELS = "the level of features that a decoder layer reads goes with its index"
HIDDEN_DEPTH = {
    "beam": "its residual branches are scaled by the layer index",
    "big_bird": "the random attention pattern of a layer is seeded with its index",
    "bigbird_pegasus": "the random attention pattern of a layer is seeded with its index",
    "blt_local_decoder": _BYTES,
    "blt_local_encoder": _BYTES,
    "bridgetower": _BRIDGE,
    "bridgetower_text_model": _BRIDGE,
    "bridgetower_vision_model": _BRIDGE,
    "diffllama": "its attention weights are set from the layer index",
    "dory": "its configuration counts attention and feed-forward blocks one by one",
    "esmc": "its residual branches are divided by a function of the depth",
    "granite4_vision_text": "it receives visual features at layers that a map names by number",
    "granite_speech5_encoder": _SELF_CONDITIONING,
    "granite_speech_encoder": _SELF_CONDITIONING,
    "granite_speech_plus_encoder": _SELF_CONDITIONING,
    "idefics": "its gated cross-attention layers run before every cross_layer_interval-th layer",
    "mask2former": _LEVELS,
    "minimax": "its attention decays at a rate set from the layer index and the depth",
    "neomme": "its value embeddings go to the first and the last full-attention layer",
    "oneformer": _LEVELS,
    "pegasus_x": "its odd layers attend to staggered blocks",
    "rwkv": "its first block normalises the embeddings and its weights are rescaled by the layer index",
    "zamba2": "its shared blocks are paired with hybrid layers by their count",
}


def check_supported(config: Mapping[str, Any]) -> None:
    """Refuse an architecture that is known to use the depth in a way that no check here notices.

    Args:
        config: the configuration that holds the stack's depth.

    Raises:
        CannotDropError: if it is one of them; the message says how it uses the depth.
    """
    model_type = config.get("model_type")
    if model_type in HIDDEN_DEPTH:
        raise CannotDropError(
            f"layers of '{model_type}' cannot be dropped exactly: {HIDDEN_DEPTH[model_type]}; "
            "use a model of another architecture"
        )


def depth_keys(config: Mapping[str, Any]) -> dict[str, int]:
    """Return every entry that looks like a depth, including nested ones: dotted path → depth.

    >>> depth_keys({"hidden_size": 8, "text_config": {"num_hidden_layers": 4}, "depths": [2, 3]})
    {'text_config.num_hidden_layers': 4, 'depths.0': 2, 'depths.1': 3}
    """
    return dict(_depths(config, ""))


def _depths(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if key in DEPTH_KEYS and _is_depth(value):
            yield prefix + key, value
        elif key in STAGE_KEYS and isinstance(value, list | tuple) and all(map(_is_depth, value)):
            yield from ((f"{prefix}{key}.{stage}", depth) for stage, depth in enumerate(value))
        elif key in LIST_KEYS and isinstance(value, list | tuple) and value:
            yield prefix + key, len(value)
        elif isinstance(value, Mapping) and ("model_type" in value or key.endswith("_config")):
            yield from _depths(value, f"{prefix}{key}.")


def _is_depth(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def holder(config: dict[str, Any], depth_key: str) -> dict[str, Any]:
    """Return the configuration that has a depth key: the given one or one nested in it.

    A nested configuration that config.json leaves out, since it has default values only, is added.
    """
    for part in depth_key.split(".")[:-1]:
        inner = config.get(part)
        if isinstance(inner, list | tuple):
            break  # a model with stages
        if inner is None:
            config[part] = inner = {}
        config = inner
    return config


def edited(config: Mapping[str, Any], plans: StackPlans) -> dict[str, Any]:
    """Return a copy of `config` with the plans applied.

    Raises:
        CannotDropError: if an entry cannot express what a plan leaves.
    """
    new = copy.deepcopy(dict(config))
    for stack, plan in plans.items():
        where = holder(new, stack.depth_key)
        *_, stages, last = ("", *stack.depth_key.split("."))
        if last.isdigit():
            where[stages] = [*where[stages][: int(last)], len(plan.kept), *where[stages][int(last) + 1 :]]
            continue
        formulas.edit(where, last, plan, head=_head(config) if where is new else "")
        parts = stack.depth_key.split(".")[:-1]
        for at in range(len(parts)):
            rules.edit_outside(holder(new, ".".join(parts[: at + 1])), ".".join(parts[at:]), plan)
    edit_rules(new, plans)
    return new


def _head(config: Mapping[str, Any]) -> str:
    """Return the name of the model class of a configuration."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list | tuple) and names else ""


def edited_generation(generation: Mapping[str, Any], plans: StackPlans) -> dict[str, Any]:
    """Return a copy of a generation configuration with the plans applied."""
    new = copy.deepcopy(dict(generation))
    for stack, plan in plans.items():
        if "decoder" in (*stack.path.split("."), stack.name):
            rules.edit_generation(new, plan)
    return new
