"""Forms that the inputs of a model can have: texts, images, sounds, sized by its configuration."""

import inspect
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from .tiny import entry

Call = dict[str, Any]
Names = Mapping[str, inspect.Parameter]
TOKENS, BATCH, FRAMES = 10, 2, 64
# The name for the number of a sound's channels differs from model to model.
BINS = (
    "num_mel_bins",
    "n_mels",
    "input_feat_per_channel",
    "feature_projection_input_dim",
    "input_feature_size",
    "input_dim",
    "mel_dim",
    "input_size",
    "feature_size",
)
# What a model is given only where it insists.
ON_DEMAND = ("hidden_states", "encoder_hidden_states", "past_values", "query_embeds", "inputs_embeds")


def find(config: Any, *names: str, default: Any = None) -> Any:
    """Return the first number, or list of numbers, that the configuration or a part of it has under one of `names`."""
    parts = [config]
    for part in parts:  # and the parts of parts
        parts += [value for value in vars(part).values() if hasattr(value, "model_type")]
    for name, part in itertools.product(names, parts):
        value = entry(part, name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        if isinstance(value, list | tuple) and value and isinstance(value[0], int):
            return value
    return default


def number(config: Any, *names: str, default: int) -> int:
    """Return what `find` does, the first of a list, and never zero."""
    value = find(config, *names, default=default)
    return int(value[0] if isinstance(value, list | tuple) else value) or default


def width_of(config: Any) -> int:
    """Return the width of the hidden states."""
    return number(config, "hidden_size", "d_model", "embed_dim", "dim", default=32)


def noise(*shape: int) -> torch.Tensor:
    """Return the same noise each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def token_ids(config: Any, length: int = TOKENS, *, offset: int = 0) -> torch.Tensor:
    """Return tokens that are as distinct as the vocabulary allows, and none of the special ones."""
    vocabulary = min(number(config, "vocab_size", default=100), number(config, "text_vocab_size", default=1 << 30))
    text = getattr(config, "text_config", None)
    vocabulary = min(vocabulary, getattr(text, "vocab_size", None) or vocabulary)
    special = {v for k, v in _flat(config) if re.search(r"(_token_id|_token_index)$", k) and isinstance(v, int)}
    free = [i for i in range(3, vocabulary) if i not in special] or list(range(vocabulary))
    picked = [free[(7 * i + offset) % len(free)] for i in range(BATCH * length)]
    return torch.tensor(picked).view(BATCH, length)


def _flat(config: Any) -> Iterator[tuple[str, Any]]:
    for key, value in vars(config).items():
        if hasattr(value, "model_type"):
            yield from _flat(value)
        else:
            yield key, value


def text_for(config: Any, names: Names) -> Call:
    """Return what is no image and no sound: of the arguments `names`, those that a model always takes."""
    ids, width = token_ids(config), width_of(config)
    wide = number(config, "encoder_hidden_size", "cross_attention_hidden_size", "d_model", "hidden_size", default=width)
    made = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "decoder_input_ids": token_ids(config, 6, offset=3),
        "bbox": torch.arange(BATCH * TOKENS * 4).view(BATCH, TOKENS, 4) % 7 + torch.tensor([0, 0, 8, 8]),
        "past_values": noise(BATCH, number(config, "context_length", default=32), 1),
        "hidden_states": noise(BATCH, TOKENS, width),
        "encoder_hidden_states": noise(BATCH, TOKENS, wide),
        "inputs_embeds": noise(BATCH, TOKENS, width),
        "query_embeds": noise(BATCH, TOKENS, width),
        "use_cache": False,
    }
    insisted = {name for name, parameter in names.items() if parameter.default is inspect.Parameter.empty}
    call = {k: v for k, v in made.items() if k in names and (k not in ON_DEMAND or k in insisted)}
    for name in names:
        if name.endswith("_input_ids") and name not in call:  # of a Q-Former, of a protein
            call[name] = token_ids(config, offset=5)
            if (mask := name.replace("input_ids", "attention_mask")) in names:
                call[mask] = torch.ones_like(call[name])
    return call


def images_for(config: Any, names: Names) -> list[Call]:
    """Return forms an image can have: squares, rows of patches with their grid, several a text, videos."""
    channels = number(config, "num_channels", "in_channels", "in_chans", "num_image_channels", default=3)
    patch = find(config, "patch_size", default=14)
    patch = patch if isinstance(patch, int) else patch[-1]
    if "pixel_values_videos" in names:
        frames, side = number(config, "num_frames", "frames_per_clip", default=2), min(_sides(config))
        return [
            {"pixel_values_videos": noise(BATCH, some, channels, edge, edge)}
            for edge in (64, side)
            for some in (2, frames)
        ]
    if "flattened_patches" in names:
        return [_numbered_patches(number(config, "patch_embed_hidden_size", default=channels * patch * patch))]
    height, width = _sides(config)
    sizes = {"image_sizes": torch.tensor([[height, width]] * BATCH)}
    frames = number(config, "num_frames", default=2)
    values = [
        noise(BATCH, channels, height, width),
        noise(BATCH, channels, 64, 64),
        noise(BATCH, channels, 224, 224),
        noise(BATCH, 1, channels, height, width),
        noise(BATCH, 3, channels, height, width),
        noise(BATCH, frames, channels, height, width),
    ]
    forms: list[Call] = [{"pixel_values": value} for value in values]
    forms += [{"pixel_values": value, **sizes} for value in (values[3], values[4], values[0])]
    forms.append(_masked_patches(channels * patch * patch))
    if {"image_grid_thw", "grid_thw", "grid_hw"} & set(names):
        forms = _gridded_patches(config, channels, patch) + forms
    for form in forms:  # other names for the same
        form["image"] = form["hidden_states"] = form["high_res_pixel_values"] = form["pixel_values"]
    return forms


def _sides(config: Any) -> tuple[int, int]:
    size = find(config, "image_size", "img_size", "input_resolution", "input_size", "crop_size", default=64)
    sides = list(size) if isinstance(size, list | tuple) else [size, size]
    height, width = (int(min(max(side, 32), 1024)) for side in (sides * 2)[-2:])
    return height, width


def _gridded_patches(config: Any, channels: int, patch: int) -> list[Call]:
    """Patches in a row, as Qwen2-VL takes them."""
    edge = 2 * number(config, "spatial_merge_size", "merge_size", default=2)
    grid = torch.tensor([[1, edge, edge]])
    depth = channels * number(config, "temporal_patch_size", default=1)
    flat = noise(edge * edge, depth * patch * patch)
    grids = {"image_grid_thw": grid, "grid_thw": grid, "grid_hw": grid[:, 1:], "merge_sizes": torch.tensor([2])}
    twice = noise(edge * edge, 2 * depth * patch * patch)  # two frames a patch, where no entry says so
    return [{"pixel_values": value, **grids} for value in (flat, flat.view(-1, depth, patch, patch), twice)]


def _masked_patches(width: int) -> Call:
    """Patches in a row with a mask and their places, as SigLIP 2 and Gemma 4 take them."""
    edge = torch.arange(4)
    places = torch.stack(torch.meshgrid(edge, edge, indexing="ij"), -1).view(1, 16, 2).repeat(BATCH, 1, 1)
    return {
        "pixel_values": noise(BATCH, 16, width),
        "pixel_attention_mask": torch.ones(BATCH, 16, dtype=torch.long),
        "spatial_shapes": torch.tensor([[4, 4]] * BATCH),
        "image_position_ids": places,
        "pixel_position_ids": places,
    }


def _numbered_patches(width: int) -> Call:
    """Patches that begin with their row and column, as Pix2Struct takes them."""
    places = torch.arange(1.0, 17.0).view(1, 16, 1).expand(BATCH, 16, 2) // 4 + 1
    patches = torch.cat([places, noise(BATCH, 16, width)], dim=-1)
    return {"flattened_patches": patches, "attention_mask": torch.ones(BATCH, 16)}


def sounds_for(config: Any) -> list[Call]:
    """Return forms a sound can have: spectrograms either way round, waves."""
    bins = number(config, *BINS, default=80)
    longest = min(2 * number(config, "max_source_positions", default=FRAMES // 2), 3000)
    spectrogram = noise(BATCH, 1, 4 * number(config, "spec_size", default=256), bins)
    features = [
        noise(BATCH, bins, longest),
        noise(BATCH, longest, bins),
        noise(BATCH, bins, FRAMES),
        noise(BATCH, FRAMES, bins),
        noise(BATCH, 1, FRAMES, bins),
        spectrogram,
    ]
    values = [
        noise(BATCH, 4000),
        noise(BATCH, 1, 8000),
        noise(BATCH, number(config, "max_length", default=FRAMES), bins),
        noise(BATCH, FRAMES, bins),
        noise(BATCH, bins, FRAMES),
        noise(BATCH, 16000),
    ]
    forms: list[Call] = []
    for sound in features:
        frames = max(sound.shape[1:], key=lambda size: (size != bins, size))
        mask = torch.ones(BATCH, frames, dtype=torch.long)
        form = {"input_features": sound, "input_features_mask": mask, "feature_attention_mask": mask}
        forms.append({**form, "is_longer": torch.zeros(BATCH, 1, dtype=torch.bool)})
    return forms + [{"input_values": value} for value in values]
