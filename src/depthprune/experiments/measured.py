"""What is measured once for many runs, and kept in the store: the precision to train in, and how fast a plan is.

    runs/measured/precision-<key>.json   decided by the first run that needs it, for all
    runs/measured/speed-<key>.json       of a plan on the task's rows, beside the full model

Training one model in float32 and the other in bfloat16 would compare precisions as well as layers. So `precision: auto`
is decided on the full model, once for a model, a batch and a device, and what a record of the full model says counts
first. Files are made whole and never replaced: of several workers who decide at once, the first one decides for all.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.experiments.store.records import records
from depthprune.experiments.store.store import Store
from depthprune.result_file import replace_json, write_once
from depthprune.specs import DropSpec, RunSpec

if TYPE_CHECKING:
    from depthprune.healing.precision import Probe
    from depthprune.plan import LayerPlan

AUTO = "auto"
Progress = Callable[[str, int, int], None]
PROFILE_EXAMPLES = 128
PROFILE_BATCH = 32  # the paper's


@dataclass(frozen=True)
class Precision:
    """In what a run trains.

    Args:
        precision: `float32` or `bfloat16`.
        decided: how: `asked for`, `as the full model's record <digest>`, `probe`.
        seconds: of a training step in each precision, where a probe measured them.
    """

    precision: str
    decided: str
    seconds: dict[str, float]


@dataclass(frozen=True)
class Measuring:
    """How a run measures.

    Args:
        store: keeps what was measured.
        device: where the model is.
        latency: whether latencies are measured.
        anew: measure again what the store has; the precision stays, or runs could no longer be compared.
    """

    store: Store
    device: str
    latency: bool = True
    anew: bool = False

    def profile(
        self,
        model: Any,
        plan: "LayerPlan",
        spec: RunSpec,
        task: Any,
        encoded: Any,
        tokenizer: Any,
        on_progress: Progress,
    ) -> dict[str, Any]:
        """Return sizes and latencies of a plan and of the full model.

        Args:
            model: the whole one.
            encoded: split → tokenised rows; those that are scored are timed.
        """
        full = sizes(model)
        cut = sizes(shortened(model, plan)) if plan.dropped else full
        profile = {**cut, **{f"full_{name}": value for name, value in full.items()}}
        if not self.latency:
            return {**profile, "latency_ms": None, "full_latency_ms": None}
        on_progress("timing the model", 0, 1)
        batches = profile_batches(task, encoded, tokenizer, self.device)
        where = {"store": self.store, "device": self.device}
        return {**profile, **plan_speed(model, plan, batches, spec=spec, anew=self.anew, **where)}

    def precision(self, model: Any, spec: RunSpec, rows: Any, tokenizer: Any, on_progress: Progress) -> Precision:
        """Return in what a run trains; see `decide_precision`.

        Args:
            model: the whole one.
            rows: tokenised, to train on.
        """
        from depthprune.healing.precision import Probe, faster_precision
        from depthprune.healing.training import first_batch

        def probe() -> Probe:
            on_progress("trying float32 and bfloat16", 0, 1)
            return faster_precision(model, first_batch(tokenizer, rows, spec.heal.batch_size))

        if not spec.heal.trains:
            return Precision("float32", "nothing was trained", {})
        return decide_precision(spec, self.store, self.device, probe)


def decide_precision(spec: RunSpec, store: Store, device: str, probe: Callable[[], "Probe"]) -> Precision:
    """Return the precision of a run; `auto` is decided once for all runs of a store that are compared.

    Args:
        probe: measures on the full model; called only where nothing is decided.

    Raises:
        UserError: the record of the full model, or what was decided, cannot be read.
    """
    if spec.heal.precision != AUTO:
        return Precision(spec.heal.precision, "asked for", {})
    whole = replace(spec, drop=DropSpec(), heal=spec.heal.for_full())
    record = store.record(whole.digest())
    if record is not None and (used := _used(record)) is not None:
        return Precision(used, f"as the full model's record {whole.digest()}", {})
    key = [spec.model, spec.heal.batch_size, spec.evaluation.max_length, device_name(device), _torch_version()]
    file = _file(store, "precision", key)
    if not file.is_file():
        found = _of_another_full_model(spec, store, device) or Precision(**_probed(probe()))
        file.parent.mkdir(parents=True, exist_ok=True)
        write_once(file, {"key": key, **asdict(found)})
    decided = json.loads(file.read_text(encoding="utf-8"))
    return Precision(decided["precision"], decided["decided"], decided["seconds"])


def _probed(found: "Probe") -> dict[str, Any]:
    return {"precision": found.precision, "decided": "probe", "seconds": found.seconds}


def _of_another_full_model(spec: RunSpec, store: Store, device: str) -> Precision | None:
    """Return what a full run of the model on another task or seed was trained in, on such a device."""
    for digest, record in records(store):
        if record is None or record["spec"]["drop"]["dropped"] or record["spec"]["model"] != spec.model:
            continue
        heal, length = record["spec"]["heal"], record["spec"]["evaluation"].get("max_length")
        alike = (heal.get("batch_size"), heal.get("precision"), length) == (
            *(spec.heal.batch_size, AUTO, spec.evaluation.max_length),
        )
        where = record.get("environment", {}).get("device")
        if alike and where == device_name(device) and (used := _used(record)) is not None:
            return Precision(used, f"as the full model's record {digest}", {})
    return None


def _used(record: dict[str, Any]) -> str | None:
    """Return what a record was trained in; None where nothing was trained."""
    heal = record["outcome"].get("heal", {})
    return heal.get("precision") if heal.get("steps", 1) else None


def plan_speed(
    model: Any,
    plan: "LayerPlan",
    batches: list[dict[str, Any]],
    *,
    spec: RunSpec,
    store: Store,
    device: str,
    anew: bool = False,
) -> dict[str, Any]:
    """Return how fast a plan of a model is: `latency_ms`, `full_latency_ms` and `speedup`, with its interval.

    The full model is timed alone, and a shorter one in turns with it; from the store where that has it.

    Args:
        model: the whole one.
        batches: padded inputs, of the rows that the run is scored on.
        anew: measure again what the store has.
    """
    import torch

    key = [spec.model, list(plan.dropped), spec.evaluation.data, spec.evaluation.max_length, device_name(device)]
    file = _file(store, "speed", [*key, torch.get_num_threads(), _torch_version()])
    if file.is_file() and not anew:
        return {**json.loads(file.read_text(encoding="utf-8"))["speed"], "timed": "in an earlier run"}
    speed = _timed(model, plan, batches)
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_json(file, {"key": key, "speed": speed})
    return speed


def _timed(model: Any, plan: "LayerPlan", batches: list[dict[str, Any]]) -> dict[str, Any]:
    from depthprune.profiling.latency import compare_latency, latency_ms

    if not plan.dropped:
        latency = latency_ms(model, batches)
        return {"latency_ms": latency, "full_latency_ms": latency}
    timing = compare_latency(model, shortened(model, plan), batches)
    return {
        "latency_ms": timing.second_ms,
        "full_latency_ms": timing.first_ms,
        "speedup": asdict(timing.speedup),
    }


def shortened(model: Any, plan: "LayerPlan") -> Any:
    """Return a copy without the layers that go, which shares the model's tensors, so that it takes no memory."""
    import copy

    from depthprune.surgery import drop_layers

    shared = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    return drop_layers(shared, plan) if plan.dropped else shared


def sizes(model: Any) -> dict[str, int]:
    """Return the number of parameters, and the bytes of the weights."""
    from depthprune.profiling.footprint import num_parameters, weight_bytes

    return {"parameters": num_parameters(model), "weight_bytes": weight_bytes(model)}


def profile_batches(task: Any, encoded: Any, tokenizer: Any, device: str) -> list[dict[str, Any]]:
    """Return the batches that models are timed on: the first rows that the task is scored on."""
    from depthprune.evaluation.batching import collate

    rows = encoded[next(iter(task.eval_splits.values()))]
    size = min(PROFILE_EXAMPLES, len(rows))
    starts = range(0, size, PROFILE_BATCH)
    return [collate(tokenizer, rows[start : min(start + PROFILE_BATCH, size)], device=device) for start in starts]


def device_name(device: str) -> str:
    """Return what a record calls a device: the GPU's name, or `cpu`."""
    import torch

    return torch.cuda.get_device_name() if device.startswith("cuda") else device


def _torch_version() -> str:
    import torch

    return torch.__version__


def _file(store: Store, kind: str, key: list[Any]) -> Path:
    from depthprune.experiments.store.store import MEASURED

    return store.root / MEASURED / f"{kind}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]}.json"
