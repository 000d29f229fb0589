"""Records as runs would write them, without running anything."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from depthprune.experiments.store.predictions import write_predictions
from depthprune.plan import LayerPlan
from depthprune.specs import DropSpec, EvalSpec, HealSpec, RunSpec
from depthprune.strategies import same_choice

STEPS = 115  # of an epoch


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
    data: str = "sha256:rows",
    max_length: int = 128,
    order: tuple[int, ...] = (),
    options: dict[str, Any] | None = None,
    predictions: tuple[Sequence, Sequence] | None = None,
    metric: str = "accuracy",
    more_heal: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
    spec: RunSpec | None = None,
    **more: Any,
) -> str:
    """Write the record of a run into a store and return its digest.

    Args:
        model, name, model_type: identity, name and architecture of the model.
        parameters: of the full model, and of a layer.
        strategies: that chose the layers, beside those that go by position.
        examples: number of evaluation rows.
        seconds_healing: what fine-tuning took.
        data, max_length: of the rows.
        order: of layers that go one by one.
        options: how the data was asked for.
        predictions: the expected and the predicted labels.
        more_heal: to be put into what the outcome says of fine-tuning.
        environment: to be put into the record's.
        spec: in the place of what the other arguments say.
        more: to be put into the outcome.
    """
    heal = heal or HealSpec()
    spec = spec or RunSpec(model, EvalSpec(task, data, max_length), DropSpec(dropped, order), heal, seed)
    kept = depth - len(dropped)
    full, layer = parameters or (12_000_000 + 1_800_000 * depth, 1_800_000)
    epochs = heal.num_epochs + (heal.epochs_before + heal.drop_every * len(dropped) if dropped else 0)
    outcome = {
        "status": "done",
        "plan": {"depth": depth, "dropped": list(dropped), "kept": [i for i in range(depth) if i not in dropped],
                 "strategies": [*same_choice(LayerPlan(depth, dropped)), *strategies]},
        "metrics": {metric: {"value": score, "examples": examples}},
        "primary": metric,
        "profile": {"parameters": full - layer * len(dropped), "weight_bytes": 4 * layer * kept,
                    "latency_ms": 1.0 * kept, "full_parameters": full, "full_latency_ms": 1.0 * depth},
        "heal": {"seconds": 10.0 * kept if seconds_healing is None else seconds_healing,
                 "steps": math.ceil(STEPS * epochs), **(more_heal or {})},
        "seconds": 20.0 * kept,
        **more,
    }  # fmt: skip
    folder = root / spec.digest()
    (folder / "model").mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps(spec.to_dict()))
    environment = {"model": name, **(environment or {})} | (
        {"model_type": model_type} if model_type is not None else {}
    )
    environment |= {"data": options} if options is not None else {}
    record = {"spec": spec.to_dict(), "outcome": outcome, "environment": environment}
    if predictions is not None:
        write_predictions(folder, {"": {"expected": predictions[0], "predicted": predictions[1]}})
    (folder / "record.json").write_text(json.dumps(record))
    return spec.digest()


def make_seeds(root: Path, dropped: tuple[int, ...], score: float, *, spread: float = 0.0005, **more: Any) -> None:
    """Write records of three seeds whose mean is `score`; plans differ in which of them is lucky."""
    steps = (-spread, 0.0, spread)
    for seed in range(3):
        step = steps[(seed + sum(dropped)) % 3]
        make_record(root, dropped, score + step, seed=seed, **more)
