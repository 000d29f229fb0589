"""Leases on runs: a file with a heartbeat, so that no two workers execute the same run, and a dead worker's run is
taken over.

A lease is `runs/<digest>/claim.json`, created with O_EXCL, which network file systems support. Every few seconds its
owner increments a counter in it and writes the progress of the run. Other workers watch the counter with their own
monotonic clock: if it does not change for a minute, the owner is dead, whatever the wall clocks say. On the owner's own
machine it is enough to check its process.

A worker that takes over a dead owner's lease keeps that file and creates the next one, `claim.1.json`, `claim.2.json`,
…, with O_EXCL too, so that only one of several gets the run. The one with the highest number is valid. A release
removes the lower ones first and the owner's own file last. No torch.
"""

import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from depthprune.errors import OutputError, UserError
from depthprune.healing.execution.progress import counted
from depthprune.result_file import replace_json

LEASE_FILE = "claim.json"
HEARTBEAT = 5.0  # seconds
DEAD_AFTER = 60.0  # seconds without a heartbeat


class BusyError(UserError):
    """Another worker is executing this run."""


class Watch:
    """The heartbeats of other workers' leases that a worker has seen, by its own clock."""

    def __init__(self, dead_after: float = DEAD_AFTER):
        self._dead_after = dead_after
        self._seen: dict[str, tuple[Any, float]] = {}

    def is_dead(self, folder: Path) -> bool:
        """Return whether the owner of the lease in a run's folder is dead."""
        content = running(folder)
        if content is None:
            return False
        if content.get("host") == socket.gethostname() and not _alive(content):
            return True
        beat = (content.get("owner"), content.get("beat"))
        now = time.monotonic()
        last, since = self._seen.get(str(folder), (None, now))
        if beat != last:
            self._seen[str(folder)] = (beat, now)
            return False
        return now - since > self._dead_after

    def takes(self, folder: Path, owner: str) -> Path | None:
        """Create a lease on a run for `owner`; returns its file, or None if a living worker has the run."""
        before = _leases(folder)
        if before and not self.is_dead(folder):
            return None
        number = max(before, default=-1) + 1
        file = _file(folder, number)
        if not _create(file, _content(owner, 0, {})):
            return None
        # The folder may have changed since it was read: another worker took the dead lease over, finished the run and
        # left, and a third one began. The one that created its file later sees the other's, and gives up.
        expected = {(n, content.get("owner")) for n, content in before.items()} | {(number, owner)}
        if {(n, content.get("owner")) for n, content in _leases(folder).items()} <= expected:
            return file
        file.unlink(missing_ok=True)
        return None


@contextmanager
def leased(
    folder: Path, watch: Watch, *, heartbeat: float = HEARTBEAT, progress: Mapping[str, Any] | None = None
) -> Iterator[bool]:
    """Hold a lease on a run while the context lasts.

    Args:
        folder: of the run; created if missing, and removed again if nothing was written into it.
        watch: decides whether another lease is that of a dead worker, which is then taken over.
        progress: `stage`, `done` and `total`, written with each heartbeat.

    Yields:
        Whether we have the lease.

    Raises:
        OutputError: if the folder cannot be written.
    """
    owner, made = uuid.uuid4().hex, [at for at in (folder, *folder.parents) if not at.exists()]  # the innermost first
    try:
        file = _take(folder, watch, owner)
    except OSError as error:
        raise unwritable(folder.parent, error) from None
    if file is None:
        yield False
        return
    stop = threading.Event()
    beating = threading.Thread(
        target=_beat, args=(file, owner, stop, heartbeat, {} if progress is None else progress), daemon=True
    )
    beating.start()
    try:
        yield True
    finally:
        stop.set()
        beating.join()
        _release(file, owner)
        with suppress(OSError):  # not empty
            for empty in made:
                empty.rmdir()


def running(folder: Path) -> dict[str, Any] | None:
    """Return the lease on a run, or None if there is none."""
    found = _leases(folder)
    return found[max(found)] if found else None


def lease_files(folder: Path) -> set[str]:
    """Return the names of the leases in a run's folder."""
    return {_file(folder, number).name for number in _leases(folder)}


def unwritable(store: Path, error: OSError) -> OutputError:
    """Return the error for a store that cannot be written."""
    return OutputError(f"the store '{store}' cannot be written ({error.strerror}); choose another --store")


def is_held(folder: Path, watch: Watch) -> bool:
    """Return whether a living worker has a run; the lease of a dead worker is removed."""
    if running(folder) is None:
        return False
    with leased(folder, watch) as ours:
        return not ours


def owner_line(lease: Mapping[str, Any]) -> str:
    """Describe the owner of a lease."""
    host = lease.get("host")
    where = "" if host == socket.gethostname() else f" of '{host}'"
    return f"process {lease.get('pid', '?')}{where}"


def progress_line(lease: Mapping[str, Any]) -> str:
    """Describe the progress of the run of a lease; empty if its owner has not written it yet.

    >>> progress_line({"stage": "training · loss 0.53", "done": 30, "total": 120})
    'training 30/120, loss 0.53'
    """
    if not {"stage", "done", "total"} <= set(lease):
        return ""
    return counted(str(lease["stage"]), lease["done"], lease["total"])


def _content(owner: str, beat: int, progress: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **progress,
        "owner": owner,
        "beat": beat,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "start": _started(os.getpid()),
    }


def _file(folder: Path, number: int) -> Path:
    return folder / (f"claim.{number}.json" if number else LEASE_FILE)


def _leases(folder: Path) -> dict[int, dict[str, Any]]:
    """Return the leases in a folder by number; the highest is valid."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    numbers = (int(match[1] or 0) for name in names if (match := re.fullmatch(r"claim(?:\.(\d+))?\.json", name)))
    found = ((number, _read(_file(folder, number))) for number in numbers)
    return {number: content for number, content in found if content is not None}


def _take(folder: Path, watch: Watch, owner: str) -> Path | None:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # an interrupted worker removed the folder
            return watch.takes(folder, owner)


def _release(file: Path, owner: str) -> None:
    if (_read(file) or {}).get("owner") != owner:
        return
    for number in sorted(_leases(file.parent)):
        lower = _file(file.parent, number)
        if lower == file:
            break
        lower.unlink(missing_ok=True)
    file.unlink(missing_ok=True)


def _create(file: Path, content: dict[str, Any]) -> bool:
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(number, "w", encoding="utf-8") as opened:
        json.dump(content, opened)
    return True


def _beat(file: Path, owner: str, stop: threading.Event, heartbeat: float, progress: Mapping[str, Any]) -> None:
    beat = 0
    while not stop.wait(heartbeat):
        beat += 1
        if (running(file.parent) or {}).get("owner") != owner:
            return  # taken over by a worker that believed us dead; both will write the same record
        with suppress(OSError):  # a full disk is reported when the record is written
            replace_json(file, _content(owner, beat, dict(progress)), compact=True)


def _read(file: Path) -> dict[str, Any] | None:
    """Return a lease; one that is being written counts as one without a heartbeat."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _alive(content: dict[str, Any]) -> bool:
    """Return whether the process of a lease is alive on this machine; a reused process id is another process."""
    pid = content.get("pid")
    if not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return content.get("start") in (None, _started(pid))


def _started(pid: int) -> str | None:
    """Return the start time of a process, from the kernel; None if unknown or if the process has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        if fields[0] == "Z":  # a zombie
            return None
        return f"{fields[19]} {Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()}"
    except (OSError, IndexError):
        return None
