"""Temporary folders that outlive no command by long: what a killed one left, the next one removes. No torch.

Each holds a file that is locked for as long as the folder is in use; the system lets go of the lock with the process,
however that ends.
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
    """Give a temporary folder, which goes in the end; those that killed commands left beside it go first.

    Args:
        purpose: a word for its name.
        within: where to make it; where temporary files go, if None.
    """
    parent = within or Path(tempfile.gettempdir())
    sweep_up(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-", suffix=UNFINISHED, dir=parent))
    try:
        number = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
        try:
            if lock_file(number):  # without locks nobody could tell that it is in use, and it keeps the other name
                folder = folder.rename(folder.with_suffix(""))
            yield folder
        finally:
            os.close(number)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_up(parent: Path) -> None:
    """Remove the temporary folders of commands that were killed; whatever else lies there is left alone."""
    for folder in parent.glob(f"{PREFIX}*"):
        if folder.suffix == UNFINISHED or folder.is_symlink():
            continue
        try:
            number = os.open(folder / LOCK, os.O_RDWR)
        except OSError:  # another user's, or not from here
            continue
        try:
            if lock_file(number):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(number)
