"""Find the stacks of a model by probing: lower a depth entry by one and see which module list gets shorter.

Names alone mislead (XLNet's list is `layer`, GPT-2's `h`, ViT's moved in transformers 5), and so does length (a
list of experts can be as long as the stack). Building the model twice on the meta device costs no memory and
needs no table of architectures.
"""

import copy
import warnings
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan
from depthprune.surgery.anatomy import Stack, changed_fields, check_supported, depth_keys


def meta_model(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """Build `model_class` from a copy of `config` on the meta device: names, shapes and attributes, no weights."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # what it would say was said when the real model was loaded
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model_class(copy.deepcopy(config))
    finally:
        transformers_logging.set_verbosity(verbosity)


def pruned_config(config: PreTrainedConfig, plans: dict[Stack, LayerPlan]) -> PreTrainedConfig:
    """Return a copy of `config` for the model that the plans leave."""
    new_config = copy.deepcopy(config)
    for stack, plan in plans.items():
        set_fields(new_config, changed_fields(config.to_dict(), stack.depth_key, plan))
    return new_config


def set_fields(config: PreTrainedConfig, fields: dict[str, Any]) -> None:
    """Write entries into a configuration object, in place."""
    for key, value in fields.items():
        setattr(config, key, copy.copy(value))


def find_stacks(model: PreTrainedModel) -> dict[str, Stack]:
    """Return the stacks of `model` by name: `layers`, or `encoder` and `decoder` where there are two.

    Raises:
        CannotDropError: the architecture has no stack whose layers can go.
    """
    return probe_stacks(type(model), model.config)


def probe_stacks(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> dict[str, Stack]:
    """Return the stacks that `model_class` builds from `config`. See `find_stacks`."""
    fields = config.to_dict()
    check_supported(fields)
    full = _list_lengths(meta_model(model_class, config))
    stacks = []
    for key, depth in depth_keys(fields).items():
        paths = _paths_that_shrink(model_class, config, key, depth, full)
        if len(paths) > 1:
            raise CannotDropError(
                f"'{key}' of a {model_class.__name__} sets the length of several lists ({', '.join(paths)}), "
                "which cannot be cut together yet; use a model with one list a stack"
            )
        stacks += [Stack("layers", path, key, depth) for path in paths]
    if not stacks:
        raise CannotDropError(
            f"found no stack of layers in a {model_class.__name__} (model_type '{config.model_type}'): no entry of "
            "its configuration sets the length of a module list; use an architecture with a plain stack"
        )
    if len(stacks) == 1:
        return {"layers": stacks[0]}
    named = [Stack(_short_name(s.path), s.path, s.depth_key, s.depth) for s in stacks]
    return {stack.name: stack for stack in named}


def _paths_that_shrink(model_class, config, key: str, depth: int, full: dict[str, int]) -> list[str]:
    """Return the outermost lists that a depth lower by one makes shorter by one."""
    if depth == 1:  # cannot be lowered: go by the length, as long as there is no doubt
        paths = [path for path, length in full.items() if length == 1]
        return paths if len(paths) == 1 else []
    smaller = copy.deepcopy(config)
    set_fields(smaller, changed_fields(config.to_dict(), key, LayerPlan(depth, (depth - 1,))))
    lengths = _list_lengths(meta_model(model_class, smaller))
    paths = [p for p, length in full.items() if length == depth and lengths.get(p) == depth - 1]
    return [p for p in paths if not any(p.startswith(other + ".") for other in paths)]


def _list_lengths(model: nn.Module) -> dict[str, int]:
    return {name: len(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}


def _short_name(path: str) -> str:
    for word in ("encoder", "decoder"):
        if word in path.split("."):
            return word
    return path
