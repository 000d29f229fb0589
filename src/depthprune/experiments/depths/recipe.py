"""From the depths that somebody asks for to the recipe of the one training that they come from. No torch."""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from depthprune.errors import PlanError, UserError
from depthprune.healing.base import PlannedStep
from depthprune.healing.recipe import parse_recipe, resolve, show
from depthprune.plan import LayerPlan, parse_layers
from depthprune.specs import AS_STEPS, HealSpec, Step

DEFAULT_RECIPE = "adaptive-layers"


def read_depths(given: str | Iterable[int]) -> tuple[int, ...]:
    """Return numbers of layers, the largest first.

    >>> read_depths("12,9,4-6")
    (12, 9, 6, 5, 4)

    Raises:
        PlanError: there is none, one is below 1 or given twice, or it is no number.
    """
    if isinstance(given, str) and not re.fullmatch(r"(\s*\d+\s*(-\s*\d+\s*)?(,(?!\s*$)|$))+", given):
        raise PlanError(f"the depths '{given}' are not numbers of layers; write 12,9,6 or 4-12")
    depths = tuple(parse_layers(given)) if isinstance(given, str) else tuple(given)
    if wrong := [each for each in depths if not isinstance(each, int) or isinstance(each, bool)]:
        raise PlanError(f"a depth is a number of layers, not {wrong[0]!r}; write 12,9,6")
    if not depths or min(depths) < 1:
        raise PlanError("a depth is the number of layers that are left, 1 or more; write 12,9,6")
    if twice := [each for each in depths if depths.count(each) > 1]:
        raise PlanError(f"the depth {twice[0]} is given twice; give each once")
    return tuple(sorted(depths, reverse=True))


def training_recipe(heal: HealSpec) -> HealSpec:
    """Return a recipe for several depths: the one that is given, or the default one.

    Raises:
        UserError: its training depends on which layers go, or is no recipe of steps.
    """
    if not heal.steps and (given := [name for name in AS_STEPS if getattr(heal, name)]):
        raise UserError(
            f"{given[0]} goes with a model that is cut once; for several depths write a recipe of steps: --heal "
            "'freeze(embeddings=true)+adaptive-layers', say"
        )
    heal = replace(heal, steps=heal.steps or parse_recipe(DEFAULT_RECIPE))
    recipe = resolve(heal)
    place = _place(recipe)
    if place is None or any(getattr(step.options, "dropped", False) for step in recipe[:place]):
        raise UserError(
            f"all depths come from one training, which '{show(heal.steps)}' has not: give a recipe whose layers go "
            "with adaptive-layers or layerdrop, or leave --heal out"
        )
    return heal


def says_order(heal: HealSpec) -> bool:
    """Return whether a recipe says in which order layers go."""
    return bool(_options(heal).get("order"))


def with_depths(heal: HealSpec, asked: tuple[int, ...], depth: int) -> tuple[HealSpec, int]:
    """Return a recipe with the depths that it trains, and the smallest depth that is trained or asked for.

    Where the recipe does not say them, every depth is trained from the smallest that is asked for on.

    Args:
        heal: from `training_recipe`.
        asked: the depths, the largest first.
        depth: of the model.

    Raises:
        PlanError: a depth is the model's or above, or nothing says what is trained.
    """
    if asked[0] > depth:
        raise PlanError(f"the model has {depth} layers and cannot be cut to {asked[0]}; give depths from 1 to {depth}")
    step = _step(heal)
    if not hasattr(step.options, "depths"):
        return heal, min(asked[-1], depth - 1)
    trained = step.options.depths or tuple(range(asked[-1], depth))
    if not trained:
        raise PlanError(f"'{step.healer.name}' trains depths below the model's {depth}; ask for one of them, too")
    if max(trained) >= depth:
        raise PlanError(f"'{step.healer.name}' trains depths below the model's {depth}, not {max(trained)}")
    return _with(heal, depths=trained), min(asked[-1], *trained)


def with_order(heal: HealSpec, order: tuple[int, ...] | None, depth: int) -> tuple[HealSpec, tuple[int, ...]]:
    """Return a recipe with the order in which layers go, and that order.

    Args:
        heal: from `with_depths`.
        order: down to the smallest depth; the recipe's own if None.
        depth: of the model.

    Raises:
        PlanError: a layer does not exist.
    """
    step = _step(heal)
    layers: tuple[int, ...] = step.options.removal_order if order is None else order
    LayerPlan(depth, layers)  # they exist
    if not hasattr(step.options, "order"):
        return heal, layers
    return _with(heal, order=",".join(map(str, layers[: depth - min(step.options.depths)]))), layers


def plan_of(depth: int, order: tuple[int, ...], left: int) -> LayerPlan:
    """Return the plan that leaves so many layers.

    >>> plan_of(6, (5, 4, 3), 4).dropped
    (4, 5)

    Raises:
        PlanError: the order has too few layers.
    """
    if depth - left > len(order):
        raise PlanError(f"{left} layers are left of {depth} without {depth - left}, and the order has {len(order)}")
    return LayerPlan(depth, order[: depth - left])


def _place(recipe: tuple[PlannedStep, ...]) -> int | None:
    """Return the number of the last step that can train for all depths."""
    return max((i for i, step in enumerate(recipe) if hasattr(step.options, "any_plan")), default=None)


def _step(heal: HealSpec) -> PlannedStep:
    recipe = resolve(heal)
    place = _place(recipe)
    assert place is not None, "the recipe has been checked"
    return recipe[place]


def _options(heal: HealSpec) -> dict[str, Any]:
    place = _place(resolve(heal))
    assert place is not None, "the recipe has been checked"
    return dict(heal.steps[place].options)


def _with(heal: HealSpec, **options: Any) -> HealSpec:
    """Return a recipe in whose training options have other values."""
    place = _place(resolve(heal))
    assert place is not None, "the recipe has been checked"
    step = Step(heal.steps[place].method, tuple(sorted({**_options(heal), **options}.items())))
    return replace(heal, steps=(*heal.steps[:place], step, *heal.steps[place + 1 :]))
