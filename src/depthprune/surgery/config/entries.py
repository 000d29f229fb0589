"""Edit the per-layer entries of a configuration for a drop: rules by name, on plain dictionaries. No torch.

An entry about layers is one of: a *list* with an item per layer (sliced); a list of layer *indices* (renumbered); a
*count* of special first or last layers (recounted); a *period* (solved again); a *tap*, the index of a layer or hidden
state that something else reads (moved to the layer that outputs the same values). Lists are recognised by name, never
by length alone: unrelated entries can have the depth's length or value by chance. Entries without a rule are unchanged,
and the check on the meta device decides whether the kept layers still fit. Names and meanings are those of transformers
5 (`configuration_*.py`).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan

Fields = dict[str, Any]

PER_LAYER_LISTS = (
    "activation_sparsity_pattern",
    "attention_layers",
    "attention_window",
    "attn_layers",
    "gnn_layers_types",
    "indexer_types",
    "intermediate_size",
    "layer_rope_theta",
    "layer_types",
    "layers_block_type",
    "mlp_layer_types",
    "moe_topk",
    "no_rope_layers",
    "num_attention_heads_per_layer",
    "num_experts",
    "num_key_value_heads_per_layer",
    "sliding_windows",
)
LISTS_WITH_A_TAIL = ("swiglu_limits", "swiglu_limits_shared")  # items of multi-token prediction layers follow
INDEX_LISTS = (
    "attn_layer_indices",
    "cross_attention_layers",
    "full_attn_idxs",
    "fullatt_block_indexes",
    "global_attn_indexes",
    "local_layer_ids",
    "look_ahead_layers",
    "look_backward_layers",
    "mlp_only_layers",
    "moe_layers",
    "residual_block_indices",
    "rope_scaling_layers",
    "window_block_indexes",
    "window_block_indices",
)
WHOLE_INDEX_LISTS = ("subsample_layers", "merge_index")  # none of these layers may be dropped
PREFIX_COUNTS = ("first_k_dense_replace", "max_window_layers", "num_dense_layers", "num_first_full_attention_layers")
SUFFIX_COUNTS = ("num_kv_shared_layers", "num_last_full_attention_layers", "num_timestamp_prediction_layers")
# The index of a layer whose output is read: moved to the nearest kept layer before it, which outputs the same.
LAYER_TAPS = (
    "backbone_out_indices",
    "conditional_layer",
    "deepstack_visual_indexes",
    "extract_layers",
    "insert_layer_id",
    "intermediate_hidden_state_indices",
    "intermediate_hook_ids",
    "intermediate_layers_indices",
)
# The index of a hidden state that is read, 0 for the embeddings; negative indices count from the end.
STATE_TAPS = ("cat_hidden_layers", "feature_layer", "spatial_vision_layer", "vision_feature_layer")
# (period, offset): layer i is special where i % period == offset.
PERIODS = (("attn_layer_period", "attn_layer_offset"), ("expert_layer_period", "expert_layer_offset"))
# Multi-token prediction layers follow the stack; they were trained on the full depth and are removed by any drop.
BEYOND_THE_STACK = ("num_mtp_layers", "num_nextn_predict_layers")
# If a configuration has several depths, the one that an entry is about.
OWNERS = {"attention_window": "encoder_layers", "intermediate_layers_indices": "num_hidden_layers"}

KNOWN = frozenset(
    {
        *PER_LAYER_LISTS,
        *LISTS_WITH_A_TAIL,
        *INDEX_LISTS,
        *WHOLE_INDEX_LISTS,
        *PREFIX_COUNTS,
        *SUFFIX_COUNTS,
        *LAYER_TAPS,
        *STATE_TAPS,
        *(key for pair in PERIODS for key in pair),
        *BEYOND_THE_STACK,
        "accept_hidden_layer",
        "attention_types",
        "block_types",
        "deepstack_layer_map",
        "moe_layer_end_index",
        "moe_layer_interval",
        "moe_layer_start_index",
        "num_blocks",
        "out_features",
        "out_indices",
        "stage_names",
        "vision_feature_layers",
        "decoder_sparse_step",
        "kv_source_layers",
        "per_layer_config",
        "ple_layer_ids",
        "scale_depth",
    }
)


def edit_entries(fields: Fields, depth_key: str, plan: LayerPlan) -> None:
    """Edit the depth and every entry that has a rule here, in place.

    Raises:
        CannotDropError: if an entry cannot express what the plan leaves; the message names the entry and the layer.
    """
    before = dict(fields)
    if isinstance(before.get(depth_key), list | tuple):
        fields[depth_key] = [before[depth_key][i] for i in plan.kept]
    else:
        fields[depth_key] = len(plan.kept)
    for name, change in _RULES:
        owner = OWNERS.get(name, depth_key)
        if before.get(name) is not None and name != depth_key and (owner == depth_key or owner not in before):
            fields[name] = change(name, before[name], plan)


def edit_outside(fields: Fields, inner: str, plan: LayerPlan) -> None:
    """Edit the entries of a configuration about a stack whose depth is in a nested configuration, in place.

    Args:
        fields: the outer configuration.
        inner: dotted path to the configuration with the depth.
        plan: the layers to drop.

    Raises:
        CannotDropError: if an entry cannot express what the plan leaves.
    """
    for about, path, change in _OUTSIDE:
        *outer, name = path.split(".")
        where: Any = fields
        for part in outer:
            where = where.get(part) if isinstance(where, Mapping) else None
        if re.fullmatch(about, inner) and isinstance(where, dict) and where.get(name) is not None:
            where[name] = change(path, where[name], plan)


def edit_generation(fields: Fields, plan: LayerPlan) -> None:
    """Edit the entries of a generation configuration about decoder layers, in place: Whisper's alignment heads."""
    heads = fields.get("alignment_heads")
    if heads:
        fields["alignment_heads"] = [[plan.kept.index(layer), head] for layer, head in heads if layer in plan.kept]


def _slice(name: str, value: Any, plan: LayerPlan) -> Any:
    if not isinstance(value, list | tuple) or len(value) != plan.depth:
        return value
    return [value[i] for i in plan.kept]


def _slice_head(name: str, value: Any, plan: LayerPlan) -> Any:
    return [value[i] for i in plan.kept] + list(value[plan.depth :]) if isinstance(value, list | tuple) else value


def _remap(name: str, value: Any, plan: LayerPlan) -> Any:
    return [plan.kept.index(i) for i in value if i in plan.kept] if isinstance(value, list | tuple) else value


def _remap_whole(name: str, value: Any, plan: LayerPlan) -> Any:
    if is_int(value):
        return _remap_whole(name, [value], plan)[0]
    gone = [i for i in value if i in plan.dropped]
    if gone:
        raise CannotDropError(f"layer {gone[0]} is one of {name} {list(value)}, which must all be kept; keep it")
    return _remap(name, value, plan)


def _prefix(name: str, value: Any, plan: LayerPlan) -> Any:
    return sum(i < value for i in plan.kept) if is_int(value) else value


def suffix(name: str, value: Any, plan: LayerPlan) -> Any:
    return sum(i >= plan.depth - value for i in plan.kept) if is_int(value) else value


def _layer_taps(name: str, value: Any, plan: LayerPlan) -> Any:
    def move(tap: int) -> int:
        layer = tap + plan.depth if tap < 0 else tap
        before = [i for i in plan.kept if i <= layer]
        if not before:
            raise CannotDropError(f"{name} reads the output of layer {layer}, and no layer up to it is kept; keep one")
        return plan.kept.index(before[-1]) - (len(plan.kept) if tap < 0 else 0)

    return _move_taps(name, value, move)


def state_taps(name: str, value: Any, plan: LayerPlan) -> Any:
    def move(tap: int) -> int:
        state = tap + plan.depth + 1 if tap < 0 else tap
        moved = sum(i < state for i in plan.kept)
        if moved == len(plan.kept) and state < plan.depth:
            # The last hidden state may be normalised while earlier ones are not.
            raise CannotDropError(
                f"{name} {tap} reads hidden state {state}, which would become the last one; keep layer {plan.depth - 1}"
            )
        return moved - (len(plan.kept) + 1 if tap < 0 else 0)

    return _move_taps(name, value, move)


def _move_taps(name: str, value: Any, move: Callable[[int], int]) -> Any:
    if is_int(value):
        return move(value)
    if not isinstance(value, list | tuple) or not all(map(is_int, value)):
        return value
    moved = [move(tap) for tap in value]
    if len(set(moved)) < len(set(value)):
        raise CannotDropError(f"two of {name} {list(value)} would read the same layer; keep a layer between them")
    return moved


def _mapped_states(name: str, value: Any, plan: LayerPlan) -> Any:
    """Edit pairs of a hidden state and the layer of another stack that receives it (Granite 4 Vision)."""
    if not isinstance(value, list | tuple):
        return value
    states = state_taps(name, [pair[0] for pair in value], plan)
    return [[state, *pair[1:]] for state, pair in zip(states, value, strict=True)]


def _per_layer_config(name: str, value: Any, plan: LayerPlan) -> Any:
    if not isinstance(value, Mapping):
        return value
    kind = str if all(isinstance(key, str) for key in value) else int
    return {kind(plan.kept.index(int(key))): entry for key, entry in value.items() if int(key) in plan.kept}


def _kv_sources(name: str, value: Any, plan: LayerPlan) -> Any:
    for layer in plan.kept:
        if value[layer] in plan.dropped:
            raise CannotDropError(
                f"layer {layer} reads the keys and values of layer {value[layer]} ({name}); drop it too, or keep both"
            )
    return [plan.kept.index(value[layer]) for layer in plan.kept]


def _ple_layers(name: str, value: Any, plan: LayerPlan) -> Any:
    """Edit layer numbers that start at one; the position in the list is the row of an embedding table."""
    return [i + 1 for i in _remap_whole(name, [i - 1 for i in value], plan)]


def _none_left(name: str, value: Any, plan: LayerPlan) -> Any:
    return 0 if is_int(value) and plan.dropped else value


_RULES: tuple[tuple[str, Callable[[str, Any, LayerPlan], Any]], ...] = (
    *((name, _slice) for name in PER_LAYER_LISTS),
    *((name, _slice_head) for name in LISTS_WITH_A_TAIL),
    *((name, _remap) for name in INDEX_LISTS),
    *((name, _remap_whole) for name in WHOLE_INDEX_LISTS),
    *((name, _prefix) for name in PREFIX_COUNTS),
    *((name, suffix) for name in SUFFIX_COUNTS),
    *((name, _layer_taps) for name in LAYER_TAPS),
    *((name, state_taps) for name in STATE_TAPS),
    *((name, _none_left) for name in BEYOND_THE_STACK),
    ("per_layer_config", _per_layer_config),
    ("kv_source_layers", _kv_sources),
    ("ple_layer_ids", _ple_layers),
)
# Entries of a configuration about a stack of a nested configuration: which one, the entry, and how it is edited.
_VISION = r"(.*\.)?\w*vision\w*(\..*)?"
_OUTSIDE: tuple[tuple[str, str, Callable[[str, Any, LayerPlan], Any]], ...] = (
    *((_VISION, name, state_taps) for name in ("vision_feature_layer", "vision_feature_layers")),
    (_VISION, "spatial_vision_layer", state_taps),
    (_VISION, "deepstack_layer_map", _mapped_states),
    ("vision_config", "extract_layers", _layer_taps),  # CLIPSeg
    ("vision_config", "adapter_config.vision_feature_layer", _layer_taps),  # Molmo 2
    ("patch_model_config", "intermediate_hook_ids", _layer_taps),  # Depth Pro
    (r"thinker_config\.text_config", "talker_config.accept_hidden_layer", state_taps),  # Qwen3-Omni
)


def is_int(value: Any) -> bool:
    """Return whether a value is an integer and not a boolean."""
    return isinstance(value, int) and not isinstance(value, bool)
