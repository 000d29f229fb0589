"""Claims on runs: a file that its owner touches, so that nobody else does the same run, and a dead owner's is taken up.

A claim is `runs/<digest>/claim.json`, made with O_EXCL, which shared folders honour. Its owner rewrites a counter in it
every few seconds. Who wants the run watches that counter by a clock of its own: it does not move for a minute and the
owner is dead, whatever any wall clock says. On the owner's own machine a look at its process is enough. No torch.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from depthprune.errors import OutputError

CLAIM_FILE = "claim.json"
HEARTBEAT = 5.0  # seconds
DEAD_AFTER = 60.0  # seconds without one


class Watch:
    """What a worker has seen of other workers' claims, by its own clock."""

    def __init__(self, dead_after: float = DEAD_AFTER):
        self._dead_after = dead_after
        self._seen: dict[str, tuple[Any, float]] = {}

    def is_dead(self, folder: Path) -> bool:
        """Tell whether the claim in a run's folder has no living owner."""
        content = _read(folder / CLAIM_FILE)
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


@contextmanager
def claimed(folder: Path, watch: Watch, *, heartbeat: float = HEARTBEAT) -> Iterator[bool]:
    """Claim a run for as long as the context lasts.

    Args:
        folder: of the run; made where it is missing.
        watch: decides whether another's claim is that of a dead worker, which is then taken up.

    Yields:
        Whether the run is ours.

    Raises:
        OutputError: the folder cannot be written.
    """
    file, owner = folder / CLAIM_FILE, uuid.uuid4().hex
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if watch.is_dead(folder):
            _put_aside(file)
        ours = _create(file, _content(owner, 0))
    except OSError as error:
        raise OutputError(f"the run '{folder}' cannot be claimed ({error.strerror}); look at the store") from None
    if not ours:
        yield False
        return
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(file, owner, stop, heartbeat), daemon=True)
    beating.start()
    try:
        yield True
    finally:
        stop.set()
        beating.join()
        if (_read(file) or {}).get("owner") == owner:
            file.unlink(missing_ok=True)


def running(folder: Path) -> dict[str, Any] | None:
    """Return the claim on a run, or None where nobody has one."""
    return _read(folder / CLAIM_FILE)


def is_held(folder: Path, watch: Watch) -> bool:
    """Tell whether somebody alive has a run; the claim of a dead worker is taken away."""
    if watch.is_dead(folder):
        _put_aside(folder / CLAIM_FILE)
    return running(folder) is not None


def _content(owner: str, beat: int) -> dict[str, Any]:
    return {
        "owner": owner,
        "beat": beat,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "start": _started(os.getpid()),
    }


def _create(file: Path, content: dict[str, Any]) -> bool:
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(number, "w", encoding="utf-8") as opened:
        json.dump(content, opened)
    return True


def _put_aside(file: Path) -> None:
    """Take a dead claim away; of several workers who try, the rename lets one."""
    aside = file.with_name(f"{CLAIM_FILE}.{uuid.uuid4().hex}.dead")
    try:
        os.rename(file, aside)
    except FileNotFoundError:
        return
    aside.unlink(missing_ok=True)


def _beat(file: Path, owner: str, stop: threading.Event, heartbeat: float) -> None:
    beat = 0
    while not stop.wait(heartbeat):
        beat += 1
        if (_read(file) or {}).get("owner") != owner:
            return  # taken up by somebody who thought us dead; both will write the same record
        partial = file.with_name(f"{CLAIM_FILE}.{owner}.partial")
        try:
            partial.write_text(json.dumps(_content(owner, beat)), encoding="utf-8")
            os.replace(partial, file)
        except OSError:
            partial.unlink(missing_ok=True)  # a full disk is reported by what writes the record


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
    """Return when a process was started, in the kernel's own count; None where that cannot be told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return f"{fields[19]} {Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()}"
    except (OSError, IndexError):
        return None
