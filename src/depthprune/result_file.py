"""Write a single result file, so that a reader sees the old one or the whole new one."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from depthprune.errors import OutputError


def check_file(path: Path) -> None:
    """Refuse a file that cannot be written, before anything is computed for it.

    Raises:
        OutputError: with what to do instead.
    """
    if path.is_dir():
        raise OutputError(f"the output '{path}' is a folder; name a file, such as {path / 'result.json'}")
    parent = path.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"there is no folder '{path.parent}' for the output; make it first")
    if not os.access(parent, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise OutputError(f"the output '{path}' cannot be written; choose another")


def write_json(path: Path, value: Any) -> None:
    """Write JSON into a file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text into a file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):  # of a disk that is read-only, this fails as well
            partial.unlink(missing_ok=True)
        raise OutputError(f"the output '{path}' cannot be written ({error.strerror}); choose another") from None
