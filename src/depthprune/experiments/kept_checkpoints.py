"""Where the checkpoints of a store's runs are: in the store, or where the user had them put. No torch.

    runs/<digest>/model/        in the store
    runs/<digest>/moved.json    where a checkpoint was moved to, and what its weights were then: names, sizes, times

A checkpoint that was moved is that of the run for as long as nobody has changed its weights.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from depthprune.experiments.store import Store, write_json
from depthprune.output import copy_checkpoint

MOVED_FILE = "moved.json"


def checkpoint(store: Store, digest: str) -> Path | None:
    """Return the folder with the checkpoint of a run, or None where there is none."""
    folder = store.model_folder(digest)
    if folder.is_dir():
        return folder
    try:
        moved = json.loads((store.folder(digest) / MOVED_FILE).read_text(encoding="utf-8"))
        target = Path(moved["to"])
        return target if moved["weights"] == _weights(target) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def hand_over(store: Store, digest: str, target: Path) -> Path:
    """Move the checkpoint of a run out of the store, or copy it from where it was moved before.

    Raises:
        OutputError: the target is taken or cannot be written; nothing is moved.
    """
    source = checkpoint(store, digest)
    assert source is not None, "a run that was to be saved has a checkpoint"
    copy_checkpoint(source, target)
    if source == store.model_folder(digest):
        place = target.absolute()
        write_json(store.folder(digest) / MOVED_FILE, {"to": str(place), "weights": _weights(place)})
        shutil.rmtree(source)
    return target


def _weights(folder: Path) -> list[list[Any]]:
    """Return what tells whether somebody has changed the weights of a checkpoint."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(folder)
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
