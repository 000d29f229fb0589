"""Processes of this machine: one for each GPU, or as many as share its cores sensibly.

A worker that dies takes one item with it; the pool is made anew and the item is tried again.
"""

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from depthprune.experiments.executors.base import LOST, Function, Outcome, Resources, registry

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local(function: Function, items: Sequence[Any], resources: Resources) -> Iterator[Outcome]:
    """Run items in processes of this machine."""
    visible = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d.strip()]
    devices = visible if resources.gpus else []
    workers = min(resources.workers or (len(devices) or cores()), max(len(items), 1))
    threads = resources.cpus or max(1, cores() // workers)
    waiting, lost = list(items), Counter[int]()
    while waiting:
        pool = _Pool(workers, threads, devices)
        try:
            yield from pool.drain(function, waiting, lost)
        finally:
            pool.stop()


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

    def drain(self, function: Function, waiting: list[Any], lost: Counter[int]) -> Iterator[Outcome]:
        """Run items until none waits or a worker was lost; what was not done is left in `waiting`."""
        running: dict[Future, Any] = {}
        while waiting or running:
            try:
                while waiting and len(running) < self._workers:
                    item = waiting.pop(0)
                    running[self._pool.submit(function, item)] = item
            except BrokenProcessPool:
                waiting.insert(0, item)
                yield from self._mourn(running, waiting, lost)
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            broken = []
            for future in done:
                item = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    broken.append((future, item))
                else:
                    yield Outcome(item, future.result())
            if broken:
                running.update(broken)
                yield from self._mourn(running, waiting, lost)
                return

    def _mourn(self, running: dict[Future, Any], waiting: list[Any], lost: Counter[int]) -> Iterator[Outcome]:
        """Put back what ran when a worker was lost; nobody can tell whose fault it was, so all of them are counted."""
        for item in running.values():
            lost[id(item)] += 1
            if lost[id(item)] >= LOST * self._workers:
                yield Outcome(item, lost="its worker died each time it was tried")
            else:
                waiting.append(item)

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
    device = free.get()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device


registry.add("local", local)
