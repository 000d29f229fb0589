"""Find the stacks of a model by probing: lower a depth entry by one and see which module lists get shorter.

Names alone mislead (XLNet's list is `layer`, GPT-2's `h`, ViT's moved in transformers 5), and so does length (a
list of experts can be as long as the stack). Building the model twice on the meta device costs no memory and
needs no table of architectures.
"""

import copy
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from depthprune.arguments import checked
from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan
from depthprune.surgery.config.depth import SHARED_LAYERS, depth_keys, edited
from depthprune.surgery.stacks import ModulePath, ModulePlans, ModuleStack, stack_names

# Entries about the configuration itself, not about the model.
UNCOMPARED = frozenset({"_name_or_path", "transformers_version"})
# What a configuration class or a model's constructor raises for an invalid configuration.
REFUSALS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    ZeroDivisionError,
    RuntimeError,
    StrictDataclassError,
)


def meta_model(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """Build `model_class` from a copy of `config` on the meta device: names, shapes and attributes, no weights."""
    # Its warnings were shown when the real model was loaded.
    with torch.device("meta"), warnings.catch_warnings(), _errors_only():
        warnings.simplefilter("ignore")
        return model_class(copy.deepcopy(config))


@contextmanager
def _errors_only() -> Iterator[None]:
    """Suppress transformers' messages below an error in this thread, without changing its global verbosity."""
    thread = threading.get_ident()

    def heard(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or record.thread != thread

    handlers = [*transformers_logging.get_logger().handlers, *logging.getLogger().handlers]
    for handler in handlers:
        handler.addFilter(heard)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(heard)


def pruned_config(config: PreTrainedConfig, plans: ModulePlans, model_class: type[PreTrainedModel]) -> PreTrainedConfig:
    """Return a copy of `config` for the model of `model_class` that the plans leave.

    Raises:
        CannotDropError: if the configuration cannot express it.
    """
    before = config.to_dict()
    # The meaning of an entry can depend on the class; `architectures` names the class that was saved last.
    after = edited({**before, "architectures": [model_class.__name__]}, plans)
    after = {key: value for key, value in after.items() if key != "architectures"}
    new_config = copy.deepcopy(config)
    try:
        set_fields(new_config, before, after)
        # Entries that a class derives whenever it is loaded (CLAP's num_hidden_layers, a sum) get the derived value.
        edited_names = differences(before, after)
        told = new_config.to_dict()
        derived = type(config).from_dict(copy.deepcopy(told)).to_dict()
        kept = {key: value for key, value in derived.items() if key in told and not _any_under(key, edited_names)}
        set_fields(new_config, told, {**told, **kept})
    except REFUSALS as error:
        raise refused_by(config, error) from None
    return new_config


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of the entries in which two configurations differ."""
    found = []
    for key in sorted({*one, *other} - UNCOMPARED, key=str):
        before, after = one.get(key), other.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after and not (isinstance(before, list | tuple) and list(before) == list(after or ())):
            found.append(f"{prefix}{key}")
    return found


def _any_under(key: str, names: list[str]) -> bool:
    return any(name == key or name.startswith(f"{key}.") for name in names)


def set_fields(config: PreTrainedConfig, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Write into a configuration object, in place, the entries in which `after` differs from `before`."""
    for key, value in after.items():
        if key in before and before[key] == value and type(before[key]) is type(value):
            continue
        inner = getattr(config, key, None)
        if isinstance(inner, PreTrainedConfig) and isinstance(value, Mapping):
            set_fields(inner, before[key], value)
        else:
            setattr(config, key, copy.copy(value))


@checked("find_stacks")
def find_stacks(model: PreTrainedModel) -> dict[str, ModuleStack]:
    """Return the stacks of `model` by name: `layers`, or `encoder` and `decoder` where there are two.

    Raises:
        CannotDropError: if the architecture has no stack of layers that can be dropped.
    """
    return probe_stacks(type(model), model.config)


def probe_stacks(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> dict[str, ModuleStack]:
    """Return the stacks that `model_class` builds from `config`, in module order. See `find_stacks`."""
    fields = config.to_dict()
    full = _list_lengths(meta_model(model_class, config))
    found: dict[str, tuple[ModulePath, ...]] = {}
    for key, depth in depth_keys(fields).items():
        paths = _paths_that_shrink(model_class, config, key, depth, full)
        if paths and paths not in found.values():  # an alias of an entry sets the length of the same lists
            found[key] = paths
    if not found and fields.get("model_type") in SHARED_LAYERS:
        return {"layers": ModuleStack("layers", (), "num_hidden_layers", fields["num_hidden_layers"])}
    if not found:
        raise CannotDropError(
            f"found no stack of layers in a {model_class.__name__} (model_type '{config.model_type}'): no entry of "
            "its configuration sets the length of a module list; use an architecture with a plain stack"
        )
    position = {path: number for number, path in enumerate(full)}
    ordered = dict(sorted(found.items(), key=lambda item: position[item[1][0]]))
    names = stack_names({key: paths[0] for key, paths in ordered.items()})
    keys = depth_keys(fields)
    return {names[key]: ModuleStack(names[key], paths, key, keys[key]) for key, paths in ordered.items()}


def _paths_that_shrink(
    model_class, config, key: str, depth: int, full: Mapping[ModulePath, int]
) -> tuple[ModulePath, ...]:
    """Return the outermost module lists that get shorter by one when the depth is lowered by one."""
    if depth == 1:  # cannot be lowered: use the length if it is unambiguous
        paths = tuple(path for path, length in full.items() if length == 1)
        return paths if len(paths) == 1 and "." not in key else ()
    stack = ModuleStack("", (), key, depth)
    for layer in (depth - 1, 0, depth // 2):  # some configurations require a special last or first layer
        try:
            smaller = pruned_config(config, {stack: LayerPlan(depth, (layer,))}, model_class)
            lengths = _list_lengths(meta_model(model_class, smaller))
        except (CannotDropError, *REFUSALS):
            continue
        paths = [p for p, length in full.items() if length == depth and lengths.get(p) == depth - 1]
        return tuple(p for p in paths if not any(p.startswith(other + ".") for other in paths))
    return ()


def _list_lengths(model: nn.Module) -> dict[ModulePath, int]:
    return {
        ModulePath(name): len(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)
    }


def refused_by(config: PreTrainedConfig, error: BaseException) -> CannotDropError:
    """Return the error for a configuration class that refuses the entries of a plan."""
    return CannotDropError(
        f"the configuration of '{config.model_type}' refuses this plan ({first_line(error)}); keep other layers"
    )


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
