"""The store of runs: plain files, one folder per run, readable in ten years.

    runs/<digest>/claim.json     while a worker has the lease on the run; see leases.py
    runs/<digest>/spec.json      written when the lease is taken
    runs/<digest>/record.json    written last, with os.replace: the run is done if and only if it exists
    runs/<digest>/failure.json   instead, if the run failed
    runs/<digest>/training/      the state of a training that lasts, from which it is resumed; see healing.execution
    runs/<digest>/model/         the checkpoint, if one was asked for
    runs/<digest>/logs/          what TensorBoard shows of the training, if that was asked for

No torch.
"""

import errno
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from depthprune.errors import UserError
from depthprune.evaluation.measurement import primary_of
from depthprune.experiments.store.leases import BusyError, Watch, lease_files, leased, owner_line, running, unwritable
from depthprune.result_file import replace_json
from depthprune.specs import RunSpec

DEFAULT_STORE = Path("runs")
SAVED = {"spec.json", "training"}  # what an interrupted run leaves
LOGS = "logs"  # folder in a run's; those of a recipe's later trainings have a number, too
TRAINING = "training"  # folder in a run's
MEASURED = "measured"  # folder in a store: see `experiments.measured`


class Store:
    """A folder of runs."""

    def __init__(self, root: Path | str = DEFAULT_STORE):
        self.root = Path(root)

    def folder(self, digest: str) -> Path:
        """Return the folder of the run `digest`, whether it exists or not."""
        return self.root / digest

    def model_folder(self, digest: str) -> Path:
        """Return the folder for the checkpoint of the run `digest`."""
        return self.folder(digest) / "model"

    def check_writable(self) -> None:
        """Check that the store can be written, before the work begins.

        Raises:
            OutputError: if it cannot.
        """
        place = next(at for at in (self.root.absolute(), *self.root.absolute().parents) if at.exists())
        if not place.is_dir():
            raise unwritable(self.root, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
        if not os.access(place, os.W_OK | os.X_OK):
            raise unwritable(self.root, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))

    def record(self, digest: str) -> dict[str, Any] | None:
        """Return the record of a run if it is done, else None.

        Raises:
            UserError: if the file is not a record.
        """
        file = self.folder(digest) / "record.json"
        if not file.is_file():
            return None
        record, problem = _read_record(file)
        if record is None:
            raise UserError(f"'{file}' is not the record of a run ({problem}); remove its folder to run it again")
        return record

    @contextmanager
    def lease(
        self,
        spec: RunSpec,
        *,
        on_wait: Callable[[str], None] | None = None,
        progress: Mapping[str, Any] | None = None,
        pause: float = 1.0,
    ) -> Iterator[Path]:
        """Take the lease on a run, and create its folder, while the context lasts.

        An interrupt or a full disk leaves the store unchanged, but for the saved state of a training, which an
        interrupt leaves; an error leaves `failure.json` with its traceback. An earlier record is kept until the new one
        replaces it. A `UserError` does not count as a failed run.

        Args:
            on_wait: called repeatedly with the owner of the lease, until the run is free.
            progress: `stage`, `done` and `total`, written to the lease at each heartbeat.
            pause: seconds between two checks of another worker's lease.

        Raises:
            BusyError: if another worker has the lease, and `on_wait` is None.
            OutputError: if the store cannot be written.
        """
        folder, watch = self.folder(spec.digest()), Watch()
        while True:
            with _not_left_empty(folder), leased(folder, watch, progress=progress) as ours:
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
        for left in folder.glob("*.partial"):  # of a worker that was killed while it wrote
            _remove(left)
        before = set(os.listdir(folder))  # read under the lease: no other worker adds files
        try:
            replace_json(folder / "spec.json", spec.to_dict())
        except OSError as error:
            raise unwritable(self.root, error) from None
        try:
            yield
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, UserError) and not disk_is_full(error):
                replace_json(folder / "failure.json", {"spec": spec.to_dict(), "traceback": traceback.format_exc()})
            elif before <= lease_files(folder) | SAVED:
                kept = SAVED if _is_saved(folder) and not isinstance(error, Exception) else set[str]()
                for entry in set(os.listdir(folder)) - lease_files(folder) - kept:
                    _remove(folder / entry)  # the end of the lease removes the folder, if it was created for it
            raise

    def finish(self, digest: str, record: dict[str, Any]) -> None:
        """Write the record of a run, which makes it done, and remove the state of its training."""
        folder = self.folder(digest)
        done_with = folder / f"{TRAINING}.partial"  # beside a record it could be taken for that of another attempt
        if (folder / TRAINING).is_dir():
            (folder / TRAINING).rename(done_with)
        replace_json(folder / "record.json", record)
        (folder / "failure.json").unlink(missing_ok=True)
        _remove(done_with)


@contextmanager
def _not_left_empty(folder: Path) -> Iterator[None]:
    """Remove the folder of a run that ends with an error and leaves nothing, where an earlier attempt had made it."""
    with ExitStack() as on_error:
        on_error.callback(_remove_if_empty, folder)
        yield
        on_error.pop_all()


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # not empty, or gone
        folder.rmdir()


def _is_saved(folder: Path) -> bool:
    """Tell whether a run's folder has the state of a training, whole or not."""
    return any((folder / TRAINING).glob("*/*"))


def readable_record(file: Path) -> dict[str, Any] | None:
    """Return the record in a file, or None if the file is missing, broken or something else."""
    return _read_record(file)[0]


def _read_record(file: Path) -> tuple[dict[str, Any] | None, str]:
    """Return a record with all entries that its readers need, or None and what is wrong with the file.

    This decides which runs count as done, for runs, sweeps, `status` and reports.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        outcome, spec = record["outcome"], record["spec"]
        primary_of(outcome)
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
    """Return whether an error means that the disk is full, which is not a failure of the run."""
    return isinstance(error, OSError) and error.errno == errno.ENOSPC
