"""The one writer of files: a reader sees the old file or the whole new one.

`replace_json` and `replace_text` raise what the disk says. `write_json` and `write_text` are for a file that somebody
named as an output, and say so in a line.
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from depthprune.errors import OutputError


def check_file(path: Path) -> None:
    """Check that a file can be written, before anything is computed for it.

    Raises:
        OutputError: if it cannot; the message says what to do instead.
    """
    if path.is_dir():
        raise OutputError(f"the output '{path}' is a folder; name a file, such as {path / 'result.json'}")
    parent = path.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"there is no folder '{path.parent}' for the output; create it first")
    if not os.access(parent, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise OutputError(f"the output '{path}' cannot be written; choose another")


def write_json(path: Path, value: Any) -> None:
    """Write JSON into a file that was named as an output.

    Raises:
        OutputError: if the file cannot be written.
    """
    write_text(path, _json(value))


def write_text(path: Path, text: str) -> None:
    """Write text into a file that was named as an output.

    Raises:
        OutputError: if the file cannot be written.
    """
    try:
        replace_text(path, text)
    except OSError as error:
        raise OutputError(f"the output '{path}' cannot be written ({error.strerror}); choose another") from None


def replace_json(path: Path, value: Any, *, compact: bool = False) -> None:
    """Write JSON into a file.

    Args:
        compact: in one line, without spaces.

    Raises:
        OSError: a full disk, for example; an old file is as it was.
    """
    replace_text(path, _json(value, compact=compact))


def replace_text(path: Path, text: str) -> None:
    """Write text into a file.

    Raises:
        OSError: a full disk, for example; an old file is as it was.
    """
    with _written_beside(path, text) as partial:
        os.replace(partial, path)


def write_once(path: Path, value: Any) -> None:
    """Write JSON unless the file is there: of several processes that try at once, the first one's stays."""
    with _written_beside(path, _json(value)) as partial:
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP):
                raise
            os.replace(partial, path)  # a disk without hard links


@contextmanager
def _written_beside(path: Path, text: str) -> Iterator[Path]:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        yield partial
    finally:
        with suppress(OSError):  # fails too on a read-only disk
            partial.unlink(missing_ok=True)


def _json(value: Any, *, compact: bool = False) -> str:
    how: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 2}
    return json.dumps(value, ensure_ascii=False, **how) + "\n"
