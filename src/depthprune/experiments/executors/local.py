"""Processes of this machine: one for each GPU, or as many as share its cores sensibly.

A worker that dies takes one item with it; the pool is made anew and the item is tried again.
"""

import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from depthprune.experiments.executors.base import LOST, Function, Outcome, Resources, registry

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
    return [str(i) for i in range(len(list(there.iterdir())))] if there.is_dir() else []


def local(function: Function, items: Sequence[Any], resources: Resources) -> Iterator[Outcome]:
    """Run items in processes of this machine."""
    devices = gpus() if resources.gpus else []
    workers = min(resources.workers or (len(devices) or cores()), max(len(items), 1))
    threads = resources.cpus or max(1, cores() // workers)
    # Who ran when a worker died is suspect and runs alone: nobody else is then counted for it.
    waiting, suspects, lost = list(items), list[Any](), Counter[int]()
    while waiting or suspects:
        alone = bool(suspects)
        batch = [suspects.pop(0)] if alone else waiting
        pool = _Pool(1 if alone else workers, threads, devices)
        try:
            broken = yield from pool.drain(function, batch)
        finally:
            pool.stop()
        for item in broken:
            lost[id(item)] += alone
            if lost[id(item)] >= LOST:
                yield Outcome(item, lost="its worker died each time it was tried")
            else:
                suspects.append(item)


class _Pool:
    def __init__(self, workers: int, threads: int, devices: list[str]):
        context = multiprocessing.get_context("spawn")
        free = context.SimpleQueue()
        for i in range(workers):
            free.put(devices[i % len(devices)] if devices else None)
        before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
        # Libraries read these once, when they are imported, which a spawned process does before any of our code.
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
        self._before = before
        self._workers = workers
        self._pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(free,))

    def drain(self, function: Function, waiting: list[Any]) -> Generator[Outcome, None, list[Any]]:
        """Run items until none waits or a worker was lost; returns what ran then. What was not begun stays waiting."""
        running: dict[Future, Any] = {}
        while waiting or running:
            try:
                while waiting and len(running) < self._workers:
                    running[self._pool.submit(function, waiting[0])] = waiting[0]
                    waiting.pop(0)
            except BrokenProcessPool:
                return list(running.values())
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in [future for future in done if not isinstance(future.exception(), BrokenProcessPool)]:
                yield Outcome(running.pop(future), future.result())
            if any(isinstance(future.exception(), BrokenProcessPool) for future in running if future.done()):
                return list(running.values())
        return []

    def stop(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin(free: Any) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    device = free.get()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device


def _end_with_the_parent() -> None:
    """End where the parent was killed: workers hold the ends of each other's queues, and would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


registry.add("local", local)
