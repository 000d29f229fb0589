"""Tensors outside the stack whose size goes with the depth, and which part of them a drop leaves. No torch.

A rule names the end of a tensor's name, the dimension, and how it goes with the depth: `chunks` are equal parts, one
a layer (Gemma-3n's per-layer embeddings); `states` are one entry for the embeddings and one a layer (the weights of
wav2vec2's weighted sum of hidden states).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from depthprune.plan import LayerPlan
from depthprune.surgery.stacks import Stack

SIZED_BY_DEPTH = (
    ("embed_tokens_per_layer.weight", 1, "chunks"),
    ("per_layer_model_projection.weight", 0, "chunks"),
    ("contact_head.regression.weight", 1, "chunks"),
    ("layer_weights", 0, "states"),
)
# What a module says of the size of its weight, as nn.Linear and nn.Embedding do.
SIZE_ATTRIBUTES = ("in_features", "out_features", "num_embeddings", "embedding_dim")


@dataclass(frozen=True)
class Kept:
    """What stays of a tensor: ranges of indices along one dimension, in order.

    Args:
        dimension: along which.
        ranges: first and last-plus-one index of each part.
    """

    dimension: int
    ranges: tuple[tuple[int, int], ...]

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of what stays of a tensor of `shape`."""
        size = sum(stop - start for start, stop in self.ranges)
        return (*shape[: self.dimension], size, *shape[self.dimension + 1 :])


def kept_part(name: str, shape: tuple[int, ...], plans: Mapping[Stack, LayerPlan]) -> Kept | None:
    """Return what stays of a tensor, or None where it stays whole.

    >>> stack = Stack("layers", ("layers",), "num_hidden_layers", 3)
    >>> kept_part("embed_tokens_per_layer.weight", (100, 12), {stack: LayerPlan(3, (1,))})
    Kept(dimension=1, ranges=((0, 4), (8, 12)))
    """
    for end, dimension, how in SIZED_BY_DEPTH:
        if not (name == end or name.endswith("." + end)) or dimension >= len(shape):
            continue
        size = shape[dimension]
        fitting = [s for s in plans if (size == s.depth + 1 if how == "states" else size % s.depth == 0)]
        # With several stacks, the one that lives beside the tensor.
        nearest = max(fitting, key=lambda stack: _shared(stack.path, name), default=None)
        if nearest is None or not plans[nearest].dropped:
            return None
        if how == "states":
            ranges = ((0, 1), *((i + 1, i + 2) for i in plans[nearest].kept))
        else:
            part = size // nearest.depth
            ranges = tuple((i * part, (i + 1) * part) for i in plans[nearest].kept)
        return Kept(dimension, ranges)
    return None


def _shared(one: str, other: str) -> int:
    """Count the leading parts that two dotted names have in common."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
