"""The store of runs: plain files, one folder a run, readable in ten years.

    runs/<digest>/claim.json     while somebody is doing the run; see claims.py
    runs/<digest>/spec.json      written when the run is claimed
    runs/<digest>/record.json    written last, with os.replace: the run is done exactly if it exists
    runs/<digest>/failure.json   in its place where the run failed
    runs/<digest>/model/         the checkpoint, where one was asked for

No torch.
"""

import errno
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from depthprune.errors import UserError
from depthprune.experiments.leases import BusyError, Watch, claim_files, claimed, owner_line, running, unwritable
from depthprune.result_file import replace_json
from depthprune.specs import RunSpec

DEFAULT_STORE = Path("runs")
MEASURED = "measured"  # folder in a store: see `experiments.measured`


class Store:
    """A folder of runs."""

    def __init__(self, root: Path | str = DEFAULT_STORE):
        self.root = Path(root)

    def folder(self, digest: str) -> Path:
        """Return the folder of the run `digest`, whether it exists or not."""
        return self.root / digest

    def model_folder(self, digest: str) -> Path:
        """Return where the checkpoint of the run `digest` lies, if it was saved."""
        return self.folder(digest) / "model"

    def check_writable(self) -> None:
        """Refuse a store that cannot be written, before anything is done for it.

        Raises:
            OutputError: it cannot.
        """
        place = next(at for at in (self.root.absolute(), *self.root.absolute().parents) if at.exists())
        if not place.is_dir():
            raise unwritable(self.root, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
        if not os.access(place, os.W_OK | os.X_OK):
            raise unwritable(self.root, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))

    def record(self, digest: str) -> dict[str, Any] | None:
        """Return the record of a run that is done, else None.

        Raises:
            UserError: there is a file in its place that is no record.
        """
        file = self.folder(digest) / "record.json"
        if not file.is_file():
            return None
        record, problem = _read_record(file)
        if record is None:
            raise UserError(f"'{file}' is no record of a run ({problem}); remove its folder to run it again")
        return record

    @contextmanager
    def claim(
        self,
        spec: RunSpec,
        *,
        on_wait: Callable[[str], None] | None = None,
        progress: Mapping[str, Any] | None = None,
        pause: float = 1.0,
    ) -> Iterator[Path]:
        """Claim a run, and make its folder, for as long as it runs.

        An interrupt and a full disk leave the store as it was; an error leaves `failure.json`, with its traceback. A
        record from an earlier time stays until the new one replaces it. What the user caused (`UserError`) is no
        failed run.

        Args:
            on_wait: called again and again with who has the run, until it is free.
            progress: `stage`, `done` and `total`, which the claim shows as they are at each heartbeat.
            pause: seconds between two looks at another's claim.

        Raises:
            BusyError: somebody else is doing this run, and `on_wait` is None.
            OutputError: the store cannot be written.
        """
        folder, watch = self.folder(spec.digest()), Watch()
        while True:
            with claimed(folder, watch, progress=progress) as ours:
                if ours:
                    with self._begun(spec, folder):
                        yield folder
            if ours:
                return
            who = owner_line(running(folder) or {})
            if on_wait is None:
                raise BusyError(f"{who} is doing the run {spec.digest()}; wait until it is done")
            on_wait(who)
            time.sleep(pause)

    @contextmanager
    def _begun(self, spec: RunSpec, folder: Path) -> Iterator[None]:
        for left in folder.glob("*.partial"):  # by whoever was killed while it wrote: the run is ours now
            _remove(left)
        before = set(os.listdir(folder))  # looked at under the claim: nobody else adds anything
        try:
            replace_json(folder / "spec.json", spec.to_dict())
        except OSError as error:
            raise unwritable(self.root, error) from None
        try:
            yield
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, UserError) and not disk_is_full(error):
                replace_json(folder / "failure.json", {"spec": spec.to_dict(), "traceback": traceback.format_exc()})
            elif before <= claim_files(folder):
                for entry in set(os.listdir(folder)) - claim_files(folder):
                    _remove(folder / entry)  # the claim's end removes the folder, if it has made it
            raise

    def finish(self, digest: str, record: dict[str, Any]) -> None:
        """Write the record of a run, which makes it done."""
        folder = self.folder(digest)
        replace_json(folder / "record.json", record)
        (folder / "failure.json").unlink(missing_ok=True)


def readable_record(file: Path) -> dict[str, Any] | None:
    """Return the record of a run that is done, or None where the file is none: absent, broken or something else."""
    return _read_record(file)[0]


def _read_record(file: Path) -> tuple[dict[str, Any] | None, str]:
    """Return what every reader of a record counts on, or None and what is wrong with the file.

    This alone decides what counts as done, for runs, sweeps, `status` and reports.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        outcome, spec = record["outcome"], record["spec"]
        float(outcome["metrics"][outcome["primary"]]["value"])
        _ = spec["model"], spec["evaluation"]["task"], spec["seed"], spec["heal"], list(spec["drop"]["dropped"])
        _ = outcome["plan"]["depth"], outcome["profile"]["parameters"], outcome["seconds"]
    except KeyError as error:
        return None, f"it has no {error}"
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error}"
    except (OSError, ValueError, TypeError, IndexError) as error:
        return None, str(error)
    return record, ""


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def disk_is_full(error: BaseException) -> bool:
    """Tell whether this is what a full disk says, which is no fault of the run."""
    return isinstance(error, OSError) and error.errno == errno.ENOSPC
