"""Refuse plans that change a layer's position where the forward pass uses it in a way that no comparison of modules
shows. No torch.

Every rule is based on a line of a `modeling_*.py` of transformers 5.23 that compares a layer's index with something.
Entries about positions are in `entries.py`, whole architectures in `depth.HIDDEN_DEPTH`.
"""

from collections.abc import Mapping
from typing import Any

from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan
from depthprune.surgery.stacks import Stack, StackPlans

# (model type, word in the stack's path, keep layer 0, keep the last layer, reason)
ENDS = (
    ("conditional_detr", "decoder", True, False, "scales the queries' positions in all layers but the first"),
    ("d_fine", "decoder", True, True, "predicts the first boxes in the first layer and the final ones in the last"),
    ("dab-detr", "decoder", True, True, "treats the queries' positions of the first and the last layer differently"),
    ("deimv2", "decoder", True, True, "predicts the first boxes in the first layer and the final ones in the last"),
    (
        "omdet-turbo",
        "decoder",
        True,
        True,
        "predicts the first boxes in the first layer and the final ones in the last",
    ),
)


def check_positions(config: Mapping[str, Any], plans: StackPlans) -> None:
    """Refuse plans that change which layer the forward pass treats differently.

    Args:
        config: the whole configuration, as `to_dict` gives it.
        plans: the layers to drop.

    Raises:
        CannotDropError: if a plan does; the message names the layer and the reason.
    """
    for stack, plan in plans.items():
        above, own = _configs(config, stack)
        _check_passes(own, stack, plan)
        _check_ends(own, stack, plan)
        _check_indices(own, plan)
        _check_global_layers(above, own, plan)
        _check_visual_features(above, stack, plan)
        _check_sums(above, own, stack, plan)
        _check_blocks(own, plan)


def _configs(config: Mapping[str, Any], stack: Stack) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the configuration with a stack's depth, preceded by the one around it."""
    above = config
    for part in stack.depth_key.split(".")[:-1]:
        inner = config.get(part)
        if not isinstance(inner, Mapping):
            break
        above, config = config, inner
    return above, config


def _check_passes(own: Mapping[str, Any], stack: Stack, plan: LayerPlan) -> None:
    if stack.paths:
        return
    last = tuple(range(plan.depth - plan.count, plan.depth))
    if plan.dropped != last or own.get("num_hidden_groups", 1) != 1:
        raise CannotDropError(
            f"'{own.get('model_type')}' shares the weights of one layer among all passes, so only the number of "
            f"passes can fall: drop the last ones (--strategy top --count {plan.count})"
        )


def _check_ends(own: Mapping[str, Any], stack: Stack, plan: LayerPlan) -> None:
    kind, first, last = own.get("model_type"), 0 in plan.dropped, plan.depth - 1 in plan.dropped
    *_, stages, stage = ("", *stack.depth_key.split("."))
    if first and stages == "block_sizes" and stage != "0":
        raise CannotDropError(f"layer 0 of {stack.name} of '{kind}' is the one that pools the tokens; keep it")
    # DeBERTa-v2 XL and SEW-D add a convolution of the embeddings to the output of the first layer.
    if first and kind in ("deberta-v2", "sew-d") and own.get("conv_kernel_size"):
        raise CannotDropError(
            f"dropping layer 0 of '{kind}' makes layer {plan.kept[0]} the first, and the convolution "
            f"(conv_kernel_size {own['conv_kernel_size']}) after the first layer would follow that one; keep layer 0"
        )
    for name, word, keeps_first, keeps_last, why in ENDS:
        if kind == name and word in stack.path:
            if keeps_first and first:
                raise CannotDropError(f"'{kind}' {why}; keep layer 0")
            if keeps_last and last:
                raise CannotDropError(f"'{kind}' {why}; keep layer {plan.depth - 1}")


def _check_indices(own: Mapping[str, Any], plan: LayerPlan) -> None:
    moved = [layer for new, layer in enumerate(plan.kept) if new != layer]
    if moved and own.get("scale_attn_by_inverse_layer_idx"):
        raise CannotDropError(
            f"layer {moved[0]} of '{own.get('model_type')}' divides its attention by its position "
            "(scale_attn_by_inverse_layer_idx), which would change; drop the last layers only"
        )
    kinds = own.get("indexer_types")
    if not isinstance(kinds, list | tuple) or len(kinds) != plan.depth:
        return
    for layer in plan.kept:  # a "shared" layer uses the selection of the nearest "full" layer before it
        source = max((i for i in range(layer + 1) if kinds[i] == "full"), default=None)
        if source in plan.dropped:
            raise CannotDropError(
                f"layer {layer} uses the selection of layer {source} (indexer_types); drop both or keep both"
            )


def _check_global_layers(above: Mapping[str, Any], own: Mapping[str, Any], plan: LayerPlan) -> None:
    """Refuse to drop SAM's layers with global attention if others read their outputs."""
    layers = own.get("global_attn_indexes") or ()
    if above.get("model_type") == "deepseek_vl_hybrid":
        read, reader = layers[:1], "the projector"
    else:
        read, reader = layers if own.get("model_type") == "sam_hq_vision_model" else (), "its mask decoder"
    gone = [layer for layer in read if layer in plan.dropped]
    if gone:
        raise CannotDropError(
            f"the output of layer {gone[0]} of '{own.get('model_type')}' is read by {reader} "
            "(global_attn_indexes); keep it"
        )


def _check_visual_features(above: Mapping[str, Any], stack: Stack, plan: LayerPlan) -> None:
    """Qwen3-VL and similar models add visual features to the outputs of the first layers of the language model."""
    vision = above.get("vision_config")
    taps = (vision.get("deepstack_visual_indexes") if isinstance(vision, Mapping) else None) or ()
    early = [i for i in plan.dropped if i < len(taps)]
    if early and "vision" not in stack.depth_key:
        raise CannotDropError(
            f"layer {early[0]} of '{above.get('model_type')}' is one of the first {len(taps)}, which receive visual "
            "features by their position (deepstack_visual_indexes); keep it"
        )


def _check_sums(above: Mapping[str, Any], own: Mapping[str, Any], stack: Stack, plan: LayerPlan) -> None:
    """Refuse if a function of all hidden states cannot be computed from the kept ones. See `sized_tensors.py`."""
    averages = above.get("model_type") in ("xcodec", "higgs_audio_v2_tokenizer")
    if averages and plan.dropped and "semantic_model_config" in stack.depth_key:
        raise CannotDropError(
            f"'{above['model_type']}' averages all hidden states of its semantic model, which any "
            "dropped layer changes; use a model of another architecture"
        )
    normalised = own.get("tie_last_hidden_states")
    normalised = own.get("model_type") == "whisper" if normalised is None else normalised
    last = plan.depth - 1
    if own.get("use_weighted_layer_sum") and normalised and last in plan.dropped and "decoder" not in stack.depth_key:
        raise CannotDropError(
            f"the weighted sum of '{own.get('model_type')}' (use_weighted_layer_sum) takes the last hidden state after "
            f"a norm and those before without; keep layer {last}"
        )


def _check_blocks(own: Mapping[str, Any], plan: LayerPlan) -> None:
    """Inkling 2 passes the hidden states between blocks of layers to all later layers, and repeats some layers."""
    size, looped = own.get("n_layers_per_attn_res_block"), own.get("loop_layer_index_end")
    early = [layer for layer in plan.dropped if isinstance(looped, int) and layer < looped]
    if early:
        raise CannotDropError(
            f"layer {early[0]} of '{own.get('model_type')}' runs in a loop or before it, which depends on its index "
            f"(loop_layer_index_end {looped}); drop later layers only"
        )
    if not isinstance(size, int) or not size or not plan.dropped:
        return
    for layer in plan.dropped:
        if layer % size == 0 and plan.kept[-1] > layer:
            raise CannotDropError(
                f"the states before layer {layer} of '{own.get('model_type')}' are read by all later layers "
                f"(n_layers_per_attn_res_block {size}); keep it, or drop all that follow"
            )
