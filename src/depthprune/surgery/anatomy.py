"""What a configuration says about depth, as data: depth keys, per-layer entries, and how a drop changes them.

No torch, no transformers: the rules work on plain dictionaries, as `config.json` or `config.to_dict()` give them.

Entries come in four forms. A *per-layer list* has one entry a layer and is sliced. An *index list* names layers
and is renumbered. A *prefix count* says how many of the first layers are special and is counted anew. A *formula*
(a period, a pattern) is left alone where the configuration also stores the list it makes; where it does not, the
check on the meta device decides whether the kept layers still fit it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan

DEPTH_KEYS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "encoder_layers",
    "decoder_layers",
    "num_decoder_layers",
)

PER_LAYER_LISTS = (
    "layer_types",
    "mlp_layer_types",
    "no_rope_layers",
    "layers_block_type",
    "layer_rope_theta",
    "num_attention_heads_per_layer",
    "num_key_value_heads_per_layer",
    "attention_window",
)

INDEX_LISTS = ("mlp_only_layers", "moe_layers", "full_attn_idxs", "attn_layer_indices")

PREFIX_COUNTS = ("first_k_dense_replace", "num_dense_layers")

# What a module calls the position of its layer, and what changes with depth only while training.
INDEX_ATTRIBUTES = frozenset({"layer_idx", "layer_id", "layer_number", "layer_index", "layer_num"})
TRAINING_ONLY_ATTRIBUTES = frozenset({"drop_prob", "drop_path", "drop_path_rate", "layerdrop", "training"})

# Computation that depends on a layer's index or on the depth without showing in names, shapes or attributes.
HIDDEN_DEPTH = {
    "minicpm3": "its residual branches are scaled by the square root of the depth",
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


@dataclass(frozen=True)
class Stack:
    """A list of layers in a model.

    Args:
        name: what a person calls it: `layers`, or `encoder` and `decoder` where there are two.
        path: dotted path of the module list in the model.
        depth_key: the entry of the configuration that holds its depth.
        depth: number of layers.
    """

    name: str
    path: str
    depth_key: str
    depth: int

    def layer_of(self, name: str) -> tuple[int, str] | None:
        """Split a tensor or module name into the layer it belongs to and the rest, or None outside the stack.

        >>> Stack("layers", "encoder.layer", "num_hidden_layers", 6).layer_of("encoder.layer.3.output.dense.bias")
        (3, 'output.dense.bias')
        """
        if not name.startswith(self.path + "."):
            return None
        index, _, rest = name[len(self.path) + 1 :].partition(".")
        return (int(index), rest) if index.isdigit() else None

    def name_of(self, layer: int, rest: str) -> str:
        """Put together what `layer_of` splits."""
        return f"{self.path}.{layer}" + (f".{rest}" if rest else "")


def check_supported(config: Mapping[str, Any]) -> None:
    """Refuse an architecture known to compute with the depth in a way that no check here can see.

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
    """Return the depth entries that `config` has, with their values."""
    found = {}
    for key in DEPTH_KEYS:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            found[key] = value
    return found


def changed_fields(config: Mapping[str, Any], depth_key: str, plan: LayerPlan) -> dict[str, Any]:
    """Return the entries of `config` that `plan` changes, with their new values.

    Lists are told from others of the same length by name, never by length alone: unrelated entries can have the
    depth's value by chance.
    """
    changes: dict[str, Any] = {depth_key: len(plan.kept)}
    for key in PER_LAYER_LISTS:
        value = config.get(key)
        if isinstance(value, list | tuple) and len(value) == plan.depth:
            changes[key] = [value[i] for i in plan.kept]
    for key in INDEX_LISTS:
        value = config.get(key)
        if isinstance(value, list | tuple):
            changes[key] = [plan.kept.index(i) for i in value if i in plan.kept]
    for key in PREFIX_COUNTS:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            changes[key] = sum(i < value for i in plan.kept)
    return changes
