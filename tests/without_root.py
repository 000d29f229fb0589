"""A folder that is used without the privileges of root, who may read and write everything."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def folder_without_root() -> Iterator[Path]:
    """Give an empty folder; until the context ends, a process of root has no more rights than its owner."""
    folder = Path(tempfile.mkdtemp(prefix="depthprune-tests-"))  # pytest's own are closed to other users
    root = os.geteuid() == 0
    if root:
        os.chown(folder, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield folder
    finally:
        if root:
            os.setresuid(0, 0, 0)
        subprocess.run(["chmod", "-R", "u+rwx", folder], check=True)
        shutil.rmtree(folder)
