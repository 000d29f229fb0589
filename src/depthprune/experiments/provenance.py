"""Where a record or a checkpoint comes from: versions, commit, machine."""

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from depthprune.plan import LayerPlan
from depthprune.sources import ModelSource

PACKAGES = (
    "depthprune",
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "safetensors",
    "numpy",
    "scikit-learn",
    "scipy",
)


def versions() -> dict[str, str]:
    """Return the versions of the packages a result depends on, those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def source_commit() -> str | None:
    """Return the git commit of depthprune's own source, or None where it was installed without git."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "log", "-1", "--format=%H", "--", "."]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def environment(device: str, threads: int) -> dict[str, Any]:
    """Return what a record says about where it was made."""
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


def checkpoint_provenance(source: ModelSource, plan: LayerPlan, **more: Any) -> dict[str, Any]:
    """Return the content of `depthprune.json` for a checkpoint cut from `source`.

    A source that was cut before brings its own history, which stays, oldest first.
    """
    cut = {
        "source": Path(source.name).name,
        "identity": source.identity,
        "depth": plan.depth,
        "dropped": list(plan.dropped),
    }
    cuts = [*_earlier_cuts(source), *([cut] if plan.dropped else [])]
    return {"cuts": cuts, "packages": versions(), **more}


def _earlier_cuts(source: ModelSource) -> list[dict[str, Any]]:
    file = source.path / "depthprune.json"
    return json.loads(file.read_text(encoding="utf-8")).get("cuts", []) if file.is_file() else []


def _processor() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None
