"""What some types need beside the general rules: entries of the configuration, a class, inputs."""

from typing import Any

import torch

EXPERTS = {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 24}
FORECAST = {
    "prediction_length": 4,
    "context_length": 12,
    "lags_sequence": [1, 2, 3],
    "num_time_features": 2,
    "feature_size": 7,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
WORDS = {f"IMGIMGA{letter}Z": number for number, letter in enumerate("BCDEFGHI", start=20)}

# Model type → entries of its small configuration that its default one lacks or has no variety in.
ENTRIES: dict[str, dict[str, Any]] = {
    "autoformer": {**FORECAST, "label_length": 4, "moving_average": 5},
    "chameleon": {"vocabulary_map": {"<image>": 5, **WORDS}},
    "cohere_compass": {"text_config": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}}},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_ocr2_text": EXPERTS,
    "deepseek_v2": {**EXPERTS, "first_k_dense_replace": 1},
    "diffusion_gemma_text": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 24},
    "dots1": {**EXPERTS, "first_k_dense_replace": 1},
    "emu3": {"vocabulary_map": {"<image>": 5, **{f"<|visual token {n:06}|>": 20 + n for n in range(40)}}},
    "eomt": {"num_blocks": 2},
    "eomt_dinov3": {"num_blocks": 2},
    "videomt": {"num_blocks": 2},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "gemma3": {"mm_tokens_per_image": 16},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "num_experts": 4, "moe_topk": 2},
    "hunyuan_vl": {"text_config": {"head_dim": 8}},
    "hunyuan_vl_text": {"head_dim": 8},
    "idefics3": {"vision_config": {"image_size": 128}},
    "informer": FORECAST,
    "ministral": {"head_dim": 8},
    "moonshine_streaming": {"num_key_value_heads": 4},
    "nemotron": {"num_key_value_heads": 4},
    "pix2struct_text_model": {"initializer_range": 0.02},
    "qwen2_5_omni_thinker": {"vision_start_token_id": 3, "vision_end_token_id": 4},
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 24},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 3, "vision_end_token_id": 4},
    "smolvlm": {"vision_config": {"image_size": 128}},
    "stablelm": {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4},
    "step3p5": {"sliding_window": 4},
    "step3p7": {"text_config": {"sliding_window": 4}},
    "time_series_transformer": FORECAST,
}

# Model type → why a bypass says nothing: what a model does between its layers, it does for a bypassed one, too.
BETWEEN = {
    "autoformer": "the decoder adds up the trends that its layers return beside their states",
    "sam_hq": "every global layer hands an embedding to the mask decoder",
    "sam_hq_vision_model": "every global layer hands out an embedding",
    "pp_doclayout_v3": "the decoder moves its reference points after every layer",
}

# Model type → the class to try first.
CLASSES: dict[str, str] = {}


def _forecast(config: Any) -> dict[str, Any]:
    """Values of the past, as many as the context and its lags, with features of their times."""
    past, future = config.context_length + max(config.lags_sequence), config.prediction_length
    draw = torch.Generator().manual_seed(3)
    return {
        "past_values": torch.randn(2, past, generator=draw),
        "past_time_features": torch.randn(2, past, config.num_time_features, generator=draw),
        "past_observed_mask": torch.ones(2, past),
        "future_values": torch.randn(2, future, generator=draw),
        "future_time_features": torch.randn(2, future, config.num_time_features, generator=draw),
    }


def _joined_sounds(config: Any) -> dict[str, Any]:
    """Two spectrograms, one after the other, and their lengths."""
    draw = torch.Generator().manual_seed(3)
    return {
        "input_features": torch.randn(config.num_mel_bins, 160, generator=draw),
        "feature_lens": torch.tensor([100, 60]),
    }


# Model type → functions of the configuration that make calls.
CALLS: dict[str, tuple[Any, ...]] = {
    "autoformer": (_forecast,),
    "informer": (_forecast,),
    "qwen2_5_omni_audio_encoder": (_joined_sounds,),
    "qwen3_omni_moe_audio_encoder": (_joined_sounds,),
    "time_series_transformer": (_forecast,),
}
