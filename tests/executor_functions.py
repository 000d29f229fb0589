"""Functions for executors to map: they are imported by name in other processes."""

import contextlib
import os
import signal
import time
from pathlib import Path


def square(number: int) -> tuple[int, int]:
    """Return the number's square and the threads that libraries are told to use."""
    return number * number, int(os.environ["OMP_NUM_THREADS"])


def visible_gpus(number: int) -> tuple[int, str]:
    """Return which process this is, and the GPUs that it may use."""
    time.sleep(0.2)
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


def die_once(place: str) -> str:
    """Kill the worker the first time that it is called for a place."""
    mark = Path(place)
    if not mark.exists():
        mark.write_text("died here")
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    return "done"


def die_always(place: str) -> str:
    """Kill the worker."""
    if place:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    return "done"


def note_and_wait(place: str) -> str:
    """Write down which process this is, and do nothing for a minute."""
    Path(place).write_text(str(os.getpid()))
    for _ in range(600):  # as work does, it comes back to Python now and then
        time.sleep(0.1)
    return "done"


def note_and_put_away(place: str) -> str:
    """Write down which process this is, and do nothing for a minute; whatever happens, say that it was put away."""
    try:
        return note_and_wait(place)
    finally:
        Path(place).with_suffix(".away").write_text("put away")


def note_and_go_on(place: str) -> str:
    """Write down which process this is, and do nothing for a minute, whatever happens."""
    Path(place).write_text(str(os.getpid()))
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(1)
    return "done"
