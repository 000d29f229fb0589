"""Run items on a Ray cluster, or with Ray on this machine if no address is given.

Ray's processes listen on all interfaces of the machine; use it in trusted networks only.
"""

import socket
from collections.abc import Iterator, Sequence
from typing import Any

from depthprune.errors import UserError
from depthprune.experiments.sweeps.executors.base import LOST, Function, Outcome, Resources, registry
from depthprune.experiments.sweeps.executors.local import GRACE, THREAD_VARIABLES, cores
from depthprune.optional import require

KNOCK_SECONDS = 10


def ray_executor(function: Function, items: Sequence[Any], resources: Resources) -> Iterator[Outcome]:
    """Run items as Ray tasks; those of a lost node are tried again.

    Raises:
        UserError: if Ray is not installed, or no cluster answers at the address.
    """
    ray = require("ray", extra="ray", purpose="running a sweep on Ray")
    _connect(ray, resources)
    cpus = resources.cpus or 1
    environment = {"env_vars": {name: str(cpus) for name in THREAD_VARIABLES} | {"RAY_DEDUP_LOGS": "0"}}
    task = ray.remote(num_cpus=cpus, num_gpus=resources.gpus, max_retries=LOST, runtime_env=environment)(function)
    running: dict[Any, Any] = {}
    try:
        running.update((task.remote(item), item) for item in items)
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            item = running.pop(done)
            try:
                yield Outcome(item, ray.get(done))
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
                yield Outcome(item, lost=str(error).splitlines()[0])
    except BaseException:  # an interrupt, or the rest is not needed
        for reference in running:
            ray.cancel(reference)  # a KeyboardInterrupt in running tasks, which clean up
        ray.wait(list(running), num_returns=len(running), timeout=GRACE) if running else None
        raise
    finally:
        ray.shutdown()


def _connect(ray: Any, resources: Resources) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if resources.address is None:
        options |= {"num_cpus": (resources.workers or cores()) * (resources.cpus or 1), "include_dashboard": False}
        options |= {"_node_ip_address": "127.0.0.1"}
    else:
        _knock(resources.address)
        options["address"] = resources.address
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise _nobody(resources.address, error) from None


def _knock(address: str) -> None:
    """Try to connect: Ray itself would wait for many minutes if no cluster answers.

    Raises:
        UserError: if none does.
    """
    host, _, port = address.partition("://")[2].rpartition(":") if "://" in address else address.rpartition(":")
    if address == "auto" or not port.isdigit():
        return  # Ray looks for a cluster on this machine, or raises an error
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
    except OSError as error:
        raise _nobody(address, error) from None


def _nobody(address: str | None, error: Exception) -> UserError:
    where = f"at '{address}'" if address else "on this machine"
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"no Ray answers {where} ({said}); start one (ray start --head), or leave --address out")


registry.add("ray", ray_executor)
