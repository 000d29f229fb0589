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
    model: str = "sha256:" + "a" * 64,
    name: str = "tiny",
    model_type: str | None = None,
    heal: HealSpec | None = None,
    parameters: tuple[int, int] | None = None,
    strategies: tuple[str, ...] = (),
    examples: int = 400,
    seconds_healing: float | None = None,
    **more: Any,
) -> str:
    """Write the record of a run into a store and return its digest.

    Args:
        model, name, model_type: identity, name and architecture of the model.
        parameters: of the full model, and of a layer.
        strategies: that chose the layers, beside those that go by position.
        examples: on which the score was taken.
        seconds_healing: what fine-tuning took.
        more: to be put into the outcome.
    """
    spec = RunSpec(model, EvalSpec(task, "sha256:rows"), DropSpec(dropped), heal or HealSpec(), seed)
    kept = depth - len(dropped)
    full, layer = parameters or (12_000_000 + 1_800_000 * depth, 1_800_000)
    outcome = {
        "status": "done",
        "plan": {"depth": depth, "dropped": list(dropped), "kept": [i for i in range(depth) if i not in dropped],
                 "strategies": [*same_choice(LayerPlan(depth, dropped)), *strategies]},
        "metrics": {"accuracy": {"value": score, "examples": examples}},
        "primary": "accuracy",
        "profile": {"parameters": full - layer * len(dropped), "weight_bytes": 4 * layer * kept,
                    "latency_ms": 1.0 * kept, "full_parameters": full, "full_latency_ms": 1.0 * depth},
        "heal": {"seconds": 10.0 * kept if seconds_healing is None else seconds_healing},
        "seconds": 20.0 * kept,
        **more,
    }  # fmt: skip
    folder = root / spec.digest()
    (folder / "model").mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps(spec.to_dict()))
    environment = {"model": name} | ({"model_type": model_type} if model_type is not None else {})
    record = {"spec": spec.to_dict(), "outcome": outcome, "environment": environment}
    (folder / "record.json").write_text(json.dumps(record))
    return spec.digest()
