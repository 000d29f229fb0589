"""Expand a sweep into unique runs, and carry them out through an executor. No torch until a run starts.

Two strategies that choose the same layers share a run, and the full model runs once per task, seed and recipe. Runs are
claimed one by one, so several processes and machines can work on one store at once: start the same sweep on each.
"""

import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from depthprune.errors import PlanError, UserError
from depthprune.experiments.claims import DEAD_AFTER, Watch, claimed, is_held
from depthprune.experiments.executors.base import Outcome, Resources
from depthprune.experiments.executors.base import registry as executors
from depthprune.experiments.store import Store, write_json
from depthprune.experiments.sweep_spec import StrategyEntry, SweepSpec
from depthprune.plan import LayerPlan
from depthprune.sources import ModelSource, locate
from depthprune.specs import RunSpec
from depthprune.tasks import TaskData, TaskOptions, load_task

FULL = "full"
DONE, FAILED, BUSY = "done", "failed", "busy"


@dataclass(frozen=True)
class Job:
    """One run, with what a worker needs to carry it out. It can be pickled.

    Args:
        spec: the run.
        model: where the model is.
        depth: layers of its stack.
        options: where the task's data lies.
    """

    spec: RunSpec
    model: str
    depth: int
    options: TaskOptions
    allow_pickle: bool = False
    trust_remote_code: bool = False

    @property
    def plan(self) -> LayerPlan:
        """The layers that go."""
        return LayerPlan(self.depth, self.spec.drop.dropped)


@dataclass(frozen=True)
class Row:
    """A cell of the grid: what was asked for, and the run that answers it.

    Args:
        model, task, strategy, count, seed, recipe: as in the sweep; strategy `full` and count 0 for the full model.
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


Scorer = Callable[[ModelSource, StrategyEntry, TaskData, int], Any]


def expand(
    spec: SweepSpec,
    scores_of: Scorer,
    *,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Expansion:
    """Return the runs of a sweep.

    Args:
        scores_of: `(source, strategy, data, max_length)` to the scores of a model's layers, or None where they are not
            to be taken now.

    Raises:
        UserError: a model or a task that cannot be read.
    """
    from depthprune.experiments.prepare import make_spec, stack_depth

    found = Expansion()
    loaded = {task: load_task(task, _task_options(spec)) for task in spec.tasks}
    for model in spec.models:
        source = locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
        depth = stack_depth(source)
        for task, data in loaded.items():
            plans = _plans(spec, source, data, depth, scores_of, found)
            for (strategy, plan), seed, (recipe, heal) in (
                (each, seed, recipe) for seed in spec.seeds for recipe in spec.heal.items() for each in plans
            ):
                run = make_spec(source, data, plan, heal=heal, max_length=spec.max_length, seed=seed)
                digest = run.digest()
                if digest not in found.jobs:
                    found.jobs[digest] = Job(run, model, depth, _task_options(spec), allow_pickle, trust_remote_code)
                found.rows.append(Row(source.name, task, strategy, plan.count, seed, recipe, digest))
    # The full models first: every other run is compared with one. Then like runs beside each other, for the caches.
    order = sorted(found.jobs, key=lambda d: (found.jobs[d].spec.drop.dropped != (), found.jobs[d].model))
    found.jobs = {digest: found.jobs[digest] for digest in order}
    return found


def _plans(
    spec: SweepSpec, source: ModelSource, data: TaskData, depth: int, scores_of: Scorer, found: Expansion
) -> list[tuple[str, LayerPlan]]:
    """Return (strategy, plan) for a model and a task; what is impossible is noted."""
    from depthprune.scores import registry as metrics
    from depthprune.strategies import choose
    from depthprune.strategies.scored import plan_scored

    plans = [(FULL, LayerPlan(depth, ()))]
    for strategy in spec.strategies:
        scored = strategy.name in metrics.names()
        scores = scores_of(source, strategy, data, spec.max_length) if scored else None
        counts: tuple[int | None, ...] = (None,) if strategy.threshold is not None else spec.counts_for(depth)
        if scored and scores is None:
            found.unscored += len(counts)
            continue
        for count in counts:
            try:
                if scores is not None:
                    more = {"threshold": strategy.threshold, "protect": strategy.protect}
                    plan = plan_scored(scores, metric=strategy.name, count=count, **more)
                else:
                    assert count is not None
                    plan = choose(strategy.name, depth, count)
            except PlanError as error:
                shown = source.name if source.commit is not None else Path(source.name).name
                note = f"{strategy.label}, count {count}, {shown}: {error}"
                if note not in found.skipped:
                    found.skipped.append(note)
                continue
            plans.append((strategy.label, plan))
    return plans


def _task_options(spec: SweepSpec) -> TaskOptions:
    return TaskOptions(spec.dataset, spec.text_columns, spec.label_column, spec.eval_split, spec.seeds[0])


@dataclass(frozen=True)
class Work:
    """An item for an executor: a job, and how to do it."""

    job: Job
    store: str
    device: str
    retry_failed: bool = False
    save: bool = False


_watch = Watch()
_data: dict[Any, TaskData] = {}


def do(work: Work) -> tuple[str, str, str]:
    """Carry out one run in a worker: claim it, run it, record it.

    Returns:
        Its digest; `done`, `failed` or `busy` (another worker has it); and a line about a failure.
    """
    job, store = work.job, Store(work.store)
    digest = job.spec.digest()
    folder = store.folder(digest)
    if _is_done(store, digest, work.save):
        return digest, DONE, ""
    if (folder / "failure.json").exists() and not work.retry_failed:
        return digest, FAILED, failure_line(folder)
    with claimed(folder, _watch) as ours:
        if not ours:
            return digest, BUSY, ""
        if _is_done(store, digest, work.save):  # by whoever had the claim a moment ago
            return digest, DONE, ""
        return _run(job, store, work.device, digest, save=work.save)


def _is_done(store: Store, digest: str, save: bool) -> bool:
    return store.record(digest) is not None and (not save or store.model_folder(digest).is_dir())


def _run(job: Job, store: Store, device: str, digest: str, *, save: bool) -> tuple[str, str, str]:
    from depthprune.experiments.prepare import resolve_device
    from depthprune.experiments.run import run
    from depthprune.quiet import quiet_libraries

    quiet_libraries()
    try:
        source = locate(job.model, allow_pickle=job.allow_pickle, trust_remote_code=job.trust_remote_code)
        key = (job.spec.evaluation.task, job.options)
        if key not in _data:
            _data[key] = load_task(job.spec.evaluation.task, job.options)
        run(source, _data[key], job.spec, job.plan, store=store, device=resolve_device(device), save=save)
    except Exception as error:  # the one place that records a failed run
        said = str(error) if isinstance(error, UserError) else traceback.format_exc()
        folder = store.folder(digest)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "failure.json", {"spec": job.spec.to_dict(), "traceback": said})
        return digest, FAILED, failure_line(folder)
    return digest, DONE, ""


def failure_line(folder: Path) -> str:
    """Return the last line of a run's failure."""
    try:
        lines = json.loads((folder / "failure.json").read_text(encoding="utf-8"))["traceback"].strip().splitlines()
    except (OSError, ValueError, KeyError, AttributeError):
        return "failed"
    return lines[-1] if lines else "failed"


def carry_out(
    expansion: Expansion,
    store: Store,
    *,
    executor: str = "local",
    resources: Resources | None = None,
    device: str = "auto",
    retry_failed: bool = False,
    save: bool = False,
    pause: float = 2.0,
    dead_after: float = DEAD_AFTER,
) -> Iterator[tuple[str, str, str]]:
    """Carry out the runs of a sweep; yields (digest, `done` or `failed`, a line about a failure) as they end.

    Runs that another worker has are waited for, and taken up when it dies.

    Args:
        save: keep each run's checkpoint in the store; a recorded run without one is run again.
        dead_after: seconds without a heartbeat after which another machine's worker is dead.
    """
    run_all = executors.get(executor)
    done = [digest for digest in expansion.jobs if _is_done(store, digest, save)]
    yield from ((digest, DONE, "") for digest in done)
    waiting = [
        Work(job, str(store.root), device, retry_failed, save)
        for digest, job in expansion.jobs.items()
        if digest not in done
    ]
    watch, held = Watch(dead_after), list[Work]()
    while waiting:
        busy = held
        for outcome in run_all(do, waiting, resources or Resources()):
            digest, state, line = _state(outcome)
            if state == BUSY:
                busy.append(outcome.item)
            else:
                yield digest, state, line
        waiting = []
        while busy and not waiting:  # watched here: a worker's process does not live long enough to see a death
            time.sleep(pause)
            waiting = [work for work in busy if not is_held(store.folder(work.job.spec.digest()), watch)]
        held = [work for work in busy if work not in waiting]


def _state(outcome: Outcome) -> tuple[str, str, str]:
    if outcome.lost is None:
        return outcome.result
    return outcome.item.job.spec.digest(), FAILED, outcome.lost
