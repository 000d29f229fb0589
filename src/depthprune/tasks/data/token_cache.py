"""A cache of tokenised rows beside the cache of `datasets`, keyed by content.

A file's name is the hash of rows, task, tokenizer and length, so that it is never out of date. The least recently used
files are removed when the cache exceeds a gigabyte.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

LARGEST = 10**9  # bytes, of all files


def token_folder() -> Path:
    """Return the folder of the cache."""
    from datasets import config

    return Path(config.HF_DATASETS_CACHE) / "depthprune-tokens"


def kept(name: str, make: Callable[[str | None], "Dataset"], *, largest: int = LARGEST) -> "Dataset":
    """Return the rows that are cached under a name, or compute and cache them.

    Args:
        make: called with the file to write to, or None if nothing can be cached.
        largest: maximum bytes of all files; those that were used last are kept.
    """
    from datasets import Dataset

    folder = token_folder()
    file = folder / f"{name}.arrow"
    with suppress(OSError, ValueError):  # missing or truncated: pyarrow's errors are ValueErrors
        rows = Dataset.from_file(str(file))
        os.utime(file)
        return rows
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
        file.unlink(missing_ok=True)
    except OSError:
        writable = False
    rows = make(str(file) if writable else None)
    if writable:
        _bound(folder, largest, file)
    return rows


def _bound(folder: Path, largest: int, newest: Path) -> None:
    """Remove the least recently used files until the rest is small enough."""
    with suppress(OSError):  # another process cleans up too
        files = sorted(folder.glob("*.arrow"), key=lambda file: file.stat().st_mtime)
        total = sum(file.stat().st_size for file in files)
        for file in files:
            if total <= largest or file == newest:
                break
            total -= file.stat().st_size
            file.unlink(missing_ok=True)
