"""Expand a sweep into unique runs. No torch.

Two strategies that choose the same layers share a run, and the full model runs once per task, seed and training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from depthprune.errors import PlanError, UserError
from depthprune.experiments.sweeps.grid import StrategyEntry, SweepSpec
from depthprune.plan import LayerPlan
from depthprune.sources import ModelSource, locate
from depthprune.specs import RunSpec
from depthprune.tasks import TaskData, TaskOptions, load_task

FULL, BASELINE = "full", "baseline"


@dataclass(frozen=True)
class Job:
    """One run, with what a worker needs to carry it out. It can be pickled.

    Args:
        spec: the run.
        model: where the model is.
        depth: layers of its stack.
        options: where the task's data lies.
        teacher: where the model is that `spec.heal.teacher` names; empty where it names none.
        unlabelled: where the rows are that `spec.heal.unlabelled` names.
        stamps: of the files of the model and of the teacher when they were hashed; where they have others, as on
            another machine, they are hashed again.
    """

    spec: RunSpec
    model: str
    depth: int
    options: TaskOptions
    allow_pickle: bool = False
    trust_remote_code: bool = False
    teacher: str = ""
    stamps: tuple[str, str] = ("", "")
    unlabelled: tuple[str, ...] = ()

    @property
    def plan(self) -> LayerPlan:
        """The layers that go."""
        return LayerPlan(self.depth, self.spec.drop.dropped)


@dataclass(frozen=True)
class Row:
    """A cell of the grid: what was asked for, and the run that answers it.

    Args:
        model, task, strategy, count, seed, recipe: as in the sweep; strategy `full` and count 0 for the full model,
            `baseline` for a model that is only compared with.
        digest: of the run.
    """

    model: str
    task: str
    strategy: str
    count: int
    seed: int
    recipe: str
    digest: str


@dataclass
class Expansion:
    """A sweep as runs.

    Args:
        jobs: digest → job, the full models first.
        rows: every cell of the grid.
        skipped: cells that are impossible, with the reason.
        unscored: cells that need a pass of scores before anyone knows their layers (a dry run makes none).
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unscored: int = 0

    @property
    def shared(self) -> int:
        """Cells that share another's run."""
        return len(self.rows) - len(self.jobs)


Scorer = Callable[[ModelSource, StrategyEntry, TaskData, int, tuple[int, ...]], Any]


def expand(
    spec: SweepSpec,
    scores_of: Scorer,
    *,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    find: Callable[..., ModelSource] = locate,
    load: Callable[[str, TaskOptions], TaskData] = load_task,
) -> Expansion:
    """Return the runs of a sweep.

    Args:
        scores_of: `(source, strategy, data, max_length, counts)` to the scores of a model's layers, or to what a
            search found, or None where neither is to be made now.
        find, load: look a model and a task's rows up; several sweeps of the same ones give functions that remember.

    Raises:
        UserError: a model or a task that cannot be read, or nothing that was asked for is possible.
    """
    from depthprune.experiments.specification import make_spec, stack_depth, teacher_run
    from depthprune.experiments.transfer_set import with_unlabelled

    found = Expansion()
    loaded = {task: load(task, spec.options) for task in spec.tasks}
    read = {(task, recipe): with_unlabelled(data, heal)[1]
            for task, data in loaded.items() for recipe, heal in spec.heal.items()}  # fmt: skip
    trust = {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
    teachers = {model: find(model, **trust) for known in spec.teachers.values() for model in known.values()}

    def add(model: str, source: ModelSource, data: TaskData, cell: Cell, depth: int) -> None:
        for seed in spec.seeds:
            for recipe in spec.heal:
                heal, teacher = read[data.task.name, recipe], spec.teacher_of(recipe, data.task.name)
                if teacher is not None:
                    heal = replace(heal, teacher=teachers[teacher].identity)
                run = make_spec(
                    *(source, data, cell.plan), heal=heal, max_length=spec.max_length, seed=seed, order=cell.order
                )
                digest = run.digest()
                if digest not in found.jobs:
                    named = teacher or "" if run.heal.teacher else ""
                    stamps = (source.stamps, teachers[named].stamps if named else "")
                    beside = spec.heal[recipe].unlabelled if run.heal.unlabelled else ()
                    more = {"teacher": named, "stamps": stamps, "unlabelled": beside}
                    found.jobs[digest] = Job(run, model, depth, spec.options, **trust, **more)
                name = spec.names.get(model, source.title)
                row = Row(name, data.task.name, cell.strategy, cell.plan.count, seed, recipe, digest)
                if row not in found.rows:
                    found.rows.append(row)

    for model in (*spec.models, *spec.baselines):
        source = find(model, **trust)
        depth = stack_depth(source)
        _check_recipes(spec, source, depth)
        for data in loaded.values():
            if model in spec.models:
                unscored = found.unscored
                cells = _cells(spec, source, data, depth, scores_of, found)
                if len(cells) > 1 or found.unscored > unscored:  # else there is nothing to compare the full model with
                    for cell in cells:
                        add(model, source, data, cell, depth)
            if model in spec.baselines:
                add(model, source, data, Cell(BASELINE, LayerPlan(depth, ()), ()), depth)
    if spec.models and not found.unscored and not any(row.count for row in found.rows):
        raise UserError(f"no layer can be dropped in any way that was asked for: {'; '.join(found.skipped[:3])}")
    # The full models first: every other run is compared with one. Then a seed whole before the next one begins, like
    # runs beside each other, for the caches, and last those that a full model teaches, which may still be in training.
    places = {seed: i for i, seed in enumerate(spec.seeds)}
    order = sorted(found.jobs.items(), key=lambda item: (
        item[1].spec.drop.dropped != (), places[item[1].spec.seed], item[1].model,
        teacher_run(item[1].spec) is not None))  # fmt: skip
    found.jobs = dict(order)
    return found


def combined(expansions: Sequence[Expansion]) -> Expansion:
    """Return several sweeps as one, whose runs are carried out in the order given; a run of two of them stands once."""
    whole = Expansion()
    for part in expansions:
        whole.jobs |= {digest: job for digest, job in part.jobs.items() if digest not in whole.jobs}
        whole.rows += [row for row in part.rows if row not in whole.rows]
        whole.skipped += [note for note in part.skipped if note not in whole.skipped]
        whole.unscored += part.unscored
    return whole


def _check_recipes(spec: SweepSpec, source: ModelSource, depth: int) -> None:
    for name, heal in spec.heal.items():
        in_steps = (value for step in heal.steps for option, value in step.options if option == "layers")
        layer = max((*heal.freeze_layers, *(layer for layers in in_steps for layer in layers)), default=0)
        if layer >= depth:
            raise UserError(f"the recipe '{name}' freezes layer {layer}; '{source.name}' has layers 0 to {depth - 1}")


@dataclass(frozen=True)
class Cell:
    """A choice of layers: who made it, and in which order they would go one by one."""

    strategy: str
    plan: LayerPlan
    order: tuple[int, ...]


def _cells(
    spec: SweepSpec, source: ModelSource, data: TaskData, depth: int, scores_of: Scorer, found: Expansion
) -> list[Cell]:
    """Return the choices for a model and a task, the full model first; what is impossible is noted."""
    from depthprune.scores import registry as scoring_methods
    from depthprune.strategies.searched import methods

    def skip(strategy: StrategyEntry, count: int | None, error: PlanError) -> None:
        shown = spec.names.get(source.name, source.title)
        asked = f", count {count}" if count is not None else ""
        note = f"{strategy.label}{asked}, {shown}: {error}"
        if note not in found.skipped:
            found.skipped.append(note)

    cells = [Cell(FULL, LayerPlan(depth, ()), ())]
    for strategy in spec.strategies:
        scored, searched = strategy.name in scoring_methods.names(), strategy.name in methods.names()
        counts: tuple[int | None, ...] = (None,) if strategy.threshold is not None else spec.counts_for(depth)
        if scored:
            counts = _possible(strategy, depth, counts, skip)
        if not counts:
            continue  # no pass for scores that serve nothing
        numbers = tuple(count for count in counts if count is not None)
        try:
            known = scores_of(source, strategy, data, spec.max_length, numbers) if scored or searched else None
        except PlanError as error:  # no search serves any of the counts
            skip(strategy, numbers[0], error)
            continue
        if (scored or searched) and known is None:
            found.unscored += len(counts)
            continue
        for count in counts:
            try:
                cells.append(Cell(strategy.label, *_chosen(strategy, depth, count, known)))
            except PlanError as error:
                skip(strategy, count, error)
    return cells


def _possible(
    strategy: StrategyEntry,
    depth: int,
    counts: tuple[int | None, ...],
    skip: Callable[[StrategyEntry, int | None, PlanError], None],
) -> tuple[int | None, ...]:
    """Return the counts that scores can serve, whatever they are."""
    from depthprune.strategies.scored import check_choice

    possible = []
    for count in counts:
        try:
            check_choice(strategy.name, depth, count=count, threshold=strategy.threshold, protect=strategy.protect)
        except PlanError as error:
            skip(strategy, count, error)
        else:
            possible.append(count)
    return tuple(possible)


def _chosen(strategy: StrategyEntry, depth: int, count: int | None, known: Any) -> tuple[LayerPlan, tuple[int, ...]]:
    """Return the plan of a strategy, by what is known of the layers where it goes by that, and the layers' order."""
    from depthprune.strategies import choose, removal_order
    from depthprune.strategies.scored import plan_scored, scored_order
    from depthprune.strategies.search_result import SearchResult

    if known is None:
        assert count is not None
        plan = choose(strategy.name, depth, count)
        return plan, removal_order(plan, strategy.name)
    if isinstance(known, SearchResult):
        assert count is not None
        return known.plan(count), known.order(count)
    plan = plan_scored(known, method=strategy.name, count=count, threshold=strategy.threshold, protect=strategy.protect)
    return plan, scored_order(plan, known, strategy.name)
