"""The choice of layers of one stack, as a value, and which stack of a model is meant.

Layer indices start at 0 and refer to the model before the drop. No tensors, no models.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import Any

from depthprune.errors import PlanError

HIGHEST_LAYER = 100_000


@dataclass(frozen=True)
class LayerPlan:
    """Which layers of a stack are dropped; the others are kept in their order.

    Args:
        depth: number of layers before the drop.
        dropped: indices of the layers to drop, in any order; stored sorted. Empty for the full model.

    Raises:
        PlanError: if an index does not exist or is given twice, or the plan drops every layer.

    >>> plan = LayerPlan(depth=6, dropped=(5, 4))
    >>> plan.dropped, plan.kept, plan.count
    ((4, 5), (0, 1, 2, 3), 2)
    """

    depth: int
    dropped: tuple[int, ...]

    def __post_init__(self) -> None:
        dropped = _check_indices(self.dropped, self.depth)
        if len(dropped) == self.depth:
            raise PlanError(f"dropping all {self.depth} layers leaves no model; keep at least one")
        object.__setattr__(self, "dropped", tuple(sorted(dropped)))

    @classmethod
    def from_kept(cls, depth: int, kept: Iterable[int]) -> "LayerPlan":
        """Return the plan that keeps exactly `kept`."""
        kept = _check_indices(kept, depth)
        return cls(depth, tuple(i for i in range(depth) if i not in set(kept)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LayerPlan":
        """Return the plan that `to_dict` wrote.

        Raises:
            KeyError, TypeError: the values are no plan.
            PlanError: they are a plan that cannot be.
        """
        numbers = [values["depth"], *values["dropped"]]
        if not all(type(number) is int and number <= HIGHEST_LAYER for number in numbers):
            raise TypeError("depth and dropped are not numbers of layers")
        return cls(numbers[0], tuple(numbers[1:]))

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON has it, in records, in a checkpoint's history and between processes.

        >>> LayerPlan(depth=6, dropped=(4, 5)).to_dict()
        {'depth': 6, 'dropped': [4, 5]}
        """
        return {"depth": self.depth, "dropped": list(self.dropped)}

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """Indices of the kept layers, ascending."""
        gone = set(self.dropped)
        return tuple(i for i in range(self.depth) if i not in gone)

    @property
    def count(self) -> int:
        """How many layers are dropped, the paper's K."""
        return len(self.dropped)

    def new_index(self, layer: int) -> int | None:
        """Return the index of `layer` after the drop, or None if it is dropped."""
        return self.kept.index(layer) if layer in self.kept else None


Plans = Mapping[str, LayerPlan]  # stack name → plan: what a command, a caller or a history says


def choose_stack(depths: Mapping[str, int], name: str | None = None, *, advice: str, model: str = "the model") -> str:
    """Return the name of the stack that is meant: the one that is named, or the only one.

    Args:
        depths: stack name → number of layers.
        name: the stack, if one was named.
        advice: what to do where there are several; ends the message.
        model: how the message calls the model.

    >>> choose_stack({"layers": 12}, advice="say which one")
    'layers'

    Raises:
        PlanError: there are several and none is named, or the model has no such stack.
    """
    if name is None:
        if len(depths) > 1:
            raise PlanError(f"{model} has several stacks: {list_stacks(depths)}; {advice}")
        return next(iter(depths))
    if name not in depths:
        close = difflib.get_close_matches(name, depths, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ";"
        raise PlanError(f"{model} has no stack '{name}'{hint} it has {list_stacks(depths)}")
    return name


def list_stacks(depths: Mapping[str, int]) -> str:
    """Write the stacks of a model with their depths.

    >>> list_stacks({"encoder": 12, "decoder": 6})
    "'encoder' (12 layers), 'decoder' (6 layers)"
    """
    return ", ".join(f"'{name}' ({depth} layers)" for name, depth in depths.items())


def _check_indices(given: Iterable[int], depth: int) -> tuple[int, ...]:
    try:
        depth, layers = index(depth), tuple(index(layer) for layer in given)
    except TypeError:
        raise PlanError(
            f"a plan is a depth and a list of layers, as in LayerPlan(12, [8, 9]), not {depth!r} and {given!r}"
        ) from None
    if depth < 1:
        raise PlanError(f"a stack has at least one layer, not {depth}")
    negative = sorted(i for i in layers if i < 0)
    if negative:
        raise PlanError(f"layers {negative} are negative: count from 0, the layer nearest the input")
    missing = sorted({i for i in layers if i >= depth})
    if missing:
        raise PlanError(f"layers {missing} do not exist: the stack has layers 0 to {depth - 1}")
    twice = sorted({i for i in layers if layers.count(i) > 1})
    if twice:
        raise PlanError(f"layers {twice} are given twice; give each layer once")
    return layers


def parse_layers(text: str) -> tuple[int, ...]:
    """Read a list of layers such as `8,9-11`, with commas or spaces between them; ranges include both ends.

    >>> parse_layers("8,9-11"), parse_layers("1 2")
    ((8, 9, 10, 11), (1, 2))

    Raises:
        PlanError: if the text is not a list of layers.
    """
    layers: list[int] = []
    entries = re.sub(r"(?<=\d)\s+-\s+(?=\d)", "-", text).split(",")
    for part in (word for entry in entries for word in entry.split() or [""]):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            hint = "count from 0, the layer nearest the input" if part.startswith("-") else "write 8,9-11"
            raise PlanError(f"'{text}' is not a list of layers: '{part}' is not a layer or a range; {hint}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise PlanError(f"the range '{part}' runs backwards; write {last}-{first}")
        if last > HIGHEST_LAYER:  # a typo must not fill the memory
            raise PlanError(f"layer {last} in '{text}' does not exist: no stack is that deep")
        layers.extend(range(first, last + 1))
    return tuple(layers)


def parse_counts(text: str) -> tuple[int, ...]:
    """Read how many layers to drop: a number, or several such as `1-4,6`; ranges include both ends.

    >>> parse_counts("1-3,6")
    (1, 2, 3, 6)

    Raises:
        PlanError: if the text is not a list of counts.
    """
    counts: set[int] = set()
    for part in re.split(r"[,\s]+", text.strip()):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match is not None else (0, 0)
        if not 1 <= first <= last <= HIGHEST_LAYER:
            raise PlanError(f"--count {text} is not how many layers to drop; write a number such as 3, or 1-4")
        counts |= set(range(first, last + 1))
    return tuple(sorted(counts))


def format_layers(layers: Iterable[int]) -> str:
    """Write layers the way `parse_layers` reads them.

    >>> format_layers((0, 8, 9, 10))
    '0,8-10'
    """
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
