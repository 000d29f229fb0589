"""Run items in processes of this machine: one or several per GPU, or one per core.

A small model leaves most of a GPU idle, since its kernels are shorter than the time it takes to launch them. Several
processes on one GPU (`--gpus 0.1`: ten) fill it. They stay for all items, so that each imports its libraries once.

A worker that dies loses one item; the pool is restarted and the item is tried again.

An interrupt ends the workers within seconds: SIGTERM raises a KeyboardInterrupt in the current item so that it can
clean up, and workers that do not end are killed. Ctrl-C, which a terminal sends to all processes of a command, is
blocked in them: the parent decides.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from depthprune.experiments.sweeps.executors.base import LOST, Function, Outcome, Resources, registry

GRACE = 5.0  # seconds for an interrupted item to clean up
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, as CUDA counts them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    there = Path("/proc/driver/nvidia/gpus")
    found = list(there.iterdir()) if there.is_dir() else list(Path("/dev").glob("nvidia[0-9]*"))
    return [str(i) for i in range(len(found))]


def gpus_of_a_run(device: str) -> int:
    """Return how many GPUs a run gets by default: one if there are any and the device is not the CPU."""
    return 1 if device != "cpu" and gpus() else 0


def at_a_time(resources: Resources) -> int:
    """Return how many items run in parallel on this machine: as many as share its GPUs, or one per core."""
    if resources.workers:
        return resources.workers
    devices = len(gpus()) if resources.gpus else 0
    return devices * max(1, int(1 / resources.gpus + 1e-6)) if devices else cores()


def local(function: Function, items: Sequence[Any], resources: Resources) -> Iterator[Outcome]:
    """Run items in processes of this machine."""
    devices = gpus() if resources.gpus else []
    workers = min(at_a_time(resources), max(len(items), 1))
    threads = resources.cpus or max(1, cores() // workers)
    # Items that ran when a worker died are suspects and run alone, so that a death is counted for the right one.
    waiting, suspects, lost = list(items), list[Any](), Counter[int]()
    while waiting or suspects:
        alone = bool(suspects)
        batch = [suspects.pop(0)] if alone else waiting
        pool = _Pool(1 if alone else workers, threads, devices)
        try:
            broken = yield from pool.drain(function, batch)
        except BaseException:  # an interrupt, or the rest is not needed
            pool.stop()
            raise
        pool.close()
        for item in broken:
            lost[id(item)] += alone
            if lost[id(item)] >= LOST:
                yield Outcome(item, lost="its worker died each time it was tried")
            else:
                suspects.append(item)


class _Pool:
    def __init__(self, workers: int, threads: int, devices: list[str]):
        context = multiprocessing.get_context("spawn")
        _start_tracker()
        free = context.SimpleQueue()
        for i in range(workers):
            free.put(devices[i % len(devices)] if devices else None)
        # Libraries read these once on import, which in a spawned process happens before any of our code.
        self._environment: dict[str, str] = dict.fromkeys(THREAD_VARIABLES, str(threads))
        self._workers = workers
        self._others = set(multiprocessing.active_children())
        self._pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(free,))

    def drain(self, function: Function, waiting: list[Any]) -> Generator[Outcome, None, list[Any]]:
        """Run items until all are done or a worker was lost; returns the items that ran then; others wait."""
        running: dict[Future, Any] = {}
        while waiting or running:
            try:
                with _environment(self._environment), _without_interrupts():
                    while waiting and len(running) < self._workers:
                        running[self._pool.submit(_do, function, waiting[0])] = waiting[0]
                        waiting.pop(0)
            except BrokenProcessPool:
                return list(running.values())
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in [future for future in done if not isinstance(future.exception(), BrokenProcessPool)]:
                yield Outcome(running.pop(future), future.result())
            if any(isinstance(future.exception(), BrokenProcessPool) for future in running if future.done()):
                return list(running.values())
        return []

    def close(self) -> None:
        """Wait for the idle workers to end."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def stop(self) -> None:
        """End the workers within seconds, whatever they do; a second interrupt kills them at once."""
        workers = [child for child in multiprocessing.active_children() if child not in self._others]
        try:
            for worker in workers:
                worker.terminate()
            left = {worker.sentinel for worker in workers}
            deadline = time.monotonic() + GRACE + 1
            while left and (rest := deadline - time.monotonic()) > 0:
                left -= set(multiprocessing.connection.wait(list(left), rest))
        finally:
            for worker in workers:
                worker.kill()
            self.close()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started inside the context."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block Ctrl-C in the processes that are started inside the context; in this one it is delayed."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_tracker() -> None:
    """Start Python's resource tracker without its warnings about the semaphores of killed processes."""
    with _environment({"PYTHONWARNINGS": "ignore"}):
        resource_tracker.ensure_running()


_busy = _ending = False  # of a worker


def _do(function: Function, item: Any) -> Any:
    """Run an item in a worker."""
    global _busy
    _busy = True
    try:
        return function(item)
    except KeyboardInterrupt:
        os._exit(1)  # cleaned up; Python's own shutdown would only take time
    finally:
        _busy = False


def _begin(free: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    device = free.get()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device


def _end(*_: object) -> None:
    """End a worker on SIGTERM: at once if it is idle, else by interrupting its item."""
    global _ending
    if _ending:
        return
    _ending = True
    if not _busy:
        os._exit(1)
    late = threading.Timer(GRACE, os._exit, (1,))
    late.daemon = True
    late.start()
    raise KeyboardInterrupt


def _end_with_the_parent() -> None:
    """End if the parent was killed: workers hold the ends of each other's queues, and would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


registry.add("local", local)
