"""Build a tiny model of any architecture, with random weights everywhere."""

import copy
import importlib
import inspect
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import configuration_auto, modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .shrink import MODEL_WIDTHS, Shrinker
from .special import ENTRIES

# The most complete head first.
HEADS = (
    "MULTIMODAL_LM",
    "IMAGE_TEXT_TO_TEXT",
    "SPEECH_SEQ_2_SEQ",
    "SEQ_TO_SEQ_CAUSAL_LM",
    "ZERO_SHOT_IMAGE_CLASSIFICATION",
    "MASKED_LM",
    "CAUSAL_LM",
    "SEQUENCE_CLASSIFICATION",
    "OBJECT_DETECTION",
    "ZERO_SHOT_OBJECT_DETECTION",
    "UNIVERSAL_SEGMENTATION",
    "INSTANCE_SEGMENTATION",
    "SEMANTIC_SEGMENTATION",
    "DEPTH_ESTIMATION",
    "IMAGE_CLASSIFICATION",
    "VIDEO_CLASSIFICATION",
    "CTC",
    "AUDIO_CLASSIFICATION",
    "QUESTION_ANSWERING",
    "VISUAL_QUESTION_ANSWERING",
    "TIME_SERIES_PREDICTION",
    "IMAGE_TO_IMAGE",
    "MASK_GENERATION",
    "KEYPOINT_MATCHING",
)
# (what widths are divided by, whether images become small); the first is for wide models only.
SIZES = ((32, True), (16, True), (8, True), (16, False), (8, False), (4, False), (1, False))
WIDE = 2048
LARGEST = 250_000_000  # numbers in a model that is still tried
NOISE = 0.3
READS_STATES = re.compile(
    r'use_weighted_layer_sum|out_indices|out_features|extract_layers|hook_ids|"output_hidden_states"\] = True|'
    r"output_hidden_states=True|hidden_states\[(?!\s*:|\.\.\.|batch|idx,|~|i, )"
)


class CannotBuildError(Exception):
    """No tiny model of the type can be built here; the message says why."""


def config_types() -> list[str]:
    """Return every `model_type` of the installed transformers."""
    return sorted(configuration_auto.CONFIG_MAPPING_NAMES)  # pyright: ignore[reportPrivateImportUsage]


def small_configs(model_type: str, head: str = "") -> Iterator[tuple[str, PreTrainedConfig]]:
    """Yield (how, configuration), from the smallest to one of which only depth and vocabulary are cut.

    With `head`, the name of a class, it reads hidden states as that class can be told to.

    Raises:
        CannotBuildError: the default configuration itself cannot be made, or none of the small ones can.
    """
    try:
        config_class = CONFIG_MAPPING[model_type]
        entries = config_class().to_dict()
    except Exception as error:
        raise CannotBuildError(f"no default configuration: {short(error)}") from error
    made, reason = False, ""
    widest = max((v for k, v in _flat(entries) if k in MODEL_WIDTHS and type(v) is int), default=0)
    for factor, images in SIZES:
        if factor == 32 and widest < WIDE:
            continue
        small = Shrinker(factor, images=images).shrink(entries)
        merge(small, ENTRIES.get(model_type, {}))
        if head:
            merge(small, {"use_weighted_layer_sum": True} if "use_weighted_layer_sum" in small else {})
            merge(small, ENTRIES.get(head, {}))
        try:
            config = config_class.from_dict(small)
        except Exception as error:
            reason = reason or short(error)
            continue
        made = True
        _set_sections(config)
        yield f"widths / {factor}" + (", small images" if images else ""), config
    if not made:
        raise CannotBuildError(f"no small configuration is valid: {reason}")


def _flat(entries: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in entries.items():
        if isinstance(value, dict):
            yield from _flat(value)
        else:
            yield key, value


def _set_sections(config: PreTrainedConfig) -> None:
    """Split the rotary dimensions among time, height and width where the modelling code does, by default for its own.

    The default sections are those of the full widths.
    """
    parts = [config]
    for part in parts:  # and the parts of parts
        parts += [v for v in vars(part).values() if isinstance(v, PreTrainedConfig)]
        rope, heads = entry(part, "rope_parameters"), entry(part, "num_attention_heads")
        if not rope or "rope_type" not in rope or not heads:
            continue
        if not hasattr(part, "vocab_size") or rope.get("mrope_section"):
            continue
        if "mrope_section" not in "".join(inspect.getsource(module) for module in _modelling(type(part))):
            continue
        width = entry(part, "head_dim") or part.hidden_size // heads
        half = int(width * rope.get("partial_rotary_factor", 1.0)) // 2
        rope["mrope_section"] = [half // 3, half // 3, half - 2 * (half // 3)]


def entry(config: PreTrainedConfig, name: str) -> Any:
    """Return an entry of a configuration, or None where there is none or one for each layer."""
    try:
        return getattr(config, name, None)
    except Exception:  # of its own for an entry that differs among layers
        return None


def merge(entries: dict[str, Any], more: dict[str, Any]) -> None:
    """Put `more` into nested entries, in place."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(entries.get(key), dict) and value:
            merge(entries[key], value)
        else:
            entries[key] = value


def model_classes(model_type: str) -> list[type[PreTrainedModel]]:
    """Return the classes that take this type's configuration, the most complete head first."""
    config_class = CONFIG_MAPPING[model_type]
    modules = _modelling(config_class)
    named = []
    for head in (*(f"MODEL_FOR_{head}_MAPPING_NAMES" for head in HEADS), "MODEL_MAPPING_NAMES"):
        names = getattr(modeling_auto, head).get(model_type, ())
        named += [names] if isinstance(names, str) else list(names)
    own = {
        name: found
        for module in modules
        for name, found in vars(module).items()
        if inspect.isclass(found)
        and issubclass(found, PreTrainedModel)
        and found.__module__ == module.__name__
        and found.config_class is config_class
        and not name.endswith("PreTrainedModel")
    }
    best = sorted(own, key=lambda n: ("forward" not in vars(own[n]), not n.endswith("Model"), "For" not in n, n))
    classes = [own.get(name) or getattr(transformers, name, None) for name in dict.fromkeys([*named, *best])]
    return [found for found in classes if found is not None]


def heads_that_read_states(model_type: str, model: PreTrainedModel) -> list[type[PreTrainedModel]]:
    """Return the classes of a type whose code reads hidden states from the middle, beside those inside of `model`."""
    inside = {type(module).__name__ for module in model.modules()}
    found = {}
    for head in model_classes(model_type):
        code = re.sub(r'r?"""(.|\n)*?"""', "", inspect.getsource(head))
        if "forward" in vars(head) and head.__name__ not in inside and READS_STATES.search(code):
            found[head.__name__] = head
    return list(found.values())


def _modelling(config_class: type[PreTrainedConfig]) -> list[Any]:
    """Return the modelling modules of the package that a configuration class is in."""
    package = importlib.import_module(config_class.__module__.rpartition(".")[0])
    names = sorted(file.stem for file in Path(str(package.__file__)).parent.glob("modeling_*.py"))
    found = []
    for name in names:
        try:
            found.append(importlib.import_module(f"{package.__name__}.{name}"))
        except ImportError:  # it needs a library that is not here
            continue
    return found


def build(model_class: type[PreTrainedModel], config: PreTrainedConfig, *, seed: int = 0) -> PreTrainedModel:
    """Return a model of which no two layers are alike: noise on every weight, bias, norm, gate and running mean.

    Raises:
        CannotBuildError: the class does not take the configuration, or the model is too large.
    """
    try:
        with torch.device("meta"):
            size = sum(p.numel() for p in model_class(copy.deepcopy(config)).parameters())
    except Exception:
        size = 0  # some classes cannot be built on the meta device; they may still be small
    if size > LARGEST:
        raise CannotBuildError(f"{size / 1e6:.0f} million numbers are too many")
    torch.manual_seed(seed)
    try:
        model = model_class(config)
    except Exception as error:
        raise CannotBuildError(short(error)) from error
    add_noise(model)
    return model.eval()


@torch.no_grad()
def add_noise(model: nn.Module) -> None:
    """Change every number in place by noise that keeps activations in bounds."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.requires_grad:  # sine tables stay: loading makes them anew
            fan = parameter[0].numel() if parameter.dim() > 1 and len(parameter) else 1
            parameter.add_(torch.randn_like(parameter), alpha=max(NOISE / math.sqrt(max(fan, 1)), 0.02))
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight[module.padding_idx].zero_()  # as in any trained model; some classes zero it when they load
    for name, buffer in model.named_buffers():  # of batch norms
        if name.endswith("running_mean"):
            buffer.add_(torch.randn_like(buffer), alpha=NOISE)
        elif name.endswith("running_var"):
            buffer.add_(torch.rand_like(buffer))


def short(error: BaseException) -> str:
    """Return an error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:3])[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
