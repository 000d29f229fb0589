"""Folders that the user asked for: checked before the work, written whole or not at all. No torch."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from depthprune.errors import OutputError

HEADROOM = 1.02  # headers, configuration and tokenizer beside the tensors


def check_target(target: Path) -> None:
    """Refuse a target that holds something, or a place where nothing can be written.

    Raises:
        OutputError: with what to do instead.
    """
    if target.resolve() == Path.cwd():
        raise OutputError(f"the output '{target}' is the current folder; name one inside it")
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise OutputError(f"the output '{target}' exists and is not an empty folder; choose another or remove it")
    parent = nearest_folder(target)
    if not parent.is_dir():
        raise OutputError(f"the output '{target}' cannot be made: '{parent}' is not a folder; choose another")


def check_space(target: Path, num_bytes: int) -> None:
    """Refuse a target on a disk without room for `num_bytes`.

    Raises:
        OutputError: with both figures.
    """
    free = shutil.disk_usage(nearest_folder(target)).free
    if free < num_bytes * HEADROOM:
        raise OutputError(
            f"no space left for '{target}': the checkpoint takes {num_bytes / 1e6:.0f} MB and {free / 1e6:.0f} MB "
            "are free; free some or choose another --output"
        )


def nearest_folder(path: Path) -> Path:
    """Return the nearest ancestor of `path` that exists."""
    return next(parent for parent in path.absolute().parents if parent.exists())


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give a folder `TARGET.partial` to write to, which becomes `target` if all goes well and vanishes if not.

    Raises:
        OutputError: the target is taken, cannot be made, or the disk is full.
    """
    check_target(target)
    target = target.resolve()
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an earlier run that was killed
    made = [parent for parent in partial.parents if not parent.exists()]
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.replace(target)  # an empty folder of that name is replaced
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in made:  # the innermost first
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        # safetensors reports a full disk as an error of its own that carries only the text
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise OutputError(f"no space left for '{target}'; free some or choose another --output") from None
        if isinstance(error, PermissionError):
            raise OutputError(f"the output '{target}' cannot be written (permission denied); choose another") from None
        raise


def copy_checkpoint(source: Path, target: Path) -> Path:
    """Copy a checkpoint's folder to `target`, whole or not at all.

    Raises:
        OutputError: see `whole_folder`.
    """
    check_space(target, sum(file.stat().st_size for file in source.rglob("*") if file.is_file()))
    with whole_folder(target) as partial:
        shutil.copytree(source, partial, dirs_exist_ok=True)
    return target
