"""A sweep as it goes: a live view in a terminal, plain lines elsewhere, and what `depthprune status` says.

Progress goes to standard error; the table in the end, and what `status` says, to standard output.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live as RichLive
from rich.table import Table
from rich.text import Text

from depthprune.cli.progress import EVERY, messages
from depthprune.evaluation.measurement import share_shown
from depthprune.experiments.store.leases import owner_line, progress_line, running
from depthprune.experiments.store.records import measured, records
from depthprune.experiments.store.store import Store, readable_record
from depthprune.experiments.sweeps.executors.base import Resources
from depthprune.experiments.sweeps.executors.local import at_a_time
from depthprune.experiments.sweeps.expansion import Expansion
from depthprune.experiments.sweeps.status import Best, best_plans, tally
from depthprune.plan import format_layers

MOST_LINES = 20  # about runs that go on, in a terminal


def duration(seconds: float) -> str:
    """Write a time as people say it.

    >>> duration(90), duration(7300)
    ('1 min 30 s', '2 h 01 min')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"


def expansion_lines(expansion: Expansion, store: Store, seconds: float | None, resources: Resources) -> Iterator[str]:
    """Say how many runs a sweep has, how many share one, what is impossible, and how long it may take."""
    done = sum(_recorded(store, digest) for digest in expansion.jobs)
    yield (
        f"{len(expansion.rows)} cells, {len(expansion.jobs)} runs ({expansion.shared} cells share another's), "
        f"{done} done before"
    )
    if expansion.unscored:
        yield f"{expansion.unscored} cells more once their layers are scored, which takes a pass over each task's data"
    for note in expansion.skipped:
        yield f"skipped: {note}"
    left = len(expansion.jobs) - done
    if left and seconds is not None:
        workers = at_a_time(resources)
        yield f"about {duration(seconds / min(workers, left))} with {workers} at a time, from the records at hand"
    elif left:
        yield "no records yet to tell the time from"


def _recorded(store: Store, digest: str) -> bool:
    return readable_record(store.folder(digest) / "record.json") is not None


class Live:
    """Shows a sweep while it runs, and how far each run is that goes on. Use it as a context.

    Args:
        expansion: the runs.
        store: where they are recorded.
        total: how many of them are to be carried out, if not all.
        every: seconds between two lines about runs that go on, where there is no terminal.
    """

    def __init__(self, expansion: Expansion, store: Store, *, total: int | None = None, every: float = EVERY):
        self._expansion, self._store, self._every = expansion, store, every
        self._total = len(expansion.jobs) if total is None else total
        self._over = threading.Event()
        self._lines = threading.Thread(target=self._now_and_then, daemon=True)
        self._ended: dict[str, tuple[str, str]] = {}
        self._records: dict[str, dict[str, Any]] = {}
        self._known = {digest for digest in expansion.jobs if _recorded(store, digest)}
        self._began, self._news = time.monotonic(), 0
        self._pace = (0.0, self._began)  # seconds a run, and since when that is known
        self._live = RichLive(
            get_renderable=self._view, console=messages, refresh_per_second=1, transient=True, redirect_stdout=False
        )

    def __enter__(self) -> "Live":
        if messages.is_terminal:
            self._live.start()
        else:
            self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        if messages.is_terminal:
            self._live.stop()
        else:
            self._over.set()
            self._lines.join()

    def ended(self, digest: str, state: str, line: str) -> None:
        """Take note of a run that has ended."""
        self._ended[digest] = (state, line)
        record = readable_record(self._store.folder(digest) / "record.json") if state == "done" else None
        if record is not None:
            self._records[digest] = record
        if digest not in self._known:
            self._news += 1
            self._pace = (time.monotonic() - self._began) / self._news, time.monotonic()
        if not messages.is_terminal:
            job = self._expansion.jobs[digest]
            layers = format_layers(job.spec.drop.dropped) or "none"
            what = f"{job.spec.evaluation.task}, dropped {layers}, seed {job.spec.seed}"
            said = line or (f"{record['outcome']['primary']} {measured(record).shown()}" if record else "")
            messages.print(
                f"{len(self._ended)}/{self._total} {digest} {state}: {what}: {said}{self._left()}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    @property
    def done(self) -> int:
        """How many runs are done, those among them that were done before."""
        return sum(state == "done" for state, _ in self._ended.values())

    def _now_and_then(self) -> None:
        """Say how far the runs are that go on."""
        while not self._over.wait(self._every):
            for line in self.going_on():
                messages.print(line, highlight=False, markup=False, soft_wrap=True)

    def going_on(self) -> list[str]:
        """Return a line with the progress of each run under a lease, on this machine or another."""
        lines = []
        for digest, job in self._expansion.jobs.items():
            lease = running(self._store.folder(digest)) if digest not in self._ended else None
            if lease is not None:
                layers = format_layers(job.spec.drop.dropped) or "none"
                lines.append(f"{digest} (dropped {layers}): {progress_line(lease) or 'begins'}")
        return lines

    def _view(self) -> Group:
        return Group(self.table(), *(Text(line) for line in self.going_on()[:MOST_LINES]))

    def table(self) -> Table:
        """Return how far the sweep is, and the best plan so far for each task."""
        done = self.done
        failed = len(self._ended) - done
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")
        left = self._total - done - failed
        table.title = f"{done} done, {len(self.going_on())} running, {failed} failed, {left} left{self._left()}"
        _best_columns(table, list(self._records.values()))
        return table

    def _left(self) -> str:
        rest = self._total - len(self._ended)
        if rest <= 0 or not self._news:
            return ""
        pace, since = self._pace
        return f", {duration(max(pace, pace * rest - (time.monotonic() - since)))} left"


def _best_columns(table: Table, found: list[dict[str, Any]]) -> None:
    table.add_column("task")
    table.add_column("best plan: dropped")
    for heading in ("score", "kept", "params"):
        table.add_column(heading, justify="right")
    for best in best_plans(found):
        table.add_row(
            best.task,
            format_layers(best.record["spec"]["drop"]["dropped"]),
            f"{best.measured.shown(best.spread)}{_seeds(best)}",
            _kept(best),
            f"{best.record['outcome']['profile']['parameters'] / 1e6:.1f}M",
        )


def _seeds(best: Best) -> str:
    return f" ({best.seeds} seeds)" if best.spread is not None else ""


def _kept(best: Best) -> str:
    return "n/a" if best.retention is None else share_shown([best.retention], best.measured.better).replace(" ", "")


def status_lines(store: Store) -> Iterator[Any]:
    """Say how far the sweeps in a store are."""
    found = tally(store)
    yield (
        f"{store.root}: {len(found.done)} done, {len(found.running)} running, {len(found.failed)} failed, "
        f"{len(found.waiting)} not begun"
    )
    for digest in found.running[:MOST_LINES]:
        lease = running(store.folder(digest))
        if lease is not None:  # else it has just ended
            yield f"running: {digest}: {progress_line(lease) or 'begins'} ({owner_line(lease)})"
    for digest in found.failed[:20]:
        from depthprune.experiments.sweeps.runner import failure_line

        yield f"failed: {digest}: {failure_line(store.folder(digest))}"
    if found.foreign:
        names = ", ".join(found.foreign[:5]) + (", …" if len(found.foreign) > 5 else "")
        yield f"{len(found.foreign)} left alone, which are no runs or cannot be read: {names}"
    known = [record for _, record in records(store) if record is not None]
    if any(record["spec"]["drop"]["dropped"] for record in known):
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        _best_columns(table, known)
        yield table
