"""The smallest model within a bound: the paper's "largest K within δ", as a search over every K.

Scores are not monotone in K, so every count is tried unless a budget says otherwise, and the answer is then a lower
bound. Stored runs count; nothing is trained twice. No torch until a run starts.
"""

import shutil
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from depthprune.arguments import checked
from depthprune.errors import UserError
from depthprune.evaluation.measurement import Measurement
from depthprune.experiments.resampling import lost_interval
from depthprune.experiments.specification import teacher_run
from depthprune.experiments.store.kept_checkpoints import checkpoint
from depthprune.experiments.store.records import measured
from depthprune.experiments.store.store import DEFAULT_STORE, Store, readable_record
from depthprune.experiments.sweeps.bounds import Bounds, make_bounds
from depthprune.experiments.sweeps.budget import next_plans
from depthprune.experiments.sweeps.executors.base import Resources
from depthprune.experiments.sweeps.executors.local import at_a_time, gpus_of_a_run
from depthprune.experiments.sweeps.expansion import Expansion
from depthprune.experiments.sweeps.grid import ALL_COUNTS, parse_sweep
from depthprune.experiments.sweeps.runner import run_jobs
from depthprune.experiments.sweeps.sweep import no_news, plan_sweep
from depthprune.healing.recipe import parse_recipe
from depthprune.quiet import no_progress, quietly
from depthprune.specs import AS_STEPS, EvalSpec, Execution, HealSpec, RunSpec
from depthprune.tasks import TaskOptions
from depthprune.tasks.language_modelling import NAME as LANGUAGE_MODELLING

# A search for the output nearest the full model's measures best of all ways to choose (docs/results/choosing.md); the
# scores of one pass choose otherwise, and cost nothing beside the training.
STRATEGIES = ("greedy", "contribution")
# The recipe that kept most of the score at half the depth (docs/results.md, "Half of the layers, with a teacher").
RECIPE = "logit-kd"
OnEnd = Callable[[str, str, str], None]


@dataclass(frozen=True)
class Answer:
    """What `auto` came to.

    Args:
        digest: of the best run within the bounds, or None where there is none.
        record: its record.
        full: the full model's primary metric.
        tried: records of all runs that were looked at, by digest.
        complete: whether every plan was tried; otherwise a larger K may do, too.
        checkpoint: folder of the best run's checkpoint.
        interval: of what it loses, from the rows on which both were scored; None where they are not recorded,
            and for the full model itself.
    """

    digest: str | None
    record: dict[str, Any] | None
    full: Measurement
    tried: dict[str, dict[str, Any]]
    complete: bool
    checkpoint: Path | None = None
    interval: tuple[float, float] | None = None

    @property
    def measured(self) -> Measurement | None:
        """The primary metric of the best run."""
        return None if self.record is None else measured(self.record)

    @property
    def score(self) -> float | None:
        """Its value, a fraction where its unit is one."""
        return None if self.measured is None else self.measured.value

    @property
    def dropped(self) -> tuple[int, ...] | None:
        """The layers that go in the best run."""
        return None if self.record is None else tuple(self.record["spec"]["drop"]["dropped"])


@checked("auto")
@quietly()
def auto(
    model: str | Path,
    task: str,
    *,
    max_loss: float | str | None = None,
    max_parameters: int | str | None = None,
    max_latency_ms: float | None = None,
    speedup: float | None = None,
    budget: int | None = None,
    strategies: Iterable[str] = STRATEGIES,
    options: TaskOptions | None = None,
    heal: HealSpec | None = None,
    teacher: str | Path | None = None,
    max_length: int = EvalSpec.max_length,
    seed: int = RunSpec.seed,
    store: Path | str = DEFAULT_STORE,
    workers: int | None = None,
    device: str = "auto",
    profile: bool = True,
    execution: Execution = Execution(),
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: Callable[[str, int, int], None] = no_progress,
    on_end: OnEnd = no_news,
) -> Answer:
    """Find the smallest model within a bound: cut, fine-tune and score until it is known. This is `depthprune.auto`.

    Runs in processes of their own, so a script calls it under `if __name__ == "__main__":`.

    Args:
        model: a local folder or a Hub id.
        task: one of `depthprune list`.
        max_loss: how much worse than the full model: `1.0` is a point, or one of a metric that is no fraction, `"1%"` a
            share of the full model's score.
        max_parameters: of the model: a number, or `"80M"`.
        max_latency_ms: of an example, on this machine.
        speedup: times as fast as the full model.
        budget: try so many plans at most; every one without it.
        strategies: how layers are chosen.
        options: where the task's data lies, and its columns.
        heal: how each plan is healed. Where it says no recipe, the full model teaches the pruned ones (`logit-kd`);
            plain fine-tuning is `steps=parse_recipe("finetune")`.
        teacher: a fine-tuned model, for recipes that need one; the full model's own run if None.
        max_length: tokens to which an example is cut.
        seed: of all runs.
        store: the folder of runs; those that are there count.
        workers: runs at a time; by cores or GPUs by default.
        device: `auto`, `cpu` or `cuda`.
        profile: measure latencies, which a bound on them needs.
        execution: gradient checkpointing, and where losses are reported to.
        on_progress: called with a stage's name and how far it is, before the runs.
        on_end: called with the digest of a run that ended, `done` or `failed`, and a line about a failure.

    Raises:
        UserError: anything a user can cause, in one line.
    """
    bounds, runs = make_bounds(max_loss, max_parameters, max_latency_ms, speedup, timed=profile), Store(store)
    expansion = plans_for(
        *(str(model), task),
        strategies=strategies,
        options=options or TaskOptions(),
        heal=heal or HealSpec(),
        teacher=None if teacher is None else str(teacher),
        max_length=max_length,
        seed=seed,
        store=runs,
        device=device,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
        on_progress=on_progress,
    )
    how: dict[str, Any] = {"resources": resources(workers, device), "device": device, "profile": profile}
    how |= {"execution": execution}
    return find(expansion, runs, bounds, budget=budget, on_end=on_end, **how)


def plans_for(
    model: str,
    task: str,
    *,
    strategies: Iterable[str],
    options: TaskOptions,
    heal: HealSpec,
    teacher: str | None,
    max_length: int,
    seed: int,
    store: Store,
    device: str,
    allow_pickle: bool,
    trust_remote_code: bool,
    on_progress: Callable[[str, int, int], None],
) -> Expansion:
    """Return every plan of every strategy as a run, those that need scores or a search scored and searched.

    Raises:
        UserError: a model, a task or a strategy that cannot be.
    """
    if heal.teacher:
        raise UserError(
            "heal.teacher is a model by content, which says not where it is; give the teacher as a folder or id"
        )
    heal = with_recipe(heal, task)
    asked = {"models": model, "tasks": task, "strategies": list(strategies), "counts": [ALL_COUNTS], "seeds": [seed]}
    recipe = {item.name: getattr(heal, item.name) for item in fields(heal) if item.name != "teacher"}
    asked |= {"heal": recipe, "teacher": teacher, "max_length": max_length}
    grid = replace(parse_sweep(asked), options=options)
    on_progress("choose layers", 0, 1)
    trust = {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
    return plan_sweep([grid], store, device=device, on_progress=on_progress, **trust)


def with_recipe(heal: HealSpec, task: str) -> HealSpec:
    """Return a recipe with the recommended steps, where it says none of its own and trains a classifier or regressor.

    >>> [str(step) for step in with_recipe(HealSpec(), "mrpc").steps]
    ['distill(alpha=0.9, warmup=0.1)']
    >>> with_recipe(HealSpec(epochs_before=1), "mrpc").steps
    ()
    """
    said = heal.steps or any(getattr(heal, name) for name in AS_STEPS)
    if said or not heal.num_epochs or task == LANGUAGE_MODELLING:
        return heal
    return replace(heal, steps=parse_recipe(RECIPE))


def resources(number: int | None, device: str) -> Resources:
    """Return what the runs share: a GPU each where there are any."""
    return Resources(number, gpus=gpus_of_a_run(device))


def find(
    expansion: Expansion,
    store: Store,
    bounds: Bounds,
    *,
    budget: int | None = None,
    resources: Resources | None = None,
    device: str = "auto",
    profile: bool = True,
    execution: Execution = Execution(),
    on_end: OnEnd = no_news,
) -> Answer:
    """Run the plans of a sweep over one model and task, and return the smallest within the bounds.

    Of two of one size, the one that scores better; where only size or speed is bounded, the best score. With a
    budget, runs are chosen by what the earlier ones came to (`next_plans`).

    Raises:
        UserError: a run failed.
    """
    kept_before = {digest for digest in expansion.jobs if store.model_folder(digest).is_dir()}
    records: dict[str, dict[str, Any]] = {}

    def carry(digests: Iterable[str], *, redo: bool = False) -> None:
        jobs = Expansion({digest: expansion.jobs[digest] for digest in digests})
        how: dict[str, Any] = {"resources": resources, "device": device, "save": True, "redo": redo, "profile": profile}
        how |= {"execution": execution}
        with closing(run_jobs(jobs, store, **how)) as outcomes:  # an interrupt ends its workers
            for digest, state, line in outcomes:
                on_end(digest, state, line)
                if state == "failed":
                    raise UserError(f"the run {digest} failed ({line}); its folder in '{store.root}' says more")
                record = readable_record(store.folder(digest) / "record.json")
                assert record is not None, "what is done is recorded"
                records[digest] = record

    sure, todo = sure_runs(expansion, store)
    if any(teacher_run(expansion.jobs[digest].spec) for digest in todo):
        carry([sure[0]], redo=True)
    carry(sure if budget is not None else [*sure, *todo])  # what is recorded counts, with its checkpoint or without
    full_digest = next(digest for digest, job in expansion.jobs.items() if not job.plan.dropped)
    full, left = measured(records[full_digest]), budget or 0
    while left and (todo := [digest for digest in todo if digest not in records]):
        size = min(left, at_a_time(resources or Resources()))
        plans = {digest: expansion.jobs[digest].plan for digest in todo}
        carry(next_plans(plans, list(records.values()), full, bounds, size, last=left == size))
        left -= size
    within = {digest: record for digest, record in records.items() if bounds.allow(record, full)}

    def rank(digest: str) -> tuple:
        size, merit = within[digest]["outcome"]["profile"]["parameters"], measured(within[digest]).merit
        return (size, -merit) if bounds.max_loss is not None else (-merit, size)

    best = min(within, key=rank, default=None)
    for digest in records:  # the losers' checkpoints, but for those that were there before; their records stay
        if digest != best and digest not in kept_before:
            shutil.rmtree(store.model_folder(digest), ignore_errors=True)
    complete = len(records) == len(expansion.jobs)
    if best is None:
        return Answer(None, None, full, records, complete)
    if checkpoint(store, best) is None:
        carry([best], redo=True)
    interval = lost_interval(store.folder(full_digest), store.folder(best), records[best]["outcome"]["primary"])
    return Answer(best, records[best], full, records, complete, checkpoint(store, best), interval)


def sure_runs(expansion: Expansion, store: Store) -> tuple[list[str], list[str]]:
    """Return the runs that no budget leaves out, the full model and what is recorded, and those that it may.

    The others stand in the order in which they are tried without a budget: small cuts first.
    """
    sure, todo = [], []
    for digest, job in expansion.jobs.items():
        known = readable_record(store.folder(digest) / "record.json") is not None
        (sure if known or not job.plan.dropped else todo).append(digest)
    return sure, sorted(todo, key=lambda digest: expansion.jobs[digest].plan.count)
