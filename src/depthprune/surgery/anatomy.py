"""What a configuration says about depth, as data: depth keys, stacks, and how a drop changes the configuration.

No torch, no transformers: everything works on plain dictionaries, as `config.json` or `config.to_dict()` give them.
A depth key is a dotted path into the configuration: `num_hidden_layers`, `text_config.num_hidden_layers`, or
`depths.2` for the third stage of a model that has stages.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan
from depthprune.surgery import rules

DEPTH_KEYS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "layers",
    "depth",
    "num_blocks",
    "num_layers_per_stack",
    "encoder_layers",
    "decoder_layers",
    "num_encoder_layers",
    "num_decoder_layers",
    "encoder_num_hidden_layers",
    "decoder_num_hidden_layers",
    "num_global_layers",
    "l_layers",
    "x_layers",
    "r_layers",
    "resampler_depth",
    "conf_num_hidden_layers",
    "speech_encoder_layers",
    "t2u_encoder_layers",
    "t2u_decoder_layers",
    "num_spatial_layers",
    "num_temporal_layers",
    "num_auxiliary_layers",
    "memory_attention_num_layers",
    "pred_num_hidden_layers",
    "folding_trunk_num_hidden_layers",
    "num_self_attends_per_block",
    "prompt_layers",
)
STAGE_KEYS = ("depths", "depth", "block_sizes")  # lists with the depth of each stage
LIST_KEYS = ("layers_block_type", "attn_layers", "gnn_layers_types")  # lists whose length is the depth

# What a module calls the position of its layer, and what changes with depth only while training.
INDEX_ATTRIBUTES = frozenset({"layer_idx", "layer_id", "layer_number", "layer_index", "layer_num"})
TRAINING_ONLY_ATTRIBUTES = frozenset({"drop_prob", "drop_path", "drop_path_rate", "layerdrop", "training"})

# Computation that depends on a layer's index or on the depth without showing in names, shapes or attributes.
HIDDEN_DEPTH = {
    "esmc": "its residual branches are divided by a function of the depth",
    "diffllama": "its attention weights are set from the layer index",
    "minimax": "its attention decays at a rate set from the layer index and the depth",
    "beam": "its residual branches are scaled by the layer index",
    "rwkv": "its first block normalises the embeddings and its weights are rescaled by the layer index",
    "big_bird": "the random attention pattern of a layer is seeded with its index",
    "bigbird_pegasus": "the random attention pattern of a layer is seeded with its index",
    "pegasus_x": "its odd layers attend to staggered blocks",
    "inkling2": "its attention residuals join blocks of layers by index",
    "neomme": "its value embeddings go to the first and the last full-attention layer",
}

# Modules that only the first layer of a stack owns and every layer uses: they move to the new first layer, with the
# flag that says so. Innermost part of the module's name → attribute of the module that owns it.
FIRST_LAYER_ONLY = {
    "relative_attention_bias": "has_relative_attention_bias",
    "global_relative_attention_bias": "has_relative_attention_bias",
    "rel_attn_embed": "has_relative_position_bias",
}


@dataclass(frozen=True)
class Stack:
    """A list of layers in a model, or several parallel lists that hold the parts of the same layers (XLM).

    Args:
        name: what a person calls it: `layers`, or `encoder` and `decoder` where there are two.
        paths: dotted paths of its module lists in the model.
        depth_key: dotted path of the entry of the configuration that holds its depth.
        depth: number of layers.
    """

    name: str
    paths: tuple[str, ...]
    depth_key: str
    depth: int

    @property
    def path(self) -> str:
        """The first of its module lists."""
        return self.paths[0]

    def split(self, name: str) -> tuple[str, int, str] | None:
        """Split a tensor or module name into list, layer and rest, or return None outside the stack.

        >>> stack = Stack("layers", ("encoder.layer",), "num_hidden_layers", 6)
        >>> stack.split("encoder.layer.3.output.dense.bias")
        ('encoder.layer', 3, 'output.dense.bias')
        """
        for path in self.paths:
            if name.startswith(path + "."):
                index, _, rest = name[len(path) + 1 :].partition(".")
                if index.isdigit():
                    return path, int(index), rest
        return None

    def layer_of(self, name: str) -> tuple[int, str] | None:
        """Return the layer that a tensor or module belongs to and the rest of its name, or None outside the stack."""
        found = self.split(name)
        return None if found is None else found[1:]


def join(path: str, layer: int, rest: str) -> str:
    """Put together what `Stack.split` splits."""
    return f"{path}.{layer}" + (f".{rest}" if rest else "")


def new_names(names: Iterable[str], plans: Mapping[Stack, LayerPlan]) -> dict[str, str]:
    """Return old name → name after the drop of every tensor or module that stays, in the order given.

    What only the first layer owns and all use stays with whatever layer is first.

    >>> stack = Stack("layers", ("h",), "n_layer", 3)
    >>> new_names(["h.0.w", "h.1.w", "h.2.w", "norm.w"], {stack: LayerPlan(3, (1,))})
    {'h.0.w': 'h.0.w', 'h.2.w': 'h.1.w', 'norm.w': 'norm.w'}
    """
    names = list(names)
    known = set(names)
    new: dict[str, str] = {}
    for name in names:
        stack, found = next(((s, found) for s in plans if (found := s.split(name)) is not None), (None, None))
        if stack is None or found is None:
            new[name] = name
            continue
        path, layer, rest = found
        index = plans[stack].new_index(layer)
        if index is not None:
            new[name] = join(path, index, rest)
        elif layer == 0 and any(part in FIRST_LAYER_ONLY for part in rest.split(".")):
            first = plans[stack].kept[0]
            if join(path, first, rest) not in known:
                new[name] = name
    return new


def check_supported(config: Mapping[str, Any]) -> None:
    """Refuse an architecture known to compute with the depth in a way that no check here can see.

    Args:
        config: the configuration that holds the stack's depth.

    Raises:
        CannotDropError: it is one of them; the message says how it uses the depth.
    """
    model_type = config.get("model_type")
    if model_type == "albert":
        raise CannotDropError(
            "ALBERT shares the weights of one layer among all passes, so there is no layer to drop; "
            "use a model whose layers have weights of their own, such as BERT or RoBERTa"
        )
    if model_type in HIDDEN_DEPTH:
        raise CannotDropError(
            f"layers of '{model_type}' cannot be dropped exactly: {HIDDEN_DEPTH[model_type]}; "
            "use a model of another architecture"
        )


def depth_keys(config: Mapping[str, Any]) -> dict[str, int]:
    """Return every entry that looks like a depth, nested ones too: dotted path → depth.

    >>> depth_keys({"hidden_size": 8, "text_config": {"num_hidden_layers": 4}, "depths": [2, 3]})
    {'text_config.num_hidden_layers': 4, 'depths.0': 2, 'depths.1': 3}
    """
    return dict(_depths(config, ""))


def _depths(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if key in DEPTH_KEYS and _is_depth(value):
            yield prefix + key, value
        elif key in STAGE_KEYS and isinstance(value, list | tuple) and all(map(_is_depth, value)):
            yield from ((f"{prefix}{key}.{stage}", depth) for stage, depth in enumerate(value))
        elif key in LIST_KEYS and isinstance(value, list | tuple) and value:
            yield prefix + key, len(value)
        elif isinstance(value, Mapping) and ("model_type" in value or key.endswith("_config")):
            yield from _depths(value, f"{prefix}{key}.")


def _is_depth(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def holder(config: Mapping[str, Any], depth_key: str) -> Mapping[str, Any]:
    """Return the configuration, itself or one nested in it, that holds a depth key."""
    for part in depth_key.split(".")[:-1]:
        inner = config[part]
        if not isinstance(inner, Mapping):
            break  # the list of a model with stages
        config = inner
    return config


def edited(config: Mapping[str, Any], plans: Mapping[Stack, LayerPlan]) -> dict[str, Any]:
    """Return a copy of `config` for the model that the plans leave.

    Raises:
        CannotDropError: an entry cannot say what a plan leaves.
    """
    new = copy.deepcopy(dict(config))
    for stack, plan in plans.items():
        where: Any = holder(new, stack.depth_key)
        last = stack.depth_key.rpartition(".")[2]
        if last.isdigit():
            stages = stack.depth_key.split(".")[-2]
            where[stages] = [*where[stages][: int(last)], len(plan.kept), *where[stages][int(last) + 1 :]]
            continue
        rules.edit(where, last, plan)
        if where is not new and "vision" in stack.depth_key:
            rules.edit_outside(new, plan)
    return new


def edited_generation(generation: Mapping[str, Any], plans: Mapping[Stack, LayerPlan]) -> dict[str, Any]:
    """Return a copy of a generation configuration for the model that the plans leave."""
    new = copy.deepcopy(dict(generation))
    for stack, plan in plans.items():
        if "decoder" in (*stack.path.split("."), stack.name):
            rules.edit_generation(new, plan)
    return new


def stack_names(keys_and_paths: Mapping[str, str]) -> dict[str, str]:
    """Name the stacks of a model: depth key → name, from depth key → path of the first module list.

    >>> stack_names({"encoder_layers": "encoder.layers", "decoder_layers": "decoder.layers"})
    {'encoder_layers': 'encoder', 'decoder_layers': 'decoder'}
    >>> stack_names({"n_layer": "transformer.h"})
    {'n_layer': 'layers'}
    """
    if len(keys_and_paths) == 1:
        return dict.fromkeys(keys_and_paths, "layers")
    names = {key: _name(key, path) for key, path in keys_and_paths.items()}
    taken = list(names.values())
    return {key: name if taken.count(name) == 1 else keys_and_paths[key] for key, name in names.items()}


def _name(depth_key: str, path: str) -> str:
    *outer, last = depth_key.split(".")
    words = [part.removesuffix("_config").removesuffix("_model") for part in outer if part not in STAGE_KEYS]
    if last.isdigit():
        return ".".join([*words, f"stage{last}"])
    inner = last.removeprefix("num_").removesuffix("_layers").removesuffix("_num_hidden")
    if inner in ("hidden", "layers", "n", "n_layer", "layer", "depth", "blocks", "layers_block_type") or len(inner) < 3:
        inner = next((word for word in ("encoder", "decoder") if word in path.split(".")), "")
    if words and inner in ("encoder", "decoder") and words[-1] not in ("text", "vision", "audio"):
        return ".".join([*words, inner]) if words[-1] not in ("encoder", "decoder") else ".".join(words)
    return ".".join(words) or inner or path
