"""The one place where the stages meet: load, drop, heal, score, profile, save, record."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from depthprune.experiments import provenance
from depthprune.experiments.store import Store
from depthprune.loading import load_classifier, load_tokenizer
from depthprune.plan import LayerPlan
from depthprune.sources import ModelSource
from depthprune.specs import RunSpec
from depthprune.strategies import same_choice
from depthprune.tasks import TaskData

PROFILE_EXAMPLES = 256
PROFILE_BATCH = 32  # the paper's

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Result:
    """A run that is done.

    Args:
        digest: its name in the store.
        record: `spec`, `outcome`, `environment`, as in record.json.
        model: the checkpoint's folder, or None where none was saved.
        stored: whether the record was there before.
    """

    digest: str
    record: dict[str, Any]
    model: Path | None
    stored: bool

    @property
    def outcome(self) -> dict[str, Any]:
        """Metrics, plan, sizes and times."""
        return self.record["outcome"]

    @property
    def score(self) -> float:
        """The primary metric, a fraction."""
        return self.outcome["metrics"][self.outcome["primary"]]["value"]


def run(
    source: ModelSource,
    data: TaskData,
    spec: RunSpec,
    plan: LayerPlan,
    *,
    store: Store,
    device: str = "cpu",
    save: bool = False,
    force: bool = False,
    on_progress: Progress = lambda stage, done, total: None,
) -> Result:
    """Carry out one run, or return its record where the store has it.

    Args:
        source: the model; `spec.model` is its identity.
        data: the task's rows; `spec.evaluation.data` is their fingerprint.
        plan: the layers to drop; `spec.drop` has their indices.
        device: `cpu` or `cuda`.
        save: keep the checkpoint in the store. A stored run without one is run again.
        force: run again in any case.
        on_progress: called with the stage's name and how far it is, in steps.

    Raises:
        UserError: what the stages raise; the store is then as it was.
    """
    digest = spec.digest()
    stored = store.record(digest)
    folder = store.model_folder(digest)
    if stored is not None and not force and (folder.is_dir() or not save):
        return Result(digest, stored, folder if folder.is_dir() else None, stored=True)

    from transformers import set_seed

    from depthprune.evaluation.classification import evaluate
    from depthprune.healing.finetune import finetune
    from depthprune.surgery import drop_layers
    from depthprune.tasks.encoding import encode

    with store.claim(spec) as claimed:
        started = time.perf_counter()
        set_seed(spec.seed)  # before loading: a fresh head is random
        on_progress("load", 0, 1)
        tokenizer = load_tokenizer(source)
        encoded = encode(data, tokenizer, spec.evaluation.max_length)
        model, fresh = load_classifier(source, data.task.num_outputs, device=device)
        batches = _profile_batches(data, encoded, tokenizer, device)
        full = _profile(model, batches)

        drop_layers(model, plan)
        pruned = _profile(model, batches) if plan.dropped else full

        heal = finetune(
            model,
            tokenizer,
            encoded["train"],
            **asdict(spec.heal),
            seed=spec.seed,
            on_step=lambda done, total: on_progress("train", done, total),
        )
        metrics = evaluate(
            model,
            tokenizer,
            data.task,
            encoded,
            on_step=lambda done, total: on_progress("score", done, total),
        )
        outcome = {
            "status": "done",
            "plan": _plan(plan),
            "metrics": metrics,
            "primary": data.task.primary,
            "profile": {**pruned, **{f"full_{name}": value for name, value in full.items()}},
            "heal": asdict(heal),
            "fresh_tensors": fresh,
            "notes": list(data.notes),
            "seconds": time.perf_counter() - started,
        }
        if save:
            _save(model, data, source, plan, claimed / "model", digest)
        record = {"spec": spec.to_dict(), "outcome": outcome, "environment": _environment(source, device)}
        store.finish(digest, record)
    return Result(digest, record, folder if save else None, stored=False)


def _profile_batches(data: TaskData, encoded: Any, tokenizer: Any, device: str) -> list[dict[str, Any]]:
    from depthprune.evaluation.classification import collate

    rows = encoded[next(iter(data.task.eval_splits.values()))]
    size = min(PROFILE_EXAMPLES, len(rows))
    starts = range(0, size, PROFILE_BATCH)
    return [collate(tokenizer, rows[start : min(start + PROFILE_BATCH, size)], device=device) for start in starts]


def _profile(model: Any, batches: list[dict[str, Any]]) -> dict[str, float | int]:
    from depthprune.profiling.footprint import num_parameters, weight_bytes
    from depthprune.profiling.latency import latency_ms

    return {
        "parameters": num_parameters(model),
        "weight_bytes": weight_bytes(model),
        "latency_ms": latency_ms(model, batches),
    }


def _plan(plan: LayerPlan) -> dict[str, Any]:
    return {
        "depth": plan.depth,
        "dropped": list(plan.dropped),
        "kept": list(plan.kept),
        "strategies": list(same_choice(plan)),
    }


def _save(model: Any, data: TaskData, source: ModelSource, plan: LayerPlan, folder: Path, digest: str) -> None:
    import shutil

    from depthprune.surgery import save_checkpoint

    if data.task.labels:
        model.config.id2label = dict(enumerate(data.task.labels))
        model.config.label2id = {label: i for i, label in enumerate(data.task.labels)}
    shutil.rmtree(folder, ignore_errors=True)  # of the run that this one replaces
    more = {"task": data.task.name, "run": digest}
    save_checkpoint(
        model,
        folder,
        tokenizer_from=source.path,
        provenance=provenance.checkpoint_provenance(source, plan, **more),
    )


def _environment(source: ModelSource, device: str) -> dict[str, Any]:
    import torch

    name = torch.cuda.get_device_name() if device.startswith("cuda") else device
    return {
        **provenance.environment(name, torch.get_num_threads()),
        "model": Path(source.name).name if source.commit is None else source.name,
    }
