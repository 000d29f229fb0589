"""Temporary folders; those of killed commands are removed by the next one. No torch.

Each has a file that is locked while the folder is in use; the system releases the lock when the process ends in any
way.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from depthprune.output import LOCK, lock_file

PREFIX, UNFINISHED = "depthprune-", ".new"


@contextmanager
def scratch_folder(purpose: str, *, within: Path | None = None) -> Iterator[Path]:
    """Yield a temporary folder, which is removed at the end; those that killed commands left beside it are removed
    first.

    Args:
        purpose: a word in its name.
        within: parent folder; the system's temporary folder if None.
    """
    parent = within or Path(tempfile.gettempdir())
    sweep_up(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-", suffix=UNFINISHED, dir=parent))
    try:
        number = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
        try:
            if lock_file(number):  # without locks it could not be recognised as in use, so it keeps another name
                folder = folder.rename(folder.with_suffix(""))
            yield folder
        finally:
            os.close(number)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_up(parent: Path) -> None:
    """Remove the temporary folders of commands that were killed, and nothing else."""
    for folder in parent.glob(f"{PREFIX}*"):
        if folder.suffix == UNFINISHED or folder.is_symlink():
            continue
        try:
            number = os.open(folder / LOCK, os.O_RDWR)
        except OSError:  # of another user or another program
            continue
        try:
            if lock_file(number):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(number)
