"""Output folders: checked before the work begins, written completely or not at all. No torch.

A folder is written as `TARGET.partial` next to its target and renamed when it is complete and on disk. While it is
written, `TARGET.partial` has a file `.depthprune.lock`, locked by the command that writes. This distinguishes three
cases if such a folder exists: locked, another command is writing, and this one is refused; unlocked, the command was
killed, and its remains are removed; no such file, the folder is not from depthprune and is never touched (an empty one
may be used). The file is removed after the rename, so that a `TARGET.partial` with our content always has it.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from depthprune.errors import OutputError, UserError

HEADROOM = 1.02  # headers, configuration and tokenizer beside the tensors
LOCK = ".depthprune.lock"

PROBLEMS = {
    errno.ENOSPC: "no space left for '{}'; free some or choose another --output",
    errno.EDQUOT: "no space left for '{}' in the quota of this disk; free some or choose another --output",
    errno.EFBIG: "a file of '{}' is larger than its disk or 'ulimit -f' allows; choose another --output",
    errno.EACCES: "the output '{}' cannot be written (permission denied); choose another",
    errno.EPERM: "the output '{}' cannot be written (not permitted); choose another",
    errno.EROFS: "the output '{}' cannot be written (its disk is read-only); choose another",
    errno.ENAMETOOLONG: "the output '{}' cannot be created (the name is too long); choose a shorter one",
    errno.ENOENT: "what was written of '{}' was removed in the meantime; run the command again",
    errno.EIO: "the output '{}' cannot be written (disk error); choose another",
    errno.ESTALE: "the output '{}' cannot be written (its disk was removed); choose another",
}


def check_target(target: Path) -> None:
    """Check that a target does not exist or is empty, and can be written.

    A symbolic link is followed: the folder is created where it points.

    Raises:
        OutputError: if it cannot; the message says what to do instead.
    """
    place = _place(target)
    if place == Path.cwd():
        raise OutputError(f"the output '{target}' is the current folder; name one inside it")
    if os.path.ismount(place):
        raise OutputError(f"the output '{target}' is the root of a disk; name a folder inside it")
    try:
        taken = os.path.lexists(place) and (not place.is_dir() or any(place.iterdir()))
    except OSError as error:
        raise OutputError(f"the output '{target}' cannot be read ({error.strerror}); choose another") from None
    if taken:
        raise OutputError(f"the output '{target}' exists and is not an empty folder; choose another or remove it")
    parent = nearest_folder(place)
    if not parent.is_dir():
        raise OutputError(f"the output '{target}' cannot be created: '{parent}' is not a folder; choose another")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"the output '{target}' cannot be created: '{parent}' cannot be written; choose another")


def check_outside(target: Path, source: Path) -> None:
    """Check that a target is not inside the source's folder.

    Raises:
        OutputError: if it does; the message says what to do instead.
    """
    if _place(target).is_relative_to(_place(source)):
        raise OutputError(f"the output '{target}' is inside the model's own folder '{source}'; choose another")


def check_space(target: Path, num_bytes: int) -> None:
    """Check that the target's disk has room for `num_bytes`.

    Raises:
        OutputError: if there is not enough; the message has both numbers.
    """
    free = shutil.disk_usage(nearest_folder(_place(target))).free
    if free < num_bytes * HEADROOM:
        raise OutputError(
            f"no space left for '{target}': the checkpoint takes {num_bytes / 1e6:.0f} MB and {free / 1e6:.0f} MB "
            "are free; free some or choose another --output"
        )


def nearest_folder(path: Path) -> Path:
    """Return the nearest ancestor of `path` that exists."""
    return next(parent for parent in path.absolute().parents if os.path.exists(parent))


@contextmanager
def whole_folder(target: Path, *, num_bytes: int = 0) -> Iterator[Path]:
    """Yield a folder `TARGET.partial` to write to, which is renamed to `target` on success and removed on failure.

    Args:
        target: a folder that does not exist or is empty.
        num_bytes: how much will be written; checked after the remains of a killed command are removed.

    Raises:
        OutputError: if the target exists already, cannot be created, or the disk is full.
    """
    check_target(target)
    place = _place(target)
    partial = place.with_name(place.name + ".partial")
    made = [parent for parent in partial.parents if not parent.exists()]  # the innermost first
    try:
        with _claimed(partial, target):
            check_space(target, num_bytes)
            with _kept(partial, target):
                yield partial
                sync_folder(partial)
                _rename(partial, place, target)
            with suppress(OSError):  # the folder is complete, with or without the file
                (place / LOCK).unlink()
        for folder in {place.parent, *(new.parent for new in made)}:
            sync_file(folder)
    except BaseException as error:
        for folder in made:
            with suppress(OSError):  # another process put something there
                folder.rmdir()
        if (number := _system_error(error, partial)) in PROBLEMS:
            raise OutputError(PROBLEMS[number].format(target)) from None
        raise


def sync_folder(folder: Path) -> None:
    """Flush the files of a folder to disk (fsync).

    Without it, a power failure after the rename could leave a folder with the final name and files of zeros.
    """
    for where, _, names in os.walk(folder, topdown=False):
        for name in (*names, "."):
            sync_file(Path(where) / name)


def copy_checkpoint(source: Path, target: Path) -> Path:
    """Copy a checkpoint's folder to `target`, completely or not at all.

    Raises:
        OutputError: see `whole_folder`.
    """
    check_outside(target, source)
    size = sum(file.stat().st_size for file in source.rglob("*") if file.is_file())
    with whole_folder(target, num_bytes=size) as partial:
        shutil.copytree(source, partial, dirs_exist_ok=True)
    return target


def _place(path: Path) -> Path:
    """Return a path with symbolic links resolved. Unlike `Path.resolve`, `realpath` does not fail on circular links."""
    return Path(os.path.realpath(path))


@contextmanager
def _kept(partial: Path, target: Path) -> Iterator[None]:
    """Turn errors that happen because the folder was removed into one that says so.

    Raises:
        OutputError: if the folder was removed.
    """
    try:
        yield
    except BaseException as error:
        by_system = isinstance(error, UserError | OSError) or _system_error(error, partial) is not None
        if by_system and not partial.is_dir():
            raise OutputError(PROBLEMS[errno.ENOENT].format(target)) from None
        raise


@contextmanager
def _claimed(partial: Path, target: Path) -> Iterator[None]:
    """Lock `partial` for this command and empty it, while the context lasts; on an error it is removed.

    Raises:
        OutputError: if another command is writing it, or it existed before and was not created by depthprune.
    """
    try:
        partial.mkdir(parents=True)
        fresh = True
    except FileExistsError:
        fresh = False
        folder = partial.is_dir() and not partial.is_symlink()
        if not folder or (any(partial.iterdir()) and not (partial / LOCK).exists()):
            raise OutputError(
                f"'{partial}' is in the way: the output is written there first, and depthprune did not leave it; "
                "rename it or choose another --output"
            ) from None
    except OSError as error:  # such as /proc, where nothing can be created
        known = PROBLEMS[error.errno].format(target) if error.errno in PROBLEMS and error.errno != errno.ENOENT else ""
        raise OutputError(
            known or f"the output '{target}' cannot be created ({error.strerror}); choose another"
        ) from None
    with ExitStack() as lock:
        try:
            number = os.open(partial / LOCK, os.O_RDWR | os.O_CREAT)
            lock.callback(os.close, number)
            locked = lock_file(number)
            # The other command may have ended between the two calls, and removed or renamed its folder.
            current = os.path.samestat(os.fstat(number), os.stat(partial / LOCK))
        except FileNotFoundError:
            raise _busy(partial, target) from None
        if not current or locked is False or (locked is None and not fresh):
            raise _busy(partial, target)
        if locked is None:
            lock.close()
        _empty(partial)
        try:
            yield
        except BaseException:
            with suppress(OSError):  # the remains are recognised by their lock file and removed by the next command
                _empty(partial)
                (partial / LOCK).unlink()
                partial.rmdir()
            raise


def _busy(partial: Path, target: Path) -> OutputError:
    return OutputError(
        f"another command is writing '{target}' now; wait for it or choose another --output (if none is, remove "
        f"'{partial}')"
    )


def lock_file(file: int) -> bool | None:
    """Lock an open file while it is open; returns False if another command has it, None without support for locks."""
    try:
        import fcntl  # not on Windows

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # some network disks have no locks
        return None
    return True


def _empty(partial: Path) -> None:
    """Remove the contents of a folder except its lock: while it is held, no other command writes there."""
    for entry in list(os.scandir(partial)):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif entry.name != LOCK:
            os.unlink(entry.path)


def _rename(partial: Path, place: Path, target: Path) -> None:
    try:
        partial.replace(place)  # an empty folder of that name is replaced
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise OutputError(
            f"the output '{target}' was created by another process in the meantime; choose another --output"
        ) from None


def sync_file(path: Path) -> None:
    """Flush a file or a folder to disk."""
    if os.name != "posix":  # Windows cannot open folders, and flushes only files that are open for writing
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # no fsync, as for folders on some network disks
            raise
    finally:
        os.close(number)


def _system_error(error: BaseException, partial: Path) -> int | None:
    """Return the errno of a system error about writing `partial`, or None.

    An error about a file elsewhere, such as an unreadable source, does not count.
    """
    if not isinstance(error, OSError):
        # safetensors raises its own error type with only the text
        found = re.search(r"\(os error (\d+)\)", str(error))
        return int(found[1]) if found else None
    named = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    here = [path for path in named if path.is_relative_to(partial) or partial.is_relative_to(path)]
    return error.errno if here or not named else None
