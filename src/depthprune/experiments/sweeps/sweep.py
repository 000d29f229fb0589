"""A sweep: `depthprune.sweep`, and its two steps, planning and running. No torch until a run starts."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from depthprune.arguments import checked
from depthprune.experiments.store.store import DEFAULT_STORE, Store, readable_record
from depthprune.experiments.sweeps.choices import stored_scorer
from depthprune.experiments.sweeps.executors import local
from depthprune.experiments.sweeps.executors.base import Resources
from depthprune.experiments.sweeps.expansion import Expansion, Row, combined, expand
from depthprune.experiments.sweeps.grid import SweepSpec, parse_sweep, read_sweep
from depthprune.experiments.sweeps.rows import remember
from depthprune.experiments.sweeps.runner import DONE, run_jobs
from depthprune.quiet import no_progress, quietly
from depthprune.sources import locate
from depthprune.specs import Execution
from depthprune.tasks import load_task


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to.

    Args:
        rows: every cell of the grid, and the digest of the run that answers it.
        records: digest → record, of the runs that are done.
        failed: digest → why, of the others.
        skipped: impossible cells, with the reason.
    """

    rows: tuple[Row, ...]
    records: dict[str, dict[str, Any]]
    failed: dict[str, str]
    skipped: tuple[str, ...]


def no_news(digest: str, state: str, line: str) -> None:
    """Say nothing of a run that has ended: what `on_end` does where nothing else is given."""


@checked("sweep")
@quietly()
def sweep(
    spec: str | Path | Mapping[str, Any] | Sequence[str | Path | Mapping[str, Any]],
    *,
    store: Path | str = DEFAULT_STORE,
    executor: str = "local",
    workers: int | None = None,
    cpus: int | None = None,
    address: str | None = None,
    gpus: float | None = None,
    device: str = "auto",
    retry_failed: bool = False,
    profile: bool = True,
    execution: Execution = Execution(),
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: Callable[[str, int, int], None] = no_progress,
    on_end: Callable[[str, str, str], None] = no_news,
) -> SweepResult:
    """Run a grid: models × strategies × counts × tasks × seeds. This is `depthprune.sweep`.

    Runs that the store has are not run again. They run in processes of their own, so a script calls this under
    `if __name__ == "__main__":`.

    Args:
        spec: a YAML file, or its entries: `{"models": …, "tasks": …, "strategies": …, "counts": …}`; or several,
            whose runs are carried out in this order, by the same workers.
        store: the folder of runs.
        executor: `local` or `ray`.
        workers: number of parallel runs; by cores or GPUs by default.
        cpus: threads of a run.
        address: of a Ray cluster.
        gpus: of a run, a fraction where several share one; one where there are any by default.
        device: `auto`, `cpu` or `cuda`.
        retry_failed: try runs again that failed before.
        profile: measure how fast the models are.
        execution: gradient checkpointing, and where losses are reported to.
        on_progress: called with a stage's name and how far it is, while layers are scored and searched.
        on_end: called with the digest of a run that ended, `done` or `failed`, and a line about a failure.

    Raises:
        UserError: for anything that the user can fix; a run that fails is in `.failed` instead.
    """
    specs = [spec] if isinstance(spec, str | Path | Mapping) else spec
    grids = [parse_sweep(each) if isinstance(each, Mapping) else read_sweep(Path(each)) for each in specs]
    runs = Store(store)
    trust = {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
    expansion = plan_sweep(grids, runs, device=device, on_progress=on_progress, **trust)
    resources = Resources(workers, cpus, local.gpus_of_a_run(device) if gpus is None else gpus, address)
    how: dict[str, Any] = {"executor": executor, "resources": resources, "device": device}
    how |= {"execution": execution}
    return run_sweep(expansion, runs, on_end=on_end, retry_failed=retry_failed, profile=profile, **how)


def plan_sweep(
    grids: Sequence[SweepSpec],
    store: Store,
    *,
    device: str,
    dry: bool = False,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: Callable[[str, int, int], None] = no_progress,
) -> Expansion:
    """Return the runs of sweeps, their layers scored and searched for, and note in the store what was asked for.

    Args:
        dry: score and search nothing, and write nothing.

    Raises:
        UserError: if the store cannot be written; see also `expand`.
    """
    if not dry:
        store.check_writable()
    scorer = stored_scorer(store.root, device, take=not dry, on_progress=on_progress)
    how: dict[str, Any] = {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
    how |= {"find": cache(locate), "load": cache(load_task)}  # hashing weights and reading rows takes time
    expansions = [expand(grid, scorer, **how) for grid in grids]
    for expansion in () if dry else expansions:
        remember(expansion, store)
    return combined(expansions)


def run_sweep(
    expansion: Expansion, store: Store, *, on_end: Callable[[str, str, str], None] = no_news, **how: Any
) -> SweepResult:
    """Carry out the runs of a sweep, and return their outcomes. An interrupt ends its workers.

    Args:
        on_end: see `sweep`.
        how: executor, resources and more, as `run_jobs` takes them.
    """
    records, failed = {}, {}
    with closing(run_jobs(expansion, store, **how)) as outcomes:
        for digest, state, line in outcomes:
            on_end(digest, state, line)
            record = readable_record(store.folder(digest) / "record.json") if state == DONE else None
            if record is None:
                failed[digest] = line
            else:
                records[digest] = record
    return SweepResult(tuple(expansion.rows), records, failed, tuple(expansion.skipped))
