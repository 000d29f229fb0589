"""Progress of a command, on standard error: only results go to standard output.

In a terminal a bar; elsewhere a line when a stage begins and one from time to time, so that the log of a long job shows
its progress and stays short.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from depthprune import processes
from depthprune.healing.execution.progress import DETAIL, counted

EVERY = 30.0  # seconds between two lines of one stage

messages = Console(stderr=True)  # messages beside results


class Reporter:
    """Shows progress. Call it with the name of the stage, the steps done and the steps in all.

    A stage with nothing to count has a total of 1 or less. Stages follow each other: a new name ends the one before;
    what follows `healing.execution.progress.DETAIL` in a name is shown, and may change from step to step.
    """

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Record the progress of a stage."""

    def say(self, line: str) -> None:
        """Print a permanent line."""


class Quiet(Reporter):
    """Shows nothing."""


class Lines(Reporter):
    """Plain lines: when a stage begins, and its progress at most every so many seconds.

    Args:
        every: seconds between two lines of one stage.
        clock: returns seconds.
    """

    def __init__(self, every: float = EVERY, clock: Callable[[], float] = time.monotonic):
        self._every, self._clock = every, clock
        self._stage: str | None = None
        self._begun, self._skipped, self._said = 0.0, 0, 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Print a line if the stage is new, or the last line is some time ago."""
        now = self._clock()
        name = stage.partition(DETAIL)[0]
        new = name != self._stage
        if new:
            self._stage, self._begun, self._skipped = name, now, done
        elif now - self._said < self._every:
            return
        self._said = now
        if total <= 1:
            self.say(stage if new else f"{stage}, {now - self._begun:.0f} s so far")
            return
        known = self._skipped < done < total
        rest = (now - self._begun) / (done - self._skipped) * (total - done) if known else 0.0
        self.say(counted(stage, done, total) + (f", about {rest:.0f} s left" if known and not new else ""))

    def say(self, line: str) -> None:
        """Print a line."""
        messages.print(line, highlight=False, markup=False, soft_wrap=True)


class Bar(Reporter):
    """A bar in a terminal for the current stage, removed when the work is done."""

    def __init__(self, bars: Progress):
        self._bars = bars
        self._stage: str | None = None
        self._task = bars.add_task("", total=None, visible=False, count="", left="")

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Move the bar."""
        steps = total if total > 1 else None
        name, _, detail = stage.partition(DETAIL)
        if name != self._stage:
            self._bars.remove_task(self._task)
            self._stage, self._task = name, self._bars.add_task(name, total=steps, count="", left="")
        count, left = (f"{done}/{total}", "left") if steps else ("", "")
        self._bars.update(self._task, completed=done, total=steps, count=f"{count} {detail}".rstrip(), left=left)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bars.console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Reporter]:
    """Show progress while the context lasts.

    Args:
        quiet: show nothing.
    """
    if quiet or not processes.is_first():
        yield Quiet()
        return
    if not messages.is_terminal:
        yield Lines()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[left]}"),
    )
    # Results that are printed in the meantime go to standard output, not to the bar's console.
    with Progress(*columns, console=messages, transient=True, redirect_stdout=False) as bars:
        yield Bar(bars)
