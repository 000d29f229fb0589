"""What a store and its caches hold that can go: records never, and nothing of a run that somebody is doing. No torch.

Checkpoints go but for the best of each model and task; what runs left that were killed; and measurements that the next
run takes again. Tokenised rows are the caches of all stores.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from depthprune.experiments.store.kept_checkpoints import MOVED_FILE, TEACHES_FILE
from depthprune.experiments.store.leases import Watch, lease_files, running
from depthprune.experiments.store.predictions import FILE as PREDICTIONS_FILE
from depthprune.experiments.store.records import measured
from depthprune.experiments.store.store import LOGS, MEASURED, TRAINING, Store, readable_record
from depthprune.experiments.sweeps.status import OTHER_FOLDERS

OURS = {
    "spec.json",
    PREDICTIONS_FILE,
    MOVED_FILE,
    TEACHES_FILE,
    TRAINING,
    "model",
}  # besides leases and unfinished files
CHECKPOINT, LEFTOVER, CACHE = "checkpoint", "left by a run that was killed", "cache"


@dataclass(frozen=True)
class Item:
    """Something that can go.

    Args:
        path: a file or a folder.
        kind: `checkpoint`, `cache`, or what a run left that was killed.
        num_bytes: that it takes.
    """

    path: Path
    kind: str
    num_bytes: int


def removable(store: Store, *, everything: bool = False, caches: tuple[Path, ...] = ()) -> list[Item]:
    """Return what can go, and touch nothing.

    Args:
        everything: the best checkpoints, too.
        caches: folders outside the store whose files can go.
    """
    best = set() if everything else best_checkpoints(store)
    found = []
    watch = Watch()
    for folder in sorted(store.root.iterdir()) if store.root.is_dir() else ():
        if not folder.is_dir() or folder.is_symlink() or folder.name in OTHER_FOLDERS:
            continue
        if running(folder) is None or watch.is_dead(folder):
            found += list(_of_run(folder, keep=folder.name in best))
    files = sorted((store.root / MEASURED).glob("speed-*.json"))
    files += [file for cache in caches if cache.is_dir() for file in sorted(cache.iterdir()) if file.is_file()]
    return [*found, *(_item(file, CACHE) for file in files)]


def best_checkpoints(store: Store) -> set[str]:
    """Return the pruned runs with a checkpoint in the store that score best, one for each model, task and metric."""
    best: dict[tuple[str, str, str], tuple[float, str]] = {}
    for folder in sorted(store.root.iterdir()) if store.root.is_dir() else ():
        record = readable_record(folder / "record.json") if (folder / "model").is_dir() else None
        if record is not None and record["spec"]["drop"]["dropped"]:
            key = (record["spec"]["model"], record["spec"]["evaluation"]["task"], record["outcome"]["primary"])
            best[key] = max(best.get(key, (float("-inf"), "")), (measured(record).merit, folder.name))
    return {name for _, name in best.values()}


def remove(items: list[Item]) -> None:
    """Remove things; what is gone already is no fault."""
    for item in items:
        if item.path.is_dir():
            shutil.rmtree(item.path, ignore_errors=True)
        else:
            item.path.unlink(missing_ok=True)


def _of_run(folder: Path, *, keep: bool) -> Iterator[Item]:
    """Yield the files of a run without a lease that can be removed."""
    names = {entry.name for entry in folder.iterdir()}
    if not names & {"record.json", "failure.json"}:
        if names and names <= OURS | lease_files(folder) | {
            name for name in names if _is_partial(name) or _is_log(name)
        }:
            yield _item(folder, LEFTOVER)
        return  # anything else is not ours
    for name in sorted(names):
        if _is_partial(name) or name == TRAINING or name in lease_files(folder):
            yield _item(folder / name, LEFTOVER)
    if "model" in names and not keep:
        yield _item(folder / "model", CHECKPOINT)


def _is_log(name: str) -> bool:
    return name == LOGS or name.startswith(f"{LOGS}-")


def _is_partial(name: str) -> bool:
    return name.endswith((".partial", ".dead"))


def _item(path: Path, kind: str) -> Item:
    files = path.rglob("*") if path.is_dir() else [path]
    return Item(path, kind, sum(file.stat().st_size for file in files if file.is_file()))
