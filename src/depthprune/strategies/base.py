"""The strategies by position, and how their choice becomes a plan."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from depthprune.arguments import checked
from depthprune.errors import ExtensionError, PlanError
from depthprune.plan import LayerPlan, choose_stack, parse_layers
from depthprune.registry import Registry, first_line, warn_once

StrategyFunction = Callable[[int, int], tuple[int, ...]]


@dataclass(frozen=True)
class Strategy:
    """A named way to choose layers.

    Args:
        name: what the command and the records call it.
        function: `(depth, count)` to the dropped indices; raises PlanError for a count that it does not support.
        paper: address of the publication it comes from.
    """

    name: str
    function: StrategyFunction
    paper: str

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return first_line(self.function)


registry: Registry[Strategy] = Registry("strategy", "depthprune.strategies", Strategy)


def strategy(name: str, *, paper: str) -> Callable[[StrategyFunction], StrategyFunction]:
    """Register a strategy by position; the function itself is returned unchanged."""

    def register(function: StrategyFunction) -> StrategyFunction:
        registry.add(name, Strategy(name, function, paper))
        return function

    return register


@checked("strategies.choose")
def choose(name: str, depth: int, count: int) -> LayerPlan:
    """Drop `count` of `depth` layers by the strategy `name`.

    Raises:
        UserError: if there is no such strategy.
        PlanError: if `count` is out of range, or the strategy cannot drop that many.
    """
    part = registry.get(name)
    if not 1 <= count < depth:
        raise PlanError(
            f"cannot drop {count} of {depth} layers; --count is a number from 1 to {depth - 1}"
            if depth > 1
            else f"cannot drop {count} of {depth} layers; the stack has a single layer"
        )
    dropped = registry.check_returned(name, part.function(depth, count), tuple)
    if len(dropped) != count:
        raise registry.fault(name, f"drops {len(dropped)} layers instead of {count}")
    return LayerPlan(depth, dropped)


def possible_counts(name: str, depth: int) -> tuple[int, ...]:
    """Return every count that the strategy `name` supports on a stack of `depth` layers.

    >>> possible_counts("symmetric", depth=6)
    (2, 4)
    """
    possible = []
    for count in range(1, depth):
        try:
            choose(name, depth, count)
        except PlanError:
            continue
        possible.append(count)
    return tuple(possible)


def choices(depth: int, count: int) -> dict[str, LayerPlan]:
    """Return what each strategy by position drops, by name; those that do not support the count are left out.

    >>> {name: plan.dropped for name, plan in choices(depth=6, count=1).items() if "alternate" in name}
    {'even-alternate': (5,), 'odd-alternate': (4,)}
    """
    found = {}
    for name, _ in registry.items():
        try:
            found[name] = choose(name, depth, count)
        except PlanError:
            continue
        except ExtensionError as error:
            warn_once(error)
    return found


def same_choice(plan: LayerPlan) -> tuple[str, ...]:
    """Return the names of the strategies by position that make exactly this choice.

    >>> same_choice(LayerPlan(6, (5,)))
    ('even-alternate', 'top')
    """
    return tuple(name for name, chosen in choices(plan.depth, plan.count).items() if chosen == plan)


def removal_order(plan: LayerPlan, name: str | None = None) -> tuple[int, ...]:
    """Return the layers of a plan in the order of a gradual drop: as the strategy's smaller counts drop them.

    Of layers that the same count adds, and if the layers were not chosen by position, the one nearest the output is
    dropped first.

    >>> removal_order(LayerPlan(6, (1, 2, 3, 4)), "symmetric"), removal_order(LayerPlan(6, (0, 1)), "bottom")
    ((3, 2, 4, 1), (0, 1))
    """
    order: list[int] = []
    counts = possible_counts(name, plan.depth) if name is not None and name in registry.names() else ()
    for count in (count for count in counts if count < plan.count):
        smaller = choose(name or "", plan.depth, count).dropped
        order += sorted(set(smaller) & set(plan.dropped) - set(order), reverse=True)
    return (*order, *sorted(set(plan.dropped) - set(order), reverse=True))


@checked("strategies.plan_layers")
def plan_layers(
    depth: int,
    *,
    strategy: str | None = None,
    count: int | None = None,
    layers: str | Iterable[int] | None = None,
    keep: str | Iterable[int] | None = None,
) -> LayerPlan:
    """Make a plan from a strategy and a count, or from layers to drop, or from layers to keep.

    Args:
        depth: layers of the stack.
        strategy: name of a strategy, with `count`.
        count: how many layers to drop.
        layers: layers to drop, such as `8,9-11` or a list of them.
        keep: layers to keep, in the same form.

    Returns:
        The plan; without arguments, one that drops nothing.

    Raises:
        PlanError: if the options exclude each other, or the layers do not exist.
    """
    given = [
        flag for flag, value in (("--strategy", strategy), ("--layers", layers), ("--keep", keep)) if value is not None
    ]
    if len(given) > 1:
        raise PlanError(f"{' and '.join(given)} exclude each other; give one")
    if strategy is None and count is not None:
        raise PlanError(f"--count {count} needs a strategy: --strategy {' | '.join(registry.names())}")
    if layers is not None:
        return LayerPlan(depth, _layers(layers))
    if keep is not None:
        return LayerPlan.from_kept(depth, _layers(keep))
    if strategy is not None:
        registry.get(strategy)  # an unknown name is the more useful message
        if count is None:
            raise PlanError(f"--strategy {strategy} needs --count, how many layers to drop (1 to {depth - 1})")
        return choose(strategy, depth, count)
    return LayerPlan(depth, ())


def _layers(given: str | Iterable[int]) -> tuple[int, ...]:
    return parse_layers(given) if isinstance(given, str) else tuple(given)


def plan_stacks(
    depths: Mapping[str, int],
    *,
    strategy: str | None = None,
    counts: Iterable[str] = (),
    layers: Iterable[str] = (),
    keep: Iterable[str] = (),
) -> dict[str, LayerPlan]:
    """Make a plan for each named stack: `3` or `8,9-11`, or `decoder=3` if there are several stacks.

    Args:
        depths: stack name → number of layers.
        strategy: chooses the layers of the stacks in `counts`.
        counts: how many layers to drop.
        layers: layers to drop.
        keep: layers to keep.

    Returns:
        Stack name → plan, for the stacks that are named.

    Raises:
        PlanError: if there are several stacks and none is named, one is unknown or named twice; see also `plan_layers`.
    """
    asked: dict[str, dict[str, str]] = {}
    for flag, texts in (("count", counts), ("layers", layers), ("keep", keep)):
        for text in texts:
            name, value = _stack_and_value(text, flag, depths)
            if flag in asked.setdefault(name, {}):
                raise PlanError(f"--{flag} is given twice for the stack '{name}'; give it once, such as 8,9-11")
            asked[name][flag] = value
    if strategy is not None and not any("count" in given for given in asked.values()):
        choose_stack(depths, advice=f"--strategy {strategy} needs --count STACK=K")
    if not asked:
        return {name: plan_layers(depth, strategy=strategy) for name, depth in depths.items()}
    plans = {}
    for name, given in asked.items():
        count = _number(given["count"]) if "count" in given else None
        chosen = strategy if count is not None or len(asked) == 1 else None
        plans[name] = plan_layers(
            depths[name], strategy=chosen, count=count, layers=given.get("layers"), keep=given.get("keep")
        )
    return plans


def _stack_and_value(text: str, flag: str, depths: Mapping[str, int]) -> tuple[str, str]:
    name, equals, value = text.rpartition("=")
    advice = f"say which one --{flag} {text} is about: --{flag} STACK={text}"
    return choose_stack(depths, name if equals else None, advice=advice), value


def _number(text: str) -> int:
    if not re.fullmatch(r"-?\d+", text):
        raise PlanError(f"--count {text} is not a number; write 3, or decoder=3 for one stack of several")
    return int(text)
