"""Plans from the files of `depthprune score` and `depthprune search`, for the commands that drop layers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from depthprune.errors import PlanError
from depthprune.plan import LayerPlan, list_stacks
from depthprune.registry import unknown

if TYPE_CHECKING:
    from depthprune.checkpoints.drop import Decision
    from depthprune.sources import ModelSource


def check_strategy(name: str) -> None:
    """Check that a strategy exists and needs neither scores nor a search.

    Raises:
        UserError: if there is no such strategy, or it needs a file of scores or of a search.
    """
    from depthprune.scores import registry as scoring_methods
    from depthprune.strategies import registry
    from depthprune.strategies.searched import methods

    if name in scoring_methods.names():
        raise PlanError(
            f"--strategy {name} chooses by scores: run depthprune score MODEL --method {name} --output scores.json, "
            "then add --scores scores.json"
        )
    if name in methods.names():
        raise PlanError(
            f"--strategy {name} is a search: run depthprune search MODEL --method {name} --output found.json, "
            "then add --search found.json"
        )
    searched = (registry, scoring_methods, methods)
    if name not in registry.names():
        raise unknown("strategy", name, sorted(known for each in searched for known in each.names()), among=searched)
    registry.get(name)


def check_alone(scores: Path | None, search: Path | None, *, layers, keep, original_indices: bool) -> None:
    """Check that a file of scores or of a search is not combined with another way to choose.

    Raises:
        PlanError: if it is.
    """
    given = [
        flag
        for flag, value in (("--scores", scores), ("--search", search), ("--layers", layers), ("--keep", keep))
        if value
    ]
    if len(given) > 1:
        raise PlanError(f"{' and '.join(given)} exclude each other; give one")
    if original_indices:
        raise PlanError("--original-indices applies to named layers only; give --layers or --keep")


def decision_from_file(
    source: "ModelSource",
    depths: Mapping[str, int],
    scores: Path | None,
    search: Path | None,
    strategy: str | None,
    *,
    counts: Sequence[str] | None,
    threshold: float | None = None,
    select: str | None = None,
    protect: str | None = None,
) -> "Decision":
    """Choose layers by scores or by what a search found.

    Raises:
        UserError: if the file is of another model, or has no such plan.
    """
    from depthprune.checkpoints.drop import Decision
    from depthprune.scores import read_scores
    from depthprune.strategies.scored import plan_scored
    from depthprune.strategies.search_result import read_search_result

    if search is not None:
        if threshold is not None or select is not None or protect is not None or strategy is not None:
            raise PlanError("--search goes with --count alone: the search has chosen already")
        found = read_search_result(search)
        found.check_model(source.identity)
        count = _count(counts, found.stack)
        if count is None:
            raise PlanError(f"--search needs --count: it has plans for {', '.join(map(str, sorted(found.plans)))}")
        name = f"{found.method} search ({found.objective['name']})"
        return Decision(_of_stack(found.stack, found.plan(count), depths), name)
    assert scores is not None
    known = read_scores(scores)
    known.check_model(source.identity)
    plan = plan_scored(
        known,
        method=strategy,
        select=select,
        count=_count(counts, known.stack),
        threshold=threshold,
        protect=protect,
    )
    method = strategy or known.method
    return Decision(_of_stack(known.stack, plan, depths), method, {known.stack: known.of(method).layers})


def _count(counts: Sequence[str] | None, stack: str) -> int | None:
    if not counts:
        return None
    name, _, number = counts[0].rpartition("=")
    if len(counts) > 1 or not number.isdigit() or name not in ("", stack):
        raise PlanError(f"--count {' '.join(counts)} is not a number of layers of the stack '{stack}'; write 3")
    return int(number)


def _of_stack(stack: str, plan: LayerPlan, depths: Mapping[str, int]) -> dict[str, LayerPlan]:
    if depths.get(stack) != plan.depth:
        which = f"a stack '{stack}' of {plan.depth} layers"
        raise PlanError(f"the file is about {which}, and the model has {list_stacks(depths)}")
    return {stack: plan}
