"""Plan a streamed drop: which tensors are kept, under which names, and the new configuration. No torch."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from depthprune.checkpoints.layout import Checkpoint, StoredTensor, find_prefix, split_name
from depthprune.errors import CannotDropError
from depthprune.sources import ModelSource
from depthprune.surgery.config.depth import check_supported, depth_keys, edited, holder
from depthprune.surgery.config.entries import BEYOND_THE_STACK
from depthprune.surgery.config.quantised import check_plain
from depthprune.surgery.sized_tensors import Kept, kept_part
from depthprune.surgery.stacks import TensorPlans, TensorStack, new_names


@dataclass(frozen=True)
class Piece:
    """A tensor that is kept, whole or in part.

    Args:
        tensor: where its bytes lie.
        part: the kept part; None if all of it is kept.
    """

    tensor: StoredTensor
    part: Kept | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the kept part."""
        return self.tensor.shape if self.part is None else self.part.shape(self.tensor.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of the kept part."""
        whole = prod(self.tensor.shape)
        return self.tensor.num_bytes if self.part is None else self.tensor.num_bytes // whole * prod(self.shape)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yield (offset in the file, number of bytes) of the byte ranges that are copied unchanged, in order."""
        assert self.part is None or not self.part.merged
        if self.part is None:
            yield self.tensor.start, self.tensor.num_bytes
            return
        dimension = self.part.dimension
        inner = self.tensor.num_bytes // prod(self.tensor.shape[: dimension + 1])
        for row in range(prod(self.tensor.shape[:dimension])):
            start = self.tensor.start + row * self.tensor.shape[dimension] * inner
            for first, stop in self.part.ranges:
                yield start + first * inner, (stop - first) * inner


@dataclass(frozen=True)
class Cut:
    """What a streamed drop does.

    Args:
        plans: the plan of each stack that is cut.
        kept: new name → kept tensor, in the order of the source.
        dropped: the dropped tensors.
        config: the new config.json.
        checkpoint: the source.
    """

    plans: TensorPlans
    kept: Mapping[str, Piece]
    dropped: tuple[StoredTensor, ...]
    config: dict[str, Any]
    checkpoint: Checkpoint

    @property
    def kept_bytes(self) -> int:
        """Bytes of the kept tensors."""
        return sum(piece.num_bytes for piece in self.kept.values())

    @property
    def parameters(self) -> tuple[int, int]:
        """Elements of all tensors before and after; packed ones, such as four-bit weights, as they are stored."""
        before = sum(prod(tensor.shape) for tensor in self.checkpoint.tensors.values())
        return before, sum(prod(piece.shape) for piece in self.kept.values())


def stacks_in_plain_sight(source: ModelSource, checkpoint: Checkpoint) -> dict[str, TensorStack] | None:
    """Return the only stack of a model if config.json and the tensor names identify it, else None."""
    keys = depth_keys(source.config)
    if len(keys) != 1:
        return None
    key, depth = next(iter(keys.items()))
    if "." in key:
        return None
    prediction = range(depth, depth + _beyond(source.config))
    names = (n for n in checkpoint.tensors if (split := split_name(n)) is None or split[1] not in prediction)
    try:
        return {"layers": TensorStack("layers", (find_prefix(names, depth),), key, depth)}
    except CannotDropError:
        return None


def plan_cut(source: ModelSource, plans: TensorPlans, checkpoint: Checkpoint) -> Cut:
    """Decide which tensors are dropped and what the new configuration is; writes nothing.

    Raises:
        CannotDropError: if the architecture or an entry of the configuration does not allow a plan.
    """
    config = edited(source.config, plans)
    for stack, plan in plans.items():
        if plan.dropped:
            check_supported(holder(config, stack.depth_key))
        _check_depth(source, stack, checkpoint)
    check_plain({name: tensor.dtype for name, tensor in checkpoint.tensors.items()}, plans)
    names = new_names(checkpoint.tensors, plans)
    kept = {}
    for name, tensor in checkpoint.tensors.items():
        if name in names:
            assert names[name] not in kept, "two tensors would get one name"
            kept[names[name]] = Piece(tensor, kept_part(name, tensor.shape, plans))
    dropped = tuple(tensor for name, tensor in checkpoint.tensors.items() if name not in names)
    return Cut(plans, kept, dropped, config, checkpoint)


def _beyond(config: Mapping[str, Any]) -> int:
    """Return how many multi-token prediction layers may follow the stack."""
    return max((value for name in BEYOND_THE_STACK if isinstance(value := config.get(name), int)), default=0)


def _check_depth(source: ModelSource, stack: TensorStack, checkpoint: Checkpoint) -> None:
    """Check that the weights have as many layers as config.json says."""
    beyond = _beyond(holder(copy.deepcopy(source.config), stack.depth_key))
    for path in stack.paths:
        places = (stack.split(name) for name in checkpoint.tensors)
        seen = {place[1] for place in places if place is not None and place[0] == path}
        if not set(range(stack.depth)) <= seen <= set(range(stack.depth + beyond)):
            raise CannotDropError(
                f"the configuration says {stack.depth} layers and the weights have no stack of that depth "
                f"({path} {len(seen)}); download the model again"
            )
