"""Handle Ctrl-C and similar signals: the first ends the work cleanly within seconds, the second ends the process at
once.

The first raises a KeyboardInterrupt, so that everything cleans up. The second is received by a thread directly from the
system: the interpreter handles signals only between two instructions of the main thread, which may be in the middle of
a long one.
"""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from depthprune import processes

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Ctrl-C in a terminal, a scheduler's end, a closed terminal


GO_ON = (
    "run",
    "finetune",
    "sweep",
    "auto",
    "heal",
    "search",
    "quickstart",
)  # commands that keep what was done before they were stopped


class Stopped:
    """The signal that ends a command; none as long as `number` is None."""

    number: int | None = None

    @property
    def code(self) -> int:
        """The exit status, as shells count it: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.number or signal.SIGINT)


def last_words(arguments: Sequence[str]) -> str:
    """Return a sentence on what an interrupted command leaves, and how to resume it.

    >>> last_words(["sweep", "s.yaml"])
    'what is done is kept, and the same command resumes it: depthprune sweep s.yaml'
    """
    if arguments and arguments[0] in GO_ON:
        return f"what is done is kept, and the same command resumes it: depthprune {shlex.join(arguments)}"
    return "nothing was written"


@contextmanager
def stoppable() -> Iterator[Stopped]:
    """Handle signals while the context lasts; those that were ignored before, as under nohup, stay ignored."""
    stopped, here = Stopped(), threading.current_thread() is threading.main_thread()
    heeded = [number for number in SIGNALS if here and signal.getsignal(number) is not signal.SIG_IGN]
    if not heeded:
        yield stopped
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = {number: signal.signal(number, lambda got, _: _stop(stopped, got)) for number in heeded}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(reading, frozenset(heeded)), daemon=True).start()
    try:
        yield stopped
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)  # which ends the thread


def _stop(stopped: Stopped, number: int) -> None:
    if stopped.number is not None:
        return  # the thread has seen it
    stopped.number = number
    raise KeyboardInterrupt


def _listen(reading: int, heeded: frozenset[int]) -> None:
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        seen = 0
        while byte := pipe.read(1):
            seen += byte[0] in heeded
            if seen == 1 and processes.is_first() and byte[0] in heeded:
                _say("stopping; once more ends it at once")
            if seen > 1:
                _end(128 + byte[0])


def _end(code: int) -> NoReturn:
    import multiprocessing
    from multiprocessing import util

    for child in multiprocessing.active_children():
        child.kill()
    # What Python's resource tracker would report as leaked: semaphores above all.
    run: Any = getattr(util, "_run_finalizers", None)
    if run is not None:
        late = threading.Timer(1.0, os._exit, (code,))
        late.daemon = True
        late.start()
        run(0)
    os._exit(code)


def _say(line: str) -> None:
    print(f"depthprune: {line}", file=sys.stderr, flush=True)
