"""Folders that the user asked for: checked before the work, written whole or not at all. No torch.

A folder is written as `TARGET.partial` beside its place and renamed when it is whole and on the disk. While it is
written, `TARGET.partial` holds a file `.depthprune.lock`, locked by the command that writes. That tells the three
cases apart in which such a folder is found: locked, another command is at work, and this one is refused; unlocked,
the command was killed, and what it left is removed; no such file, somebody else's folder, which is never touched (an
empty one may be used). The file goes after the rename, not before: at no moment is there a `TARGET.partial` with
content of ours and without the file.
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
    errno.ENAMETOOLONG: "the output '{}' cannot be made (the name is too long); choose a shorter one",
    errno.ENOENT: "what was written of '{}' was removed meanwhile; run the command again",
    errno.EIO: "the output '{}' cannot be written (its disk fails); choose another",
    errno.ESTALE: "the output '{}' cannot be written (its disk is gone); choose another",
}


def check_target(target: Path) -> None:
    """Refuse a target that holds something, or a place where nothing can be written.

    A link is followed: the folder is made where it points.

    Raises:
        OutputError: with what to do instead.
    """
    place = _place(target)
    if place == Path.cwd():
        raise OutputError(f"the output '{target}' is the current folder; name one inside it")
    if os.path.ismount(place):
        raise OutputError(f"the output '{target}' is the top of a disk; name a folder inside it")
    try:
        taken = os.path.lexists(place) and (not place.is_dir() or any(place.iterdir()))
    except OSError as error:
        raise OutputError(f"the output '{target}' cannot be read ({error.strerror}); choose another") from None
    if taken:
        raise OutputError(f"the output '{target}' exists and is not an empty folder; choose another or remove it")
    parent = nearest_folder(place)
    if not parent.is_dir():
        raise OutputError(f"the output '{target}' cannot be made: '{parent}' is not a folder; choose another")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"the output '{target}' cannot be made: '{parent}' cannot be written; choose another")


def check_outside(target: Path, source: Path) -> None:
    """Refuse a target inside the folder of the model it is made from.

    Raises:
        OutputError: with what to do instead.
    """
    if _place(target).is_relative_to(_place(source)):
        raise OutputError(f"the output '{target}' lies inside the model's own folder '{source}'; choose another")


def check_space(target: Path, num_bytes: int) -> None:
    """Refuse a target on a disk without room for `num_bytes`.

    Raises:
        OutputError: with both figures.
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
    """Give a folder `TARGET.partial` to write to, which becomes `target` if all goes well and vanishes if not.

    Args:
        target: a folder that does not exist or is empty.
        num_bytes: how much will be written; asked of the disk once what a killed command left is out of the way.

    Raises:
        OutputError: the target is taken, cannot be made, or the disk is full.
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
            with suppress(OSError):  # the folder is whole, with or without the file
                (place / LOCK).unlink()
        for folder in {place.parent, *(new.parent for new in made)}:
            sync_file(folder)
    except BaseException as error:
        for folder in made:
            with suppress(OSError):  # somebody else put something there
                folder.rmdir()
        if (number := _system_error(error, partial)) in PROBLEMS:
            raise OutputError(PROBLEMS[number].format(target)) from None
        raise


def sync_folder(folder: Path) -> None:
    """Wait until the files of a folder are on the disk, not only with the system that will write them.

    Renaming first would give, after a power cut, a folder of the final name with files of zeros.
    """
    for where, _, names in os.walk(folder, topdown=False):
        for name in (*names, "."):
            sync_file(Path(where) / name)


def copy_checkpoint(source: Path, target: Path) -> Path:
    """Copy a checkpoint's folder to `target`, whole or not at all.

    Raises:
        OutputError: see `whole_folder`.
    """
    check_outside(target, source)
    size = sum(file.stat().st_size for file in source.rglob("*") if file.is_file())
    with whole_folder(target, num_bytes=size) as partial:
        shutil.copytree(source, partial, dirs_exist_ok=True)
    return target


def _place(path: Path) -> Path:
    """Return where a path leads. Unlike `Path.resolve`, `realpath` does not fail over links that run in a circle."""
    return Path(os.path.realpath(path))


@contextmanager
def _kept(partial: Path, target: Path) -> Iterator[None]:
    """Say of whatever fails since somebody removed the folder that this is why.

    Raises:
        OutputError: instead.
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
    """Make `partial` this command's own, and empty, for as long as the context lasts; an error removes it.

    Raises:
        OutputError: another command is writing it, or it was there before and is not ours.
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
    except OSError as error:  # such as a tree that the system makes up, in which nothing can be made
        known = PROBLEMS[error.errno].format(target) if error.errno in PROBLEMS and error.errno != errno.ENOENT else ""
        raise OutputError(known or f"the output '{target}' cannot be made ({error.strerror}); choose another") from None
    with ExitStack() as lock:
        try:
            number = os.open(partial / LOCK, os.O_RDWR | os.O_CREAT)
            lock.callback(os.close, number)
            locked = lock_file(number)
            # The other command may have ended between the two, and its folder, lock included, is gone or renamed.
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
            with suppress(OSError):  # what is left is known by its lock, and removed by the next command
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
    """Lock an open file for as long as it is open; False where another command has it, None where nothing can be."""
    try:
        import fcntl  # not on Windows

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # some network disks have no locks
        return None
    return True


def _empty(partial: Path) -> None:
    """Remove what a folder holds, its lock aside: while that is held, nobody else writes there."""
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
            f"the output '{target}' was made by somebody else meanwhile; choose another --output"
        ) from None


def sync_file(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    if os.name != "posix":  # Windows opens no folders, and flushes only what is open for writing
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # what has no fsync: folders on some shared disks
            raise
    finally:
        os.close(number)


def _system_error(error: BaseException, partial: Path) -> int | None:
    """Return the number of a system error that has to do with writing `partial`, or None.

    One that names a file elsewhere, such as an unreadable source, is not the output's.
    """
    if not isinstance(error, OSError):
        # safetensors reports one as an error of its own that carries only the text
        found = re.search(r"\(os error (\d+)\)", str(error))
        return int(found[1]) if found else None
    named = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    here = [path for path in named if path.is_relative_to(partial) or partial.is_relative_to(path)]
    return error.errno if here or not named else None
