"""Tensors outside the stack whose size depends on the depth, and which part of them is kept. No torch.

A rule has the suffix of the tensor's name, the dimension, and how its size depends on the depth. `chunks`: equal parts,
one per layer (Gemma-3n's per-layer embeddings). `logits`: one entry for the embeddings and one per layer; a softmax
makes them the weights of a sum of hidden states (`use_weighted_layer_sum` of wav2vec 2.0 and similar models). After a
drop, a hidden state also takes the weights of the dropped layers after it, whose states would be equal to it.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log

from depthprune.errors import CannotDropError
from depthprune.surgery.stacks import StackPlans

SIZED_BY_DEPTH = (
    ("embed_tokens_per_layer.weight", 1, "chunks"),
    ("per_layer_model_projection.weight", 0, "chunks"),
    ("contact_head.regression.weight", 1, "chunks"),
    ("layer_weights", 0, "logits"),
)
# Attributes with the size of a module's weight, as in nn.Linear and nn.Embedding.
SIZE_ATTRIBUTES = ("in_features", "out_features", "num_embeddings", "embedding_dim")


@dataclass(frozen=True)
class Kept:
    """The kept part of a tensor: ranges of indices along one dimension, in order.

    Args:
        dimension: along which.
        ranges: first and last-plus-one index of each part.
        merged: whether each range becomes one entry, its log-sum-exp.
    """

    dimension: int
    ranges: tuple[tuple[int, int], ...]
    merged: bool = False

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the kept part of a tensor of `shape`."""
        size = len(self.ranges) if self.merged else sum(stop - start for start, stop in self.ranges)
        return (*shape[: self.dimension], size, *shape[self.dimension + 1 :])


def kept_part(name: str, shape: tuple[int, ...], plans: StackPlans) -> Kept | None:
    """Return the kept part of a tensor, or None if all of it is kept.

    >>> from depthprune.plan import LayerPlan
    >>> from depthprune.surgery.stacks import Stack
    >>> stack = Stack("layers", ("layers",), "num_hidden_layers", 3)
    >>> kept_part("embed_tokens_per_layer.weight", (100, 12), {stack: LayerPlan(3, (1,))})
    Kept(dimension=1, ranges=((0, 4), (8, 12)), merged=False)
    """
    for end, dimension, how in SIZED_BY_DEPTH:
        if not (name == end or name.endswith("." + end)) or dimension >= len(shape):
            continue
        size = shape[dimension]
        fitting = [s for s in plans if (size == s.depth + 1 if how == "logits" else size % s.depth == 0)]
        # With several stacks, the one in the same module as the tensor.
        nearest = max(fitting, key=lambda stack: _shared(stack.path, name), default=None)
        if nearest is None or not plans[nearest].dropped:
            return None
        if how == "logits":
            starts = (0, *(i + 1 for i in plans[nearest].kept))
            return Kept(dimension, tuple(zip(starts, (*starts[1:], size), strict=True)), merged=True)
        part = size // nearest.depth
        return Kept(dimension, tuple((i * part, (i + 1) * part) for i in plans[nearest].kept))
    return None


def merged_logits(logits: Sequence[float], part: Kept) -> list[float]:
    """Return the log-sum-exp of each range: after a softmax, the sum of its weights.

    A single entry is unchanged, to the last bit.

    >>> merged_logits([0.5, 0.0, 0.0], Kept(0, ((0, 1), (1, 3)), merged=True))
    [0.5, 0.6931471805599453]
    """
    return [_log_sum_exp(logits[start:stop]) for start, stop in part.ranges]


def merged_bytes(data: bytes, dtype: str, part: Kept, name: str) -> bytes:
    """Apply `merged_logits` to a tensor's bytes in a safetensors file: in float64, rounded to its dtype.

    Raises:
        CannotDropError: if the dtype is not float64, float32, float16 or bfloat16.
    """
    if dtype == "BF16":
        halves = struct.unpack(f"<{len(data) // 2}H", data)
        logits = [struct.unpack("<f", struct.pack("<I", half << 16))[0] for half in halves]
        return struct.pack(f"<{len(part.ranges)}H", *map(_bfloat16, merged_logits(logits, part)))
    if dtype not in _CODES:
        raise CannotDropError(f"'{name}' is stored as {dtype}, in which weights cannot be merged; convert it to F32")
    code, size = _CODES[dtype]
    merged = merged_logits(struct.unpack(f"<{len(data) // size}{code}", data), part)
    if dtype == "F16":  # by way of float32, as torch does
        merged = [struct.unpack("<f", struct.pack("<f", value))[0] for value in merged]
    return struct.pack(f"<{len(merged)}{code}", *merged)


_CODES = {"F64": ("d", 8), "F32": ("f", 4), "F16": ("e", 2)}


def _bfloat16(value: float) -> int:
    """Round to the nearest, ties to even, by way of float32, as torch does."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def _log_sum_exp(logits: Sequence[float]) -> float:
    largest = max(logits)
    if len(logits) == 1 or largest == -inf:
        return largest
    return largest + log(sum(exp(logit - largest) for logit in logits))


def _shared(one: str, other: str) -> int:
    """Count the leading parts that two dotted names have in common."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
