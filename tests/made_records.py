"""Records as runs would write them, without running anything."""

import json
from pathlib import Path
from typing import Any

from depthprune.plan import LayerPlan
from depthprune.specs import DropSpec, EvalSpec, HealSpec, RunSpec
from depthprune.strategies import same_choice


def make_record(
    root: Path,
    dropped: tuple[int, ...],
    score: float,
    *,
    depth: int = 6,
    task: str = "mrpc",
    seed: int = 42,
    **more: Any,
) -> str:
    """Write the record of a run into a store and return its digest."""
    spec = RunSpec("sha256:" + "a" * 64, EvalSpec(task, "sha256:rows"), DropSpec(dropped), HealSpec(), seed)
    kept = depth - len(dropped)
    outcome = {
        "status": "done",
        "plan": {"depth": depth, "dropped": list(dropped), "kept": [i for i in range(depth) if i not in dropped],
                 "strategies": list(same_choice(LayerPlan(depth, dropped)))},
        "metrics": {"accuracy": {"value": score, "examples": 400}},
        "primary": "accuracy",
        "profile": {"parameters": 12_000_000 + 1_800_000 * kept, "weight_bytes": 4 * 1_800_000 * kept,
                    "latency_ms": 1.0 * kept, "full_parameters": 12_000_000 + 1_800_000 * depth,
                    "full_latency_ms": 1.0 * depth},
        "heal": {"seconds": 10.0 * kept},
        "seconds": 20.0 * kept,
        **more,
    }  # fmt: skip
    folder = root / spec.digest()
    (folder / "model").mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps(spec.to_dict()))
    record = {"spec": spec.to_dict(), "outcome": outcome, "environment": {"model": "tiny"}}
    (folder / "record.json").write_text(json.dumps(record))
    return spec.digest()
