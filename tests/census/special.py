"""What some types need beside the general rules: entries of the configuration."""

from typing import Any

EXPERTS = {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 24}
FORECAST = {
    "prediction_length": 4,
    "context_length": 12,
    "lags_sequence": [1, 2, 3],
    "num_time_features": 2,
    "feature_size": 7,
}
LLAMA4_VISION = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "projector_input_dim": 64,
    "projector_output_dim": 64,
    "vision_output_dim": 64,
}
INDEXER = {
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
}
PHI4_AUDIO = {
    "hidden_size": 64,
    "ext_pw_out_channel": 64,
    "nemo_conv_channels": 64,
    "depthwise_separable_out_channel": 64,
}
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
WORDS = {f"IMGIMGA{letter}Z": number for number, letter in enumerate("BCDEFGHI", start=20)}

FEATURES = {"num_hidden_layers": 8, "out_indices": [2, 4, 6, 8]}
BLOCKS = {
    "num_hidden_layers": 8,
    "layer_types": ["hybrid_sliding", "hybrid_sliding", "hybrid_sliding", "hybrid"] * 2,
    "n_layers_per_attn_res_block": 2,
    "unpadded_vocab_size": 190,
}
LOOP = {
    **BLOCKS,
    "loop_layer_index_start": 2,
    "loop_layer_index_end": 4,
}

# Model type, or class of models that reads hidden states → entries of its small configuration that its default one
# lacks or has no variety in.
ENTRIES: dict[str, dict[str, Any]] = {
    "align": {"vision_config": {"depth_coefficient": 0.4, "image_size": 64}},
    "autoformer": {**FORECAST, "label_length": 4, "moving_average": 5},
    "bamba": {"attn_layer_indices": [1, 3]},
    "BeitForSemanticSegmentation": FEATURES,
    "CLIPSegForImageSegmentation": {"extract_layers": [0, 2], "vision_config": {"num_hidden_layers": 5}},
    "Data2VecVisionForSemanticSegmentation": FEATURES,
    "chameleon": {"vocabulary_map": {"<image>": 5, **WORDS}},
    "cohere_compass": {"text_config": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}}},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "colqwen2": {"vlm_config": {"vision_config": {"embed_dim": 64, "num_heads": 4}}},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_ocr2": {"text_config": {**EXPERTS, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}},
    "deepseek_ocr2_text": {**EXPERTS, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]},
    "deepseek_v2": {**EXPERTS, "first_k_dense_replace": 1},
    "diffusion_gemma": {"text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 24}},
    "diffusion_gemma_text": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 24},
    "dots1": {**EXPERTS, "first_k_dense_replace": 1},
    "emu3": {"vocabulary_map": {"<image>": 5, **{f"<|visual token {n:06}|>": 20 + n for n in range(40)}}},
    "eomt": {"num_blocks": 2},
    "eomt_dinov3": {"num_blocks": 2},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "gemma3": {"mm_tokens_per_image": 16},
    "granite4_vision": {"deepstack_layer_map": [[0, 1], [-1, 2]]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "num_experts": 4, "moe_topk": 2},
    "hunyuan_vl": {"text_config": {"head_dim": 8}},
    "hunyuan_vl_text": {"head_dim": 8},
    "idefics3": {"vision_config": {"image_size": 128}},
    "informer": FORECAST,
    "inkling2": {"text_config": BLOCKS},
    "inkling2_text": BLOCKS,
    "inkling2_loop": {"text_config": LOOP},
    "inkling2_loop_text": LOOP,
    "dory": {
        "num_hidden_layers": 12,
        "n_input_layers": 4,
        "n_recurrent_layers": 4,
        "n_output_layers": 4,
        "layer_types": ["sliding_attention", "mlp", "full_attention", "mlp"] * 3,
    },
    "depth_pro": {"intermediate_hook_ids": [2, 1], "patch_model_config": {"num_hidden_layers": 5}},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "full_attention"], "num_dense_layers": 1},
    "llama4": {"vision_config": LLAMA4_VISION},
    "llama4_vision_model": LLAMA4_VISION,
    "lw_detr": {"num_queries": 20, "projector_scale_factors": [1.0]},
    "molmo2": {"adapter_config": {"vision_feature_layer": [3, 1]}},
    "ministral": {"head_dim": 8},
    "moonshine_streaming": {**SMALL, "encoder_config": SMALL},
    "nemotron": {"num_key_value_heads": 4},
    "phi4_multimodal": {"audio_config": PHI4_AUDIO},
    "phi4_multimodal_audio": PHI4_AUDIO,
    "pix2struct_text_model": {"initializer_range": 0.02},
    "qwen2_5_omni_thinker": {"vision_start_token_id": 3, "vision_end_token_id": 4},
    "qwen2_vl": {"vision_config": {"embed_dim": 64, "num_heads": 4}},
    "qwen2_vl_vision": {"embed_dim": 64, "num_heads": 4},
    "qwen4_exp": {"text_config": INDEXER},
    "qwen4_exp_text": INDEXER,
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 24},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 3, "vision_end_token_id": 4},
    "regnet": {"hidden_sizes": [8, 16, 24, 32], "groups_width": 8},
    "rf_detr": {"num_queries": 20},
    "smolvlm": {"vision_config": {"image_size": 128}},
    "stablelm": {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4},
    "step3p5": {"sliding_window": 4},
    "step3p7": {"text_config": {"sliding_window": 4}},
    "swin2sr": {"embed_dim": 24, "num_heads": [2, 2, 2, 2, 2, 2]},
    "t5gemma2_decoder": {"dropout_rate": 0.0},
    "t5gemma2_encoder": {"text_config": {"dropout_rate": 0.0}},
    "t5gemma2_text": {"dropout_rate": 0.0},
    "time_series_transformer": FORECAST,
    "tvp": {"max_img_size": 64, "num_frames": 2},
    "videomt": {"num_blocks": 2},
    "zamba": {"num_hidden_layers": 6, "layers_block_type": ["mamba", "mamba", "hybrid", "mamba", "mamba", "hybrid"]},
    "xmod": {"default_language": "en_XX"},
}

# Model type → why a bypass says nothing: what a model does between its layers, it does for a bypassed one, too.
BETWEEN = {
    "autoformer": "the decoder adds up the trends that its layers return beside their states",
    "dab-detr": "the decoder moves its reference points after every layer",
    "sam3": "the decoder moves its boxes after every layer",
    "sam3_detr_decoder": "the decoder moves its boxes after every layer",
    "sam3_lite_text": "the decoder moves its boxes after every layer",
    "sam3_lite_text_detr_decoder": "the decoder moves its boxes after every layer",
    "sam_hq": "every global layer hands an embedding to the mask decoder",
    "sam_hq_vision_model": "every global layer hands out an embedding",
    "pp_doclayout_v3": "the decoder moves its reference points after every layer",
}
