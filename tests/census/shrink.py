"""Make a configuration small, by the names of its entries, and keep what makes it special.

Widths are divided by one number everywhere and heads stay, so whatever had to fit still fits. A stack keeps layers of
every kind it has: its per-layer lists are cut to a choice of layers in which every combination of entries comes up.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

DEPTH = 4  # layers of a stack, or more where more kinds of layers have to be there
VOCABULARY = 199

DEPTHS = re.compile(
    r"^(num_hidden_layers|n_layers?|num_layers|layers|depth|num_blocks|num_block|xlstm_num_blocks|n_block|"
    r"\w*(encoder|decoder|resampler|hidden|attention|text|vision|transformer|memory|detr|global|conf|fusion|"
    r"backbone|prenet|postnet|refiner|predictor|qformer|codec|audio|acoustic|perceiver|local|prompt|conformer)_layers|"
    r"[lxr]_layers|\w+_num_layers|num_\w+_layers|\w+_num_hidden_layers|num_layers_per_stack|resampler_depth|"
    r"num_self_attends_per_block|gnn_layers|num_semantic_layers)$"
)
NOT_DEPTHS = re.compile(
    r"(kv_shared|feat_extract|residual|adapter|sparse|nextn|mtp|first|last|dense|num_conv|conv_num|pooling|"
    r"prediction|lstm|upsampl|fpn|num_kv|add_layers|num_hash|rnn|mlp_layers|projection|postnet|prenet)"
)
WIDTHS = re.compile(
    r"(hidden|dim|size|channel|width|d_model|d_ff|d_kv|ffn|inner|rank|embd|embed|units|filters|planes|"
    r"d_head|d_state|d_ssm|intermediate|projector|n_embed|in_features|num_features$)"
)
NOT_WIDTHS = re.compile(
    r"(image|patch|vocab|kernel|window|num_|max_|token|position|codebook_size|crop|chunk|batch|bucket|stride|factor|"
    r"pooling|seq|length|grid|num|layers|depth|dilation|frame|rope|temperature|sample|sinusoid|block_size|context|tile|shape|"
    r"type_vocab|fft|group|input_size$|feature_size|conv_kernel|state_size|crop|roi|expan|merge|scale|heads|rate|id$)"
)
HEAD_DIMS = re.compile(r"(rope_head_dim|rotary_dim|mamba_d_state|mamba_d_head|index_head_dim|state_size|d_state)$")
EXPERTS = re.compile(r"^(n_routed_experts|\w*num_(local_|moe_)?experts|moe_num_experts|num_experts_list)$")
CHOSEN_EXPERTS = re.compile(r"^(num_experts_per_tok|moe_topk|top_k_experts|moe_k|router_top_k|num_selected_experts)$")
IDS = re.compile(r"(_token_id|_token_index|_token_ids|_start_id|_end_id|token_idx)$")
PLACEHOLDERS = re.compile(r"^(image|video|audio)_token_(id|index)$")
PREFIXES = re.compile(
    r"^(first_k_dense_replace|num_dense_layers|num_kv_shared_layers|num_(first|last)_full_attention_layers|"
    r"num_hash_layers|num_timestamp_prediction_layers|aligner_num_add_layers|num_mem_blocks)$"
)
PERIODS = re.compile(
    r"^((attn|expert)_layer_period|(encoder|decoder)_sparse_step|moe_layer_interval|cross_\w+_interval)$"
)
INDICES = re.compile(
    r"(_indexes|_indices|_idxs|_ids|layer_ids|moe_layers|only_layers|attention_layers|_layers|"
    r"vision_feature_layer|\w*out_indices|_hook_ids)$"
)
STAGES = re.compile(r"^(depths|num_block_repeats|blocks_per_stage|block_sizes|layer_depths|stage_num_blocks)$")
TOGETHER = re.compile(r"^(num_sparse_encoder_layers|num_sparse_decoder_layers)$")


MODEL_WIDTHS = ("hidden_size", "d_model", "embed_dim", "n_embd", "dim", "hidden_dim")
HEADS = (
    "num_attention_heads",
    "num_heads",
    "n_head",
    "n_heads",
    "attention_heads",
    "encoder_attention_heads",
    "decoder_attention_heads",
)
TAPS = ("out_features", "_out_features", "out_indices", "_out_indices")
PATCHES = 8  # along an edge of an image


# Image tokenizers, whose groups of channels are fixed.
UNTOUCHED = ("emu3_vqgan", "chameleon_vqgan", "janus_vqgan", "glm_image_vqmodel")
RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}


class Shrinker:
    """Shrinks a configuration and its parts, of which the token numbers must agree.

    Args:
        factor: what widths are divided by; 1 leaves them.
        images: whether images become smaller, too.
        vocabulary: how many tokens stay at most.
        depth: layers of a stack.
    """

    def __init__(self, factor: int, *, images: bool = True, vocabulary: int = VOCABULARY, depth: int = DEPTH):
        self.factor, self.images, self.vocabulary, self.depth = factor, images, vocabulary, depth
        self._ids: dict[int, int] = {}

    def shrink(self, entries: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of a small configuration."""
        if entries.get("model_type") in UNTOUCHED:
            return dict(entries)
        if entries.get("model_type") == "timm_backbone":  # timm is no requirement
            taps = entries.get("out_indices") or [4]
            return {**RESNET, "out_features": [f"stage{i}" for i in taps if i > 0]}
        small = {key: self._value(key, value) for key, value in entries.items()}
        depths = {k: v for k, v in entries.items() if self._is_depth(k, v)}
        for full_depth in {v for k, v in depths.items()}:
            self._cut(entries, small, full_depth, [k for k, v in depths.items() if v == full_depth])
        self._experts(small)
        self._heads(small)
        self._images(entries, small)
        _join(small)
        self._backbone(entries, small)
        return small

    def _heads(self, small: dict[str, Any]) -> None:
        """Take fewer heads where the width is no longer a multiple of them, of a size that rotary positions need."""
        width = next((small[key] for key in MODEL_WIDTHS if type(small.get(key)) is int), 0)
        if not width or type(small.get("head_dim")) is int:
            return
        for key in HEADS:
            heads = small.get(key)
            if type(heads) is not int or not heads or width % (heads * 4) == 0:
                continue
            fit = [h for h in range(1, heads) if heads % h == 0 and width % (h * 4) == 0]
            if fit:
                small[key] = fit[-1]
                shared = small.get("num_key_value_heads")
                if key == "num_attention_heads" and type(shared) is int:
                    small["num_key_value_heads"] = next(
                        h for h in range(min(shared, fit[-1]), 0, -1) if fit[-1] % h == 0
                    )

    def _images(self, full: Mapping[str, Any], small: dict[str, Any]) -> None:
        """Let an image have few patches, where its size is not that of stages."""
        size, patch = full.get("image_size"), full.get("patch_size")
        if self.images and type(size) is int and type(patch) is int and not any(map(STAGES.match, full)):
            small["image_size"] = min(size, patch * PATCHES)

    def _backbone(self, full: Mapping[str, Any], small: dict[str, Any]) -> None:
        """Let a backbone name its stages anew, and take its features from as many of its layers."""
        if "stage_names" not in full:
            return
        small.pop("stage_names", None)
        if any(map(STAGES.match, full)):  # there are as many stages as before
            small.update({key: full[key] for key in TAPS if key in full})
            return
        for key in TAPS:
            small.pop(key, None)
        taps = full.get("out_indices") or ()
        depth = next((small[key] for key, value in full.items() if self._is_depth(key, value)), 0)
        if len(taps) > 1 and depth:
            small["out_indices"] = sorted({max(1, depth - n) for n in range(len(taps))})

    def _is_depth(self, key: str, value: Any) -> bool:
        if type(value) is not int or not DEPTHS.match(key):
            return False
        return (not NOT_DEPTHS.search(key) and value > 1) or bool(TOGETHER.match(key) and value > 2)

    def _value(self, key: str, value: Any) -> Any:
        if isinstance(value, dict):
            if any(not isinstance(name, str) for name in value):  # id2label, per_layer_config
                return {n: self.shrink(v) if isinstance(v, dict) else v for n, v in value.items()}
            return self._rope(value) if "rope_type" in value else self.shrink(value)
        if type(value) is int:
            return self._number(key, value)
        if value is None and PLACEHOLDERS.match(key):
            return self._token(1 << 30)
        if isinstance(value, list | tuple) and value and all(type(v) is int for v in value):
            if STAGES.match(key):
                return type(value)(min(v, 3 if v % 2 else 4) for v in value)
            if IDS.search(key) or WIDTHS.search(key):
                return type(value)(self._number(key, v) for v in value)
        if isinstance(value, list | tuple) and value and all(isinstance(v, dict) for v in value):
            return type(value)(self.shrink(v) for v in value)
        return value

    def _number(self, key: str, value: int) -> int:
        if key in ("vocab_size", "n_vocab", "text_vocab_size", "vocab_size_per_layer_input", "padded_vocab_size"):
            return min(value, self.vocabulary)
        if IDS.search(key):
            return self._token(value)
        if PREFIXES.match(key):
            return min(value, 2)
        if PERIODS.match(key):
            return min(value, 2)
        if key in ("attn_layer_offset", "expert_layer_offset"):
            return min(value, 1)
        if EXPERTS.match(key):
            return min(value, 8)
        if CHOSEN_EXPERTS.match(key):
            return min(value, 3)
        if key in ("max_position_embeddings", "n_positions", "n_ctx", "max_target_positions"):
            return min(value, 2048)
        if key == "max_source_positions":
            return min(value, 64)
        if key in ("mamba_chunk_size", "chunk_size"):  # the plain scan pads to it
            return min(value, 16)
        if WIDTHS.search(key) and (HEAD_DIMS.search(key) or not NOT_WIDTHS.search(key)) and value >= 2 * self.factor:
            return value // self.factor
        return value

    def _token(self, value: int) -> int:
        if value < self.vocabulary:
            return value
        return self._ids.setdefault(value, self.vocabulary - 1 - len(self._ids))

    def _rope(self, entries: dict[str, Any]) -> dict[str, Any]:
        small = dict(entries)
        for key, value in entries.items():
            if key == "mrope_section" and value:
                total = sum(value) // self.factor
                rest = total // len(value)
                small[key] = [*[rest] * (len(value) - 1), total - rest * (len(value) - 1)]
            elif key.endswith("_factor") and isinstance(value, list):
                small[key] = value[: len(value) // self.factor]
        return small

    def _cut(self, full: Mapping[str, Any], small: dict[str, Any], depth: int, keys: list[str]) -> None:
        """Cut a stack to a choice of its layers, and what is said of them layer by layer."""
        lists = {
            k: v
            for k, v in full.items()
            if isinstance(v, list | tuple) and len(v) == depth and not STAGES.match(k) and not _names_layers(v)
        }
        kinds = [repr([v[i] for v in lists.values()]) for i in range(depth)]
        wanted = min(self.depth + (1 if "encoder_layers" in keys else 0), depth)
        chosen = {kinds.index(kind) for kind in dict.fromkeys(kinds)} | {depth - 1}
        for i in sorted(range(depth), key=lambda i: (-(i % 2), i)):
            if len(chosen) < wanted:
                chosen.add(i)
        kept = sorted(chosen)
        for key in keys:
            small[key] = len(kept)
        for key, value in lists.items():
            small[key] = [value[i] for i in kept]
        for key, value in full.items():
            is_indices = isinstance(value, list | tuple) and value and all(type(v) is int for v in value)
            if key not in lists and is_indices and INDICES.search(key) and not IDS.search(key) and max(value) <= depth:
                places = {i: n for n, i in enumerate(kept)}
                inside = [
                    places[v] if v in places else min(n for n, i in enumerate(kept) if i >= v)
                    for v in value
                    if 0 <= v <= kept[-1]
                ]
                small[key] = sorted(set(inside)) or [0]
            if key == "per_layer_config" and value:
                part = {int(i): entries for i, entries in small[key].items()}
                small[key] = {n: part[i] for n, i in enumerate(kept) if i in part}
            if type(value) is int and re.search(r"(insert_layer_id|conditional_layer|merge_index)$", key):
                small[key] = min(value, 1)

    def _experts(self, small: dict[str, Any]) -> None:
        """Let the experts fill their groups."""
        groups = small.get("n_group") or small.get("num_expert_group") or 1
        for key in small:
            if EXPERTS.match(key) and type(small[key]) is int and groups > 1:
                small[key] = max(small[key], 2 * groups)


def _join(small: dict[str, Any]) -> None:
    """Let an image come out as wide as the text is; some default configurations do not."""
    text, vision = small.get("text_config"), small.get("vision_config")
    if not isinstance(text, dict) or not isinstance(vision, dict):
        return
    if type(text.get("hidden_size")) is int and type(vision.get("out_hidden_size")) is int:
        vision["out_hidden_size"] = text["hidden_size"]


def _names_layers(value: Sequence[Any]) -> bool:
    """Tell a list of all layers, one after the other, from a list with an entry for each."""
    return len(value) > 2 and list(value) == list(range(len(value)))
