"""A sweep as one function: `depthprune.sweep`. No torch until a run starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthprune.arguments import checked
from depthprune.experiments.store import DEFAULT_STORE, Store, readable_record
from depthprune.experiments.sweeps.choices import stored_scorer
from depthprune.experiments.sweeps.executors.base import Resources
from depthprune.experiments.sweeps.executors.local import gpus
from depthprune.experiments.sweeps.expansion import Row, expand
from depthprune.experiments.sweeps.grid import parse_sweep, read_sweep
from depthprune.experiments.sweeps.rows import remember
from depthprune.experiments.sweeps.runner import DONE, carry_out
from depthprune.quiet import no_progress, quietly


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to.

    Args:
        rows: every cell of the grid, and the digest of the run that answers it.
        records: digest → record, of the runs that are done.
        failed: digest → why, of the others.
        skipped: cells that are impossible, with the reason.
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
    spec: str | Path | Mapping[str, Any],
    *,
    store: Path | str = DEFAULT_STORE,
    executor: str = "local",
    workers: int | None = None,
    cpus: int | None = None,
    address: str | None = None,
    device: str = "auto",
    retry_failed: bool = False,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: Callable[[str, int, int], None] = no_progress,
    on_end: Callable[[str, str, str], None] = no_news,
) -> SweepResult:
    """Run a grid: models × strategies × counts × tasks × seeds. This is `depthprune.sweep`.

    Runs that the store has are not run again. They run in processes of their own, so a script calls this under
    `if __name__ == "__main__":`.

    Args:
        spec: a YAML file, or its entries: `{"models": …, "tasks": …, "strategies": …, "counts": …}`.
        store: the folder of runs.
        executor: `local` or `ray`.
        workers: runs at a time; by cores or GPUs by default.
        cpus: threads of a run.
        address: of a Ray cluster.
        device: `auto`, `cpu` or `cuda`.
        retry_failed: try runs again that failed before.
        on_progress: called with a stage's name and how far it is, while layers are scored and searched.
        on_end: called with the digest of a run that ended, `done` or `failed`, and a line about a failure.

    Raises:
        UserError: anything a user can cause, in one line; a run that fails stands in `.failed` instead.
    """
    grid = parse_sweep(spec) if isinstance(spec, Mapping) else read_sweep(Path(spec))
    runs = Store(store)
    runs.check_writable()
    scorer = stored_scorer(runs.root, device, take=True, on_progress=on_progress)
    expansion = expand(grid, scorer, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    remember(expansion, runs)
    resources = Resources(workers, cpus, 1 if device != "cpu" and gpus() else 0, address)
    records, failed = {}, {}
    how: dict[str, Any] = {"executor": executor, "resources": resources, "device": device, "retry_failed": retry_failed}
    for digest, state, line in carry_out(expansion, runs, **how):
        on_end(digest, state, line)
        record = readable_record(runs.folder(digest) / "record.json") if state == DONE else None
        if record is None:
            failed[digest] = line
        else:
            records[digest] = record
    return SweepResult(tuple(expansion.rows), records, failed, tuple(expansion.skipped))
