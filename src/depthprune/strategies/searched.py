"""Search for the layers to drop: greedy, beam, evolutionary and exhaustive.

A search gets an evaluator (`evaluator.py`) and is independent of models. It returns the best plan that it found for
each count. Layers in `protected` are never dropped. No torch.
"""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from depthprune.errors import PlanError
from depthprune.plan import LayerPlan
from depthprune.registry import Registry, first_line
from depthprune.strategies.evaluator import Evaluator

PlansByCount = dict[int, LayerPlan]
MOST_PLANS = 20_000  # in an exhaustive search
OFFSPRING, SURVIVORS, SHARES = 16, (4, 2, 1), (1 / 16, 1 / 4, 1.0)  # of the evolutionary search


@dataclass(frozen=True)
class Space:
    """The search space.

    Args:
        depth: layers of the stack.
        counts: how many layers to drop, ascending.
        protected: layers that are kept.
        width: number of plans in a beam.
        generations: of the evolutionary search.
        seed: of all random numbers.

    Raises:
        PlanError: if more layers are to be dropped than are not protected.
    """

    depth: int
    counts: tuple[int, ...]
    protected: frozenset[int] = frozenset()
    width: int = 3
    generations: int = 20
    seed: int = 42

    def __post_init__(self) -> None:
        most = min(len(self.free), self.depth - 1)
        wrong = [count for count in self.counts if not 1 <= count <= most]
        if wrong or not self.counts:
            kept = f" with {len(self.protected)} protected" if self.protected else ""
            raise PlanError(
                f"cannot drop {wrong[0] if wrong else 0} of {self.depth} layers{kept}; --count is 1 to {most}"
            )

    @property
    def free(self) -> tuple[int, ...]:
        """The layers that may be dropped."""
        return tuple(i for i in range(self.depth) if i not in self.protected)

    def without(self, plan: LayerPlan) -> list[LayerPlan]:
        """Return the plans that drop one more layer."""
        return [LayerPlan(self.depth, (*plan.dropped, i)) for i in self.free if i not in plan.dropped]


@dataclass(frozen=True)
class Method:
    """A named search."""

    name: str
    function: Callable[[Evaluator, Space], PlansByCount]
    paper: str | None

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return first_line(self.function)


methods: Registry[Method] = Registry("search", "depthprune.strategies", Method)


def method(name: str, *, paper: str | None = None) -> Callable[[Callable], Callable]:
    """Register a search; the function itself is returned unchanged."""

    def register(function: Callable[[Evaluator, Space], PlansByCount]) -> Callable:
        methods.add(name, Method(name, function, paper))
        return function

    return register


def trials(name: str, space: Space) -> int | None:
    """Return how many plans a search will evaluate besides the full model; None if not known in advance.

    >>> trials("greedy", Space(depth=6, counts=(2,)))
    11
    """
    free, most = len(space.free), max(space.counts)
    if name == "greedy":
        return sum(free - round_ for round_ in range(most))
    if name == "exhaustive":
        return sum(math.comb(free, count) for count in space.counts)
    return None


@method("greedy", paper="https://arxiv.org/abs/2402.09025")
def greedy(evaluator: Evaluator, space: Space) -> PlansByCount:
    """Take away, one at a time, the layer that costs least, and score all the others again.

    SLEB (Song et al., 2024) with perplexity; Greedy Layer Pruning (Peer et al., 2021) with the fine-tuned score.
    """
    found: PlansByCount = {}
    current = LayerPlan(space.depth, ())
    for count in range(1, max(space.counts) + 1):
        evaluator.warm(current)
        best = None
        for plan in _promising_first(evaluator, space.without(current), current):
            if best is None:
                evaluator.value(plan)
                best = plan
            elif evaluator.value(plan, rival=best) < evaluator.value(best) and evaluator.complete(plan):
                best = plan
            evaluator.keep([current, best])
        assert best is not None
        current = best
        evaluator.keep([current])
        if count in space.counts:
            found[count] = current
    return found


def _promising_first(evaluator: Evaluator, plans: list[LayerPlan], base: LayerPlan) -> list[LayerPlan]:
    """Order plans by their cost on the first batch when racing: a strong rival ends a race early."""
    if not evaluator.racing:
        return plans
    first = {}
    for plan in plans:
        first[plan] = evaluator.value(plan, batches=1)
        evaluator.keep([base])
    return sorted(plans, key=lambda plan: (first[plan], plan.dropped))


@method("beam")
def beam(evaluator: Evaluator, space: Space) -> PlansByCount:
    """Like greedy, but continue from the best few plans of each size (--width) instead of one."""
    found: PlansByCount = {}
    beams = [LayerPlan(space.depth, ())]
    for count in range(1, max(space.counts) + 1):
        values: dict[LayerPlan, float] = {}
        for start in beams:
            evaluator.warm(start)
            for plan in space.without(start):
                if plan in values:
                    continue
                best = sorted(values, key=lambda known: (values[known], known.dropped))[: space.width]
                rival = best[-1] if len(best) == space.width else None
                value = evaluator.value(plan, rival=rival)
                if evaluator.complete(plan):
                    values[plan] = value
                evaluator.keep([*beams, *best])
        beams = sorted(values, key=lambda plan: (values[plan], plan.dropped))[: space.width]
        evaluator.keep(beams)
        if count in space.counts:
            found[count] = beams[0]
    return found


@method("exhaustive")
def exhaustive(evaluator: Evaluator, space: Space) -> PlansByCount:
    """Try every plan: the true optimum, if there are few enough.

    Raises:
        PlanError: if there are too many plans.
    """
    total = trials("exhaustive", space) or 0
    if total > MOST_PLANS:
        raise PlanError(
            f"an exhaustive search would try {total:,} plans, more than {MOST_PLANS:,}; "
            "give --method greedy or evolutionary, or a smaller --count"
        )
    found: PlansByCount = {}
    for count in space.counts:
        plans = [LayerPlan(space.depth, dropped) for dropped in itertools.combinations(space.free, count)]
        best = None
        for plan in sorted(plans, key=lambda plan: plan.kept):  # neighbours share the longest prefixes
            value = evaluator.value(plan, rival=best)
            if best is None or (evaluator.complete(plan) and value < evaluator.value(best)):
                best = plan
            evaluator.keep([plan])
        assert best is not None
        found[count] = best
    return found


@method("evolutionary", paper="https://arxiv.org/abs/2410.14649")
def evolutionary(evaluator: Evaluator, space: Space) -> PlansByCount:
    """Switch a dropped layer for a kept one, and let the fittest survive in steps on more and more data.

    EvoPress (Sieberling et al., 2024): a (1 + λ) evolution with level-switch mutation, where offspring are thinned out
    on a part of the data before they are tried on all of it.
    """
    return {count: _evolve(evaluator, space, count) for count in space.counts}


def _evolve(evaluator: Evaluator, space: Space, count: int) -> LayerPlan:
    chance = random.Random(f"{space.seed} {count}")
    start = [_random_plan(chance, space, count) for _ in range(OFFSPRING)]
    parent = _select(evaluator, start)
    for _ in range(space.generations):
        evaluator.warm(parent)
        offspring = [_switched(chance, space, parent) for _ in range(OFFSPRING)]
        best = _select(evaluator, offspring, parent)
        if evaluator.value(best) < evaluator.value(parent):
            parent = best
        evaluator.keep([parent])
    return parent


def _random_plan(chance: random.Random, space: Space, count: int) -> LayerPlan:
    return LayerPlan(space.depth, tuple(chance.sample(space.free, count)))


def _switched(chance: random.Random, space: Space, parent: LayerPlan) -> LayerPlan:
    """Exchange a few dropped layers for kept ones: the minimum of two random numbers, so mostly one."""
    kept = [i for i in space.free if i not in parent.dropped]
    most = min(len(kept), parent.count)
    if not most:
        return parent
    switches = min(chance.randint(1, most), chance.randint(1, most), 3)
    stay = set(parent.dropped) - set(chance.sample(parent.dropped, switches))
    return LayerPlan(space.depth, tuple(stay | set(chance.sample(kept, switches))))


def _select(evaluator: Evaluator, plans: list[LayerPlan], parent: LayerPlan | None = None) -> LayerPlan:
    """Select plans in steps, each on a larger share of the data; the last one is evaluated on all of it."""
    alive = sorted(set(plans), key=lambda plan: plan.dropped)
    for survivors, share in zip(SURVIVORS, SHARES, strict=True):
        batches = max(1, round(share * evaluator.num_batches))
        values = {}
        for plan in alive:
            values[plan] = evaluator.value(plan, batches=batches)
            evaluator.keep([parent] if parent is not None else [])
        alive = sorted(alive, key=lambda plan: (values[plan], plan.dropped))[:survivors]
    return alive[0]
