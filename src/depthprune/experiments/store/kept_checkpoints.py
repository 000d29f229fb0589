"""Where the checkpoints of a store's runs are: in the store, or moved to the user's --output. No torch.

    runs/<digest>/model/        in the store
    runs/<digest>/moved.json    where a checkpoint was moved to, and the names, sizes and times of its weights
    runs/<digest>/teaches.json  beside a checkpoint that is there only for the runs that it teaches

A moved checkpoint counts as that of the run as long as its weights are unchanged.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from depthprune.experiments.specification import teacher_run
from depthprune.experiments.store.leases import Watch, running
from depthprune.experiments.store.store import Store
from depthprune.output import copy_checkpoint
from depthprune.result_file import replace_json
from depthprune.specs import run_spec_of

MOVED_FILE = "moved.json"
TEACHES_FILE = "teaches.json"


def checkpoint(store: Store, digest: str) -> Path | None:
    """Return the folder with the checkpoint of a run, or None if there is none."""
    folder = store.model_folder(digest)
    return folder if folder.is_dir() else moved_to(store, digest)


def moved_to(store: Store, digest: str) -> Path | None:
    """Return the folder outside the store that has the checkpoint of a run; None where there is none, or it changed."""
    try:
        moved = json.loads((store.folder(digest) / MOVED_FILE).read_text(encoding="utf-8"))
        target = Path(moved["to"])
        return target if moved["weights"] == _weights(target) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def hand_over(store: Store, digest: str, target: Path, *, stays: bool = False) -> Path:
    """Move the checkpoint of a run out of the store, or copy it if it was moved before.

    Args:
        stays: keep it in the store, too.

    Raises:
        OutputError: if the target exists already or cannot be written; nothing is moved.
    """
    source = checkpoint(store, digest)
    assert source is not None, "a run that was to be saved has a checkpoint"
    copy_checkpoint(source, target)
    if source == store.model_folder(digest):
        place = target.absolute()
        replace_json(store.folder(digest) / MOVED_FILE, {"to": str(place), "weights": _weights(place)})
        if not stays:
            shutil.rmtree(source)
    return target


def keep_for_teaching(folder: Path) -> None:
    """Note in a run's folder that its checkpoint is there only for the runs that it teaches."""
    replace_json(folder / TEACHES_FILE, {})


def keep(folder: Path) -> None:
    """Keep the checkpoint in a run's folder whatever else needs it: somebody asked for it."""
    (folder / TEACHES_FILE).unlink(missing_ok=True)


def release(store: Store, digests: Iterable[str]) -> None:
    """Remove those checkpoints of runs that were kept only for teaching, and that no run in progress needs."""
    kept = [digest for digest in digests if (store.folder(digest) / TEACHES_FILE).is_file()]
    needed = _teaching_now(store) if kept else set()
    for digest in kept:
        if digest not in needed:
            shutil.rmtree(store.model_folder(digest), ignore_errors=True)
            keep(store.folder(digest))


def _teaching_now(store: Store) -> set[str]:
    """Return the full models' runs that teach the runs in progress."""
    watch, found = Watch(), set()
    for folder in store.root.iterdir():
        if not folder.is_dir() or running(folder) is None or watch.is_dead(folder):
            continue
        try:
            spec = run_spec_of(json.loads((folder / "spec.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # it has not begun, or is none of ours
        full = teacher_run(spec)
        found |= {full.digest()} if full is not None else set()
    return found


def _weights(folder: Path) -> list[list[Any]]:
    """Return the names, sizes and times of a checkpoint's weights, by which changes are noticed."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(folder)
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
