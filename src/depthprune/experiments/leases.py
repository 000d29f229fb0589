"""Claims on runs: a file that its owner touches, so that nobody else does the same run, and a dead owner's is taken up.

A claim is `runs/<digest>/claim.json`, made with O_EXCL, which shared folders honour. Its owner rewrites a counter in it
every few seconds, and how far the run is. Who wants the run watches that counter by a clock of its own: it does not
move for a minute and the owner is dead, whatever any wall clock says. On the owner's own machine a look at its process
is enough.

Who takes up a dead owner's claim leaves that file where it is and makes the next one, `claim.1.json`, `claim.2.json`,
…, with O_EXCL too, so that of several who see the same death one gets the run. The one with the highest number holds.
A release removes the holder's own file last and all lower ones before it. No torch.
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
from depthprune.result_file import replace_json

CLAIM_FILE = "claim.json"
HEARTBEAT = 5.0  # seconds
DEAD_AFTER = 60.0  # seconds without one


class BusyError(UserError):
    """Somebody else is doing this run."""


class Watch:
    """What a worker has seen of other workers' claims, by its own clock."""

    def __init__(self, dead_after: float = DEAD_AFTER):
        self._dead_after = dead_after
        self._seen: dict[str, tuple[Any, float]] = {}

    def is_dead(self, folder: Path) -> bool:
        """Tell whether the claim in a run's folder has no living owner."""
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
        """Make the claim of `owner` on a run; returns its file, or None where somebody alive has the run."""
        before = _claims(folder)
        if before and not self.is_dead(folder):
            return None
        number = max(before, default=-1) + 1
        file = _file(folder, number)
        if not _create(file, _content(owner, 0, {})):
            return None
        # The folder may have changed since it was looked at: another took the dead claim up, did the run and was gone
        # again, and a third began. Who of two made a file later sees the other's, and lets go.
        expected = {(n, content.get("owner")) for n, content in before.items()} | {(number, owner)}
        if {(n, content.get("owner")) for n, content in _claims(folder).items()} <= expected:
            return file
        file.unlink(missing_ok=True)
        return None


@contextmanager
def claimed(
    folder: Path, watch: Watch, *, heartbeat: float = HEARTBEAT, progress: Mapping[str, Any] | None = None
) -> Iterator[bool]:
    """Claim a run for as long as the context lasts.

    Args:
        folder: of the run; made where it is missing, and removed again where nothing was written into it.
        watch: decides whether another's claim is that of a dead worker, which is then taken up.
        progress: what each heartbeat says of the run: `stage`, `done` and `total`, as they are at that moment.

    Yields:
        Whether the run is ours.

    Raises:
        OutputError: the folder cannot be written.
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
        with suppress(OSError):  # there is something in it
            for empty in made:
                empty.rmdir()


def running(folder: Path) -> dict[str, Any] | None:
    """Return the claim on a run, or None where nobody has one."""
    found = _claims(folder)
    return found[max(found)] if found else None


def claim_files(folder: Path) -> set[str]:
    """Return the names of the claims in a run's folder."""
    return {_file(folder, number).name for number in _claims(folder)}


def unwritable(store: Path, error: OSError) -> OutputError:
    """Return what to say of a store that cannot be written."""
    return OutputError(f"the store '{store}' cannot be written ({error.strerror}); choose another --store")


def is_held(folder: Path, watch: Watch) -> bool:
    """Tell whether somebody alive has a run; the claim of a dead worker is taken away."""
    if running(folder) is None:
        return False
    with claimed(folder, watch) as ours:
        return not ours


def owner_line(claim: Mapping[str, Any]) -> str:
    """Say who has a claim."""
    host = claim.get("host")
    where = "" if host == socket.gethostname() else f" of '{host}'"
    return f"process {claim.get('pid', '?')}{where}"


def progress_line(claim: Mapping[str, Any]) -> str:
    """Say how far the run of a claim is; nothing where its owner has not said so yet.

    >>> progress_line({"stage": "train", "done": 30, "total": 120})
    'train 30/120'
    """
    return f"{claim['stage']} {claim['done']}/{claim['total']}" if {"stage", "done", "total"} <= set(claim) else ""


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
    return folder / (f"claim.{number}.json" if number else CLAIM_FILE)


def _claims(folder: Path) -> dict[int, dict[str, Any]]:
    """Return the claims in a folder, by their numbers; the highest holds."""
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
        with suppress(FileNotFoundError):  # whoever was interrupted took the folder away
            return watch.takes(folder, owner)


def _release(file: Path, owner: str) -> None:
    if (_read(file) or {}).get("owner") != owner:
        return
    for number in sorted(_claims(file.parent)):
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
            return  # taken up by somebody who thought us dead; both will write the same record
        with suppress(OSError):  # a full disk is reported by what writes the record
            replace_json(file, _content(owner, beat, dict(progress)), compact=True)


def _read(file: Path) -> dict[str, Any] | None:
    """Return a claim; one that is being written counts as one without a heartbeat."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _alive(content: dict[str, Any]) -> bool:
    """Tell whether the process of a claim lives on this machine; a number that was given again is another process."""
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
    """Return when a process was started, in the kernel's own count; None where that cannot be told, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        if fields[0] == "Z":  # it only waits to be counted by its parent
            return None
        return f"{fields[19]} {Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()}"
    except (OSError, IndexError):
        return None
