"""Carry out the runs of a sweep through an executor. No torch until a run starts.

Runs are leased one by one, so several processes and machines can work on one store at once: start the same sweep on
each.
"""

import json
import time
import traceback
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from depthprune.errors import UserError
from depthprune.experiments.memory import check_memory, training_bytes
from depthprune.experiments.specification import stack_depth, teacher_run
from depthprune.experiments.store.kept_checkpoints import checkpoint, release
from depthprune.experiments.store.leases import DEAD_AFTER, BusyError, Watch, is_held, leased
from depthprune.experiments.store.store import Store, disk_is_full
from depthprune.experiments.sweeps.executors.base import Outcome, Resources
from depthprune.experiments.sweeps.executors.base import registry as executors
from depthprune.experiments.sweeps.executors.local import at_a_time, gpus_of_a_run
from depthprune.experiments.sweeps.expansion import Expansion, Job
from depthprune.healing.execution.reporting import check_reporters
from depthprune.healing.recipe import resolve
from depthprune.plan import LayerPlan
from depthprune.result_file import replace_json
from depthprune.sources import ModelSource, locate
from depthprune.specs import Execution, HealSpec, run_spec_of
from depthprune.tasks import TaskData, load_task

DONE, FAILED, BUSY = "done", "failed", "busy"


@dataclass(frozen=True)
class Work:
    """An item for an executor: a job, and how to do it.

    Args:
        save: keep the checkpoint of a run that is executed now.
        redo: run a recorded run again if its checkpoint was not kept.
        profile: measure latencies.
        teaches: keep the checkpoint for the runs that it teaches.
        execution: how trainings are carried out.
    """

    job: Job
    store: str
    device: str
    retry_failed: bool = False
    save: bool = False
    redo: bool = False
    profile: bool = True
    teaches: bool = False
    execution: Execution = field(default_factory=Execution)


_watch = Watch()
_data: dict[Any, TaskData] = {}
_sources: dict[tuple[str, str], ModelSource] = {}  # models and teachers, by their place and stamps


def do(work: Work) -> tuple[str, str, str]:
    """Carry out one run in a worker: claim it, run it, record it.

    Returns:
        Its digest; `done`, `failed` or `busy` (another worker has it); and a line about a failure.
    """
    job, store = work.job, Store(work.store)
    digest = job.spec.digest()
    folder = store.folder(digest)
    if (known := _known(store, work)) is not None:
        return known
    if (folder / "failure.json").exists() and not work.retry_failed:
        return digest, FAILED, failure_line(folder)
    if not work.retry_failed and (line := _failed_teacher(store, job)) is not None:
        return digest, FAILED, line
    try:
        return _run(work, store, digest)
    except BusyError:
        return digest, BUSY, ""
    except Exception as error:  # the one place that records a failed run
        if disk_is_full(error):
            raise  # there is no room to record it, and the next run would fail the same way
        said = str(error) if isinstance(error, UserError) else traceback.format_exc()
    with leased(folder, _watch) as ours:
        if not ours:
            return digest, BUSY, ""  # another worker has it now and may succeed
        replace_json(folder / "failure.json", {"spec": job.spec.to_dict(), "traceback": said})
    return digest, FAILED, failure_line(folder)


def _known(store: Store, work: Work) -> tuple[str, str, str] | None:
    """Return the store's record of a run; a file that is broken or of another run is left alone and does not count."""
    digest = work.job.spec.digest()
    try:
        record = store.record(digest)
        if record is None or ((work.redo or work.teaches) and checkpoint(store, digest) is None):
            return None
        other = run_spec_of(record["spec"]).digest()
    except UserError as error:
        return digest, FAILED, str(error)
    except (KeyError, TypeError, ValueError, AttributeError):
        other = "something else"
    if other != digest:
        return digest, FAILED, f"'{store.folder(digest) / 'record.json'}' is the record of {other}; move it away"
    return digest, DONE, ""


def _failed_teacher(store: Store, job: Job) -> str | None:
    """Return what to say where the run that teaches this one has failed; else None."""
    full = teacher_run(job.spec)
    folder = store.folder(full.digest()) if full is not None else None
    if folder is None or not (folder / "failure.json").is_file() or (folder / "record.json").is_file():
        return None
    return f"the run of the full model that teaches it, {folder.name}, failed: {failure_line(folder)}"


def _run(work: Work, store: Store, digest: str) -> tuple[str, str, str]:
    from depthprune.devices import resolve_device
    from depthprune.experiments.run import run
    from depthprune.experiments.transfer_set import with_unlabelled
    from depthprune.quiet import quiet_libraries

    quiet_libraries()
    job = work.job
    source, teacher = _located(job, job.model, job.spec.model, job.stamps[0]), None
    if job.teacher:
        teacher = _located(job, job.teacher, job.spec.heal.teacher, job.stamps[1])
    key = (job.spec.evaluation.task, job.options, job.unlabelled)
    if key not in _data:
        data = load_task(job.spec.evaluation.task, job.options)
        _data[key] = with_unlabelled(data, HealSpec(unlabelled=job.unlabelled))[0]
    _check_unchanged(job, source, teacher, _data[key])
    how: dict[str, Any] = {
        "store": store,
        "device": resolve_device(work.device),
        "profile": work.profile,
        "teacher": teacher,
    }
    how |= {"execution": work.execution}
    run(source, _data[key], job.spec, **how, save=work.save, teaches=work.teaches, wait=False)
    return digest, DONE, ""


def _located(job: Job, model: str, identity: str, stamps: str) -> ModelSource:
    """Return a model, whose files are not hashed while they are as they were planned, and else once for all runs."""
    source = locate(model, allow_pickle=job.allow_pickle, trust_remote_code=job.trust_remote_code)
    source.recognise(identity, stamps)
    return _sources.setdefault((model, source.stamps), source)


def _check_unchanged(job: Job, source: ModelSource, teacher: ModelSource | None, data: TaskData) -> None:
    """Check that the model and data of a run are still those that the sweep was planned with.

    Raises:
        UserError: if the model or the data has changed.
    """
    changed = [f"the model '{job.model}'"] if source.identity != job.spec.model else []
    changed += [f"the teacher '{job.teacher}'"] if teacher and teacher.identity != job.spec.heal.teacher else []
    if data.fingerprint != job.spec.evaluation.data:
        where = f" in '{job.options.dataset}'" if job.options.dataset else ""
        changed.append(f"the rows of the task '{data.task.name}'{where}")
    if data.unlabelled is not None and data.unlabelled.fingerprints != job.spec.heal.unlabelled:
        changed.append(f"the unlabelled rows of {', '.join(map(repr, job.unlabelled))}")
    if changed:
        raise UserError(
            f"{' and '.join(changed)} changed after the sweep was planned; put back what was there, or start the sweep "
            "again, which gives the runs of what is there now names of their own"
        )


def failure_line(folder: Path) -> str:
    """Return the last line of a run's failure."""
    try:
        lines = json.loads((folder / "failure.json").read_text(encoding="utf-8"))["traceback"].strip().splitlines()
    except (OSError, ValueError, KeyError, AttributeError):
        return "failed"
    return lines[-1] if lines else "failed"


def run_jobs(
    expansion: Expansion,
    store: Store,
    *,
    executor: str = "local",
    resources: Resources | None = None,
    device: str = "auto",
    retry_failed: bool = False,
    save: bool = False,
    redo: bool = False,
    profile: bool = True,
    execution: Execution = Execution(),
    pause: float = 2.0,
    dead_after: float = DEAD_AFTER,
) -> Generator[tuple[str, str, str], None, None]:
    """Carry out the runs of a sweep; yields (digest, `done` or `failed`, a line about a failure) as they end.

    A full model that teaches other runs is trained once: its checkpoint is kept until the last of them is done, and
    then removed unless somebody asked for it.

    Runs of another worker are waited for, and taken over if it dies. Callers that may be interrupted have to close the
    generator (`contextlib.closing`), which ends the workers.

    Args:
        resources: shared by the runs; by default all of this machine, with a GPU per run if there are any.
        save: keep the checkpoints of the runs that are executed now.
        redo: run recorded runs again whose checkpoints were not kept.
        profile: measure the latencies of the runs that are executed now.
        execution: how the trainings of the runs that are executed now are carried out.
        dead_after: seconds without a heartbeat after which another machine's worker is dead.
    """
    run_all = executors.get(executor)
    check_reporters(execution.report_to)
    resources = resources or Resources(gpus=gpus_of_a_run(device))
    how = (str(store.root), device, retry_failed, save, redo, profile)
    works = {digest: Work(job, *how, execution=execution) for digest, job in expansion.jobs.items()}
    states = {digest: _known(store, work) for digest, work in works.items()}
    taught = _taught(expansion)
    for digest in set(taught) & set(works):
        if any(states[run] is None for run in taught[digest]):
            works[digest] = replace(works[digest], teaches=True)
            states[digest] = _known(store, works[digest])
    asked, before = list(works.values()), list(states.values())
    yield from (known for known in before if known is not None)
    waiting = [work for work, known in zip(asked, before, strict=True) if known is None]
    watch, held = Watch(dead_after), list[Work]()
    if executor == "local" and not resources.gpus:
        check_jobs_memory([work.job for work in waiting], at_a_time(resources))
    while waiting:
        busy = held
        for outcome in run_all(do, waiting, resources):
            digest, state, line = states[digest] = _state(outcome)
            if state == BUSY:
                busy.append(outcome.item)
            else:
                yield digest, state, line
        waiting = []
        while busy and not waiting:  # watched here: worker processes do not live long enough to notice a dead owner
            time.sleep(pause)
            waiting = [work for work in busy if not is_held(store.folder(work.job.spec.digest()), watch)]
        held = [work for work in busy if work not in waiting]
    done = {digest for digest, known in states.items() if known is not None and known[1] == DONE}
    release(store, (digest for digest, runs in taught.items() if done.issuperset(runs)))


def check_jobs_memory(jobs: Sequence[Job], at_once: int, *, available: int | None = None) -> None:
    """Refuse runs of which so many cannot fit into this machine's memory together.

    Args:
        at_once: how many run in parallel.
        available: bytes; what is free now if None.

    Raises:
        UserError: the largest of them need more.
    """
    if available is None and at_once == 1:
        return  # each run checks itself
    needed = []
    for job in jobs:
        source = locate(job.model, allow_pickle=job.allow_pickle, trust_remote_code=job.trust_remote_code)
        teacher = locate(job.teacher) if job.teacher else None
        plan = LayerPlan(stack_depth(source), job.spec.drop.dropped)
        needed.append(training_bytes(source, plan, resolve(job.spec.heal), teacher) or 0)
    largest = sorted(needed)[-at_once:]
    check_memory(sum(largest), "cpu", runs=len(largest), available=available)


def _taught(expansion: Expansion) -> dict[str, list[str]]:
    """Return the runs of the full model that teach others of a sweep, each with the runs that it teaches."""
    found: dict[str, list[str]] = {}
    for digest, job in expansion.jobs.items():
        full = teacher_run(job.spec)
        if full is not None:
            found.setdefault(full.digest(), []).append(digest)
    return found


def _state(outcome: Outcome) -> tuple[str, str, str]:
    if outcome.lost is None:
        return outcome.result
    return outcome.item.job.spec.digest(), FAILED, outcome.lost
