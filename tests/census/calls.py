"""Calls for the types whose `forward` no general rule understands."""

from collections.abc import Callable
from typing import Any

import torch

from .forms import BATCH, FRAMES, TOKENS, Call, noise, number, token_ids

Maker = Callable[[Any], Call]


def _forecast(config: Any) -> Call:
    """Values of the past, as many as the context and its lags, with features of their times."""
    past, future = config.context_length + max(config.lags_sequence), config.prediction_length
    return {
        "past_values": noise(BATCH, past),
        "past_time_features": noise(BATCH, past, config.num_time_features),
        "past_observed_mask": torch.ones(BATCH, past),
        "future_values": noise(BATCH, future),
        "future_time_features": noise(BATCH, future, config.num_time_features),
    }


def _joined_sounds(config: Any) -> Call:
    """Two spectrograms, one after the other, and their lengths."""
    return {"input_features": noise(config.num_mel_bins, 160), "feature_lens": torch.tensor([100, 60])}


def _text_only(config: Any) -> Call:
    ids = token_ids(config)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}


def _regions(config: Any) -> Call:
    """A text, and features and boxes of regions of an image (LXMERT)."""
    boxes = noise(BATCH, 6, 4).sigmoid()
    return {**_text_only(config), "visual_feats": noise(BATCH, 6, config.visual_feat_dim), "visual_pos": boxes}


def _channels_of_codes(config: Any) -> torch.Tensor:
    channels = number(config, "num_channels", default=9)
    return torch.arange(BATCH * 6 * channels).view(BATCH, 6, channels) * 7 % 100


def _dia(config: Any) -> Call:
    text = _text_only(config.encoder_config)
    return {**text, "decoder_input_ids": _channels_of_codes(config.decoder_config)}


def _dia_decoder(config: Any) -> Call:
    heard = noise(BATCH, TOKENS, config.cross_hidden_size)
    return {"input_ids": _channels_of_codes(config), "encoder_hidden_states": heard}


def _mel(config: Any) -> Call:
    mask = torch.zeros(BATCH, FRAMES, dtype=torch.bool)
    return {"audio_mel": noise(BATCH, FRAMES, config.input_feat_size), "audio_mel_mask": mask}


def _states_and_mask(config: Any) -> Call:
    mask = torch.ones(BATCH, FRAMES, dtype=torch.bool)
    return {"hidden_states": noise(BATCH, FRAMES, config.input_size), "mask": mask}


def _idefics(config: Any) -> Call:
    side = config.vision_config.image_size
    mask = torch.ones(BATCH, TOKENS, 1, dtype=torch.long)
    return {**_text_only(config), "pixel_values": noise(BATCH, 1, 3, side, side), "image_attention_mask": mask}


def _sized_patches(config: Any) -> Call:
    """Patches of one image in a row, and how many there are down and across (MiniCPM-V)."""
    values = noise(1, config.num_channels, config.patch_size, config.patch_size * 64)
    return {"pixel_values": values, "target_sizes": torch.tensor([[8, 8]])}


def _prompted_image(config: Any) -> Call:
    """An image, another that shows the task, and its mask (SegGPT)."""
    side = config.image_size[1]
    names = ("pixel_values", "prompt_pixel_values", "prompt_masks")
    return {name: noise(BATCH, 3, side, side) + n for n, name in enumerate(names)}


def _series(config: Any) -> Call:
    return {"past_values": [noise(64), noise(48)], "freq": [0, 1]}


def _series_without_frequency(config: Any) -> Call:
    return {"past_values": [noise(64), noise(48)]}


def _embedded_patches(config: Any) -> Call:
    edge = config.image_size // config.patch_size
    return {"patch_embeds": noise(BATCH, config.hidden_size, edge, edge)}


def _codebooks(config: Any) -> Call:
    ids = token_ids(config, 6)
    codes = torch.arange(BATCH * 6).view(BATCH, 6) % min(4, number(config, "num_codebooks", default=4))
    return {"input_ids": codes, "last_hidden_state": noise(BATCH, 6, number(config, "input_size", default=64))} | (
        {"input_ids": ids} if number(config, "vocab_size", default=0) > 6 else {}
    )


def _frames_in_the_batch(config: Any) -> Call:
    return {"pixel_values": noise(config.num_frames, config.num_channels, config.image_size, config.image_size)}


def _image_as_states(config: Any) -> Call:
    return {"hidden_states": noise(BATCH, 3, 64, 64)}


def _flat_patches(config: Any) -> Call:
    width = config.num_channels * config.patch_size**2
    return {"pixel_values": noise(BATCH, config.num_position_embeddings, width)}


def _as_many_tokens_as_sounds(config: Any) -> Call:
    bins = number(config, "num_mel_bins", default=128)
    return {"input_ids": token_ids(config, 8), "input_features": noise(BATCH, bins, FRAMES), "use_cache": False}


def _voxtral_text(config: Any) -> Call:
    return {"input_ids": token_ids(config), "t_cond": noise(BATCH, 1, config.hidden_size), "use_cache": False}


def _sounds_twice(config: Any) -> Call:
    """A wave, and the features of it that a semantic model wants."""
    width = number(config.semantic_model_config, "feature_projection_input_dim", default=160)
    return {"input_values": noise(BATCH, 1, 320 * 16), "input_features": noise(BATCH, 16, width)}


def _detr_encoder(config: Any) -> Call:
    """Images as features of 4 x 4 places, and a text."""
    places = noise(BATCH, config.hidden_size, 4, 4)
    return {
        "vision_features": [places],
        "vision_pos_embeds": [places * 0.5],
        "text_features": noise(BATCH, TOKENS, config.hidden_size),
    }


def _detr_decoder(config: Any) -> Call:
    places = noise(BATCH, 16, config.hidden_size)
    return {
        "vision_features": places,
        "vision_pos_encoding": places * 0.5,
        "text_features": noise(BATCH, TOKENS, config.hidden_size),
        "spatial_shapes": torch.tensor([[4, 4]]),
    }


def _mllama_vision(config: Any) -> Call:
    side, tiles = config.image_size, config.max_num_tiles
    return {
        "pixel_values": noise(1, 1, tiles, 3, side, side),
        "aspect_ratio_ids": torch.ones(1, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(1, 1, tiles, dtype=torch.long),
    }


def _mllama(config: Any) -> Call:
    tiles = config.vision_config.max_num_tiles
    ids = token_ids(config)[:1]
    picture = {**_mllama_vision(config.vision_config), "cross_attention_mask": torch.ones(1, TOKENS, 1, tiles)}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False, **picture}


def _mllama_text(config: Any) -> Call:
    seen = noise(BATCH, 5, config.hidden_size)
    allowed = torch.zeros(BATCH, 1, TOKENS, 5)
    return {
        **_text_only(config),
        "cross_attention_states": seen,
        "cross_attention_mask": allowed,
        "full_text_row_masked_out_mask": torch.ones(BATCH, 1, TOKENS, 1),
    }


def _whole_chunks(config: Any) -> Call:
    """A spectrogram as long as whole chunks of the encoder."""
    frames = 2 * 2 * config.n_window
    mask = torch.ones(BATCH, frames, dtype=torch.long)
    return {"input_features": noise(BATCH, config.num_mel_bins, frames), "input_features_mask": mask}


def _noise_and_context(config: Any) -> Call:
    width = number(config, "hidden_size", default=64)
    return {"noise_embeds": noise(BATCH, 4, width), "context_hidden_states": noise(BATCH, TOKENS, width)}


# Model type → functions of the configuration that make calls, tried before the general ones.
CALLS: dict[str, tuple[Maker, ...]] = {
    "autoformer": (_forecast,),
    "dia": (_dia,),
    "dia_decoder": (_dia_decoder,),
    "florence_vision": (_image_as_states,),
    "gemma3n_audio": (_mel,),
    "higgs_audio_v2": (_text_only,),
    "idefics": (_idefics,),
    "informer": (_forecast,),
    "lxmert": (_regions,),
    "minicpm_ocr_vision": (_sized_patches,),
    "minicpmv4_6_vision": (_sized_patches,),
    "minicpmv4_7_vision": (_sized_patches,),
    "mllama": (_mllama,),
    "mllama_text_model": (_mllama_text,),
    "mllama_vision_model": (_mllama_vision,),
    "molmo2_vision": (_flat_patches,),
    "moshi_depth": (_codebooks,),
    "muse_glimmer_assistant": (_noise_and_context,),
    "neucodec": (_sounds_twice,),
    "phi4_multimodal_audio": (_states_and_mask,),
    "qwen2_5_omni_audio_encoder": (_joined_sounds,),
    "qwen3_asr_encoder": (_whole_chunks,),
    "qwen3_omni_moe_audio_encoder": (_joined_sounds,),
    "sam3_detr_decoder": (_detr_decoder,),
    "sam3_detr_encoder": (_detr_encoder,),
    "sam3_lite_text_detr_decoder": (_detr_decoder,),
    "sam3_lite_text_detr_encoder": (_detr_encoder,),
    "seggpt": (_prompted_image,),
    "time_series_transformer": (_forecast,),
    "timesfm": (_series,),
    "timesfm2_5": (_series_without_frequency,),
    "unlimited_ocr_vision_encoder": (_embedded_patches,),
    "voxtral_realtime": (_as_many_tokens_as_sounds,),
    "voxtral_realtime_text": (_voxtral_text,),
    "xclip_vision_model": (_frames_in_the_batch,),
    "xcodec2": (_sounds_twice,),
}
