"""The environment of a record or a checkpoint: versions, commit, machine."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from depthprune import processes
from depthprune.checkpoints.history import ONLY_STACK, provenance, versions
from depthprune.plan import LayerPlan
from depthprune.sources import ModelSource
from depthprune.tasks import TaskData


def source_commit() -> str | None:
    """Return the git commit of depthprune's source, or None if it was not installed from git."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "log", "-1", "--format=%H", "--", "."]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def environment(device: str, threads: int) -> dict[str, Any]:
    """Return the environment entries of a record."""
    return {
        "packages": versions(),
        "python": platform.python_version(),
        "commit": source_commit(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": device,
        "threads": threads,
    }


def run_environment(source: ModelSource, data: TaskData, device: str) -> dict[str, Any]:
    """Return the environment of a run's record.

    Args:
        device: its name: `cpu`, or the GPU's.
    """
    import torch

    return {
        **environment(device, torch.get_num_threads()),
        "model": source.title,
        "model_type": source.config.get("model_type"),
        "data": data.options.given() if data.options is not None else {},
        **({"processes": processes.count()} if processes.count() > 1 else {}),
    }


def checkpoint_provenance(source: ModelSource, plan: LayerPlan, **more: Any) -> dict[str, Any]:
    """Return the content of `depthprune.json` for a checkpoint cut from `source`, whose weights are hashed for it.

    The history of a source that was cut before is kept, oldest first (`checkpoints.history.provenance`).

    Raises:
        LoadError: if the source's own history is broken or does not fit.
    """
    _ = source.identity  # computed here, so that it is recorded
    return provenance(source, {ONLY_STACK: plan}, more=more)


def _processor() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None
