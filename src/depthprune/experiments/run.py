"""The one place where the stages meet: load, drop, heal, score, profile, save, record."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from depthprune import processes
from depthprune.checkpoints.companions import check_travelling
from depthprune.evaluation.base import evaluation_of, measure, merit_on_rows
from depthprune.evaluation.measurement import Measurement, primary_of
from depthprune.experiments.environment import run_environment
from depthprune.experiments.measured import Measuring, device_name
from depthprune.experiments.memory import check_memory, training_bytes
from depthprune.experiments.models import load_to_cut, teacher_of
from depthprune.experiments.saving import save_run
from depthprune.experiments.specification import shared_training, stack_depth
from depthprune.experiments.store.kept_checkpoints import MOVED_FILE, checkpoint, keep, keep_for_teaching
from depthprune.experiments.store.predictions import Predictions, write_predictions
from depthprune.experiments.store.store import LOGS, TRAINING, Store
from depthprune.experiments.transfer_set import training_rows
from depthprune.healing.base import Cut, HealReport, Teacher, TrainingData
from depthprune.healing.execution.place import Place
from depthprune.healing.execution.progress import TrainingProgress
from depthprune.healing.recipe import heal, resolve, together
from depthprune.healing.steps import remaining
from depthprune.loading import check_positions, load_tokenizer
from depthprune.plan import LayerPlan
from depthprune.quiet import no_progress
from depthprune.sources import ModelSource
from depthprune.specs import Execution, RunSpec
from depthprune.strategies import same_choice
from depthprune.tasks import TaskData
from depthprune.tasks.heads import fit_to_head

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Result:
    """A run that is done.

    Args:
        digest: its name in the store.
        record: `spec`, `outcome`, `environment`, as in record.json.
        model: the checkpoint's folder, in the store or where it was moved; None where there is none.
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
    def measured(self) -> Measurement:
        """The primary metric."""
        return primary_of(self.outcome)

    @property
    def score(self) -> float:
        """The value of the primary metric, a fraction where its unit is one."""
        return self.measured.value


def run(
    source: ModelSource,
    data: TaskData,
    spec: RunSpec,
    *,
    store: Store,
    device: str = "cpu",
    save: bool = False,
    teaches: bool = False,
    force: bool = False,
    wait: bool = True,
    profile: bool = True,
    teacher: ModelSource | None = None,
    execution: Execution = Execution(),
    on_progress: Progress = no_progress,
) -> Result:
    """Carry out one run, or return its record where the store has it.

    Args:
        source: the model; `spec.model` is its identity.
        data: the task's rows, whose fingerprint is `spec.evaluation.data`, and those that `spec.heal.unlabelled` names.
        spec: what the run is, the layers to drop among it.
        device: `cpu` or `cuda`.
        save: keep the checkpoint in the store. A stored run without one, there or where it was moved, is run again.
        teaches: keep the checkpoint in the store for the runs that it teaches, until a sweep has done the last of them.
        force: run again in any case. A checkpoint that was kept is then replaced, asked for or not: beside the new
            record it would be another model's.
        wait: where another process does this run now, wait until it is done, and go on if it dies.
        profile: measure latencies; otherwise the record has None in their place.
        teacher: the model that `spec.heal.teacher` names. A recipe that needs a teacher and names none is taught by the
            full model, fine-tuned on the task: a run of its own, whose checkpoint the store keeps for all such recipes;
            or by the model as it is, where it is fine-tuned already.
        execution: how trainings are carried out.
        on_progress: called with the stage's name and how far it is, in steps.

    Raises:
        BusyError: another process does this run now, and `wait` is false.
        UserError: what the stages raise; the store is then as it was.
    """
    data = fit_to_head(data, source.config, source.name, head=spec.heal.head)
    digest, now = spec.digest(), dict[str, Any]()
    needs = {"save": save, "teaches": teaches}
    if not force and (stored := _stored(store, digest, **needs)) is not None:
        return stored

    if save or teaches:
        check_travelling(source.path)

    def tell(stage: str, done: int, total: int) -> None:
        now.update(stage=stage, done=done, total=total)
        on_progress(stage, done, total)

    def run_other(other: RunSpec, title: str, **more: Any) -> Result:
        said = lambda stage, done, total: tell(f"{title}: {stage}", done, total)  # noqa: E731
        how = {"store": store, "device": device, "profile": profile, "execution": execution, "on_progress": said}
        return run(source, data, other, **how, **more)

    plan = LayerPlan(stack_depth(source), spec.drop.dropped)
    waits = (lambda who: on_progress(f"waiting for {who}, which does this run", 0, 1)) if wait else None
    with store.lease(spec, on_wait=waits, progress=now) if processes.is_first() else nullcontext() as leased:
        # Whoever had the claim a moment ago may have done it.
        if not force and (stored := _stored(store, digest, **needs)) is not None:
            return stored
        kept_before = processes.agree(store.model_folder(digest).is_dir())
        whole, recipe, teaching = None, resolve(spec.heal), None
        if (shared := shared_training(spec)) is not None:
            whole = run_other(shared, "training for all depths", save=True, teacher=teacher)
            recipe = remaining(recipe)
        check_memory(training_bytes(source, plan, recipe, teacher), device)
        if any(step.healer.needs_teacher for step in recipe):
            run_full = lambda full, keep: run_other(full, "teacher", teaches=keep)  # noqa: E731
            teaching = teacher_of(source, data, spec, teacher, device, run_full)
        started = time.perf_counter()
        measuring = Measuring(store, device, profile, anew=force)
        place = Place(digest, leased / LOGS, leased / TRAINING, {"run": digest}) if leased is not None else None
        training = Training(execution, place, tell, whole)
        model, outcome, predictions = _stages(source, data, spec, plan, measuring, teaching, training)
        record = None
        if leased is not None:
            outcome["seconds"] = time.perf_counter() - started
            if save or teaches or kept_before:
                tell("saving", 0, 1)
                if teaches and not save and not kept_before:
                    keep_for_teaching(leased)
                save_run(model, data, source, plan, leased / "model", spec, outcome["profile"])
            where = run_environment(source, data, device_name(device))
            record = {"spec": spec.to_dict(), "outcome": outcome, "environment": where}
            write_predictions(leased, predictions)
            (leased / MOVED_FILE).unlink(missing_ok=True)  # an earlier run's
            store.finish(digest, record)
        record = processes.agree(record)
        assert record is not None
    if save:
        keep(store.folder(digest))
    kept = save or teaches or kept_before
    return Result(digest, record, store.model_folder(digest) if kept else None, stored=False)


def _stored(store: Store, digest: str, *, save: bool, teaches: bool) -> Result | None:
    """Return what the store has of a run, alike in all processes; None where it, or its checkpoint, is to be made."""
    record = processes.agree(store.record(digest))
    model = processes.agree(checkpoint(store, digest))
    if record is None or ((save or teaches) and model is None):
        return None
    if save:
        keep(store.folder(digest))
    return Result(digest, record, model, stored=True)


@dataclass(frozen=True)
class Training:
    """How a run's trainings are carried out.

    Args:
        place: where they keep what outlives them.
        on_progress: told of their steps.
        whole: the run that has trained the whole model for all plans, where there is one: its checkpoint is cut.
    """

    execution: Execution
    place: Place | None
    on_progress: Progress
    whole: Result | None


def _stages(
    source: ModelSource,
    data: TaskData,
    spec: RunSpec,
    plan: LayerPlan,
    measuring: Measuring,
    teacher: Teacher | None,
    training: Training,
) -> tuple[Any, dict[str, Any], Predictions]:
    """Load, drop, heal, score, profile; returns the model, what came out, and its predictions.

    Only the first process measures.
    """
    from transformers import set_seed

    from depthprune.evaluation.baseline import balance_note, majority_baseline

    on_progress = training.on_progress
    on_progress("tokenising", 0, 1)
    tokenizer = load_tokenizer(source)
    encoded = evaluation_of(data.task).encode(data, tokenizer, spec.evaluation.max_length)
    rows = training_rows(data, spec, encoded["train"], tokenizer, on_progress)
    on_progress("loading the model", 0, 1)
    set_seed(spec.seed)  # before loading: a fresh head is random
    whole = training.whole
    model, fresh = load_to_cut(source, spec, data.task, measuring.device, trained=whole.model if whole else None)
    check_positions(model, max(max(each["length"]) for each in (rows.rows, *encoded.values())), source.name)
    profile = precision = None
    if processes.is_first():  # before training, which changes neither speed nor sizes
        profile = measuring.profile(model, plan, spec, data.task, encoded, tokenizer, on_progress)
        precision = measuring.precision(model, spec, encoded["train"], tokenizer, on_progress)
    precision = processes.agree(precision)
    assert precision is not None

    told, measured = TrainingProgress(on_progress, "training"), merit_on_rows(tokenizer, data.task)
    how = {"execution": training.execution, "place": training.place, "on_log": told.log}
    how |= {"num_unlabelled": rows.num_unlabelled}
    recipe = resolve(spec.heal, precision=precision.precision)
    healed = heal(
        model,
        TrainingData(rows.rows, tokenizer, on_progress, measured, **how),
        recipe if whole is None else remaining(recipe),
        cut=Cut(plan, spec.drop.order),
        seed=spec.seed,
        teacher=teacher,
        on_step=told.step,
    )
    model, trainings = healed.model, healed.trainings
    if not processes.is_first():
        return model, {}, {}
    predictions: dict[str, dict[str, list]] = {}
    metrics = measure(
        *(model, tokenizer, data.task, encoded),
        on_step=lambda done, total: on_progress("scoring", done, total),
        on_rows=lambda prefix, expected, predicted: predictions.update(
            {prefix: {"expected": expected, "predicted": predicted}}
        ),
    )
    took = _took(trainings, whole) | dict(rows.counts)
    baseline = majority_baseline(data)
    outcome = {
        "status": "done",
        "plan": {**plan.to_dict(), "kept": list(plan.kept), "strategies": list(same_choice(plan))},
        "metrics": {name: each.to_dict() for name, each in metrics.items()},
        "primary": data.task.primary,
        "baseline": baseline,
        "profile": profile,
        "heal": {**took, "precision_decided": precision.decided, "precision_seconds": precision.seconds},
        "fresh_tensors": fresh,
        "notes": [*data.notes, *balance_note(data, baseline), *rows.notes, *_warnings(spec, fresh, trainings)],
    }
    outcome["notes"] += healed.notes
    return model, outcome, predictions


def _warnings(spec: RunSpec, fresh: list[str], trainings: Sequence[HealReport]) -> list[str]:
    found = [
        f"the training diverged at step {training.diverged_step}; the weights are those of step {training.best_step}"
        for training in trainings
        if training.diverged_step is not None
    ]
    if spec.heal.fine_tuned:
        return [
            *found,
            "the model as it was given, whose head fits the task, counts as the full model and trained nothing",
        ]
    if not fresh or any(training.steps for training in trainings):
        return found
    return [
        f"nothing was trained, and '{fresh[0]}' is random, which the model does not bring for this task: its scores "
        "mean nothing; give a fine-tuned model, or more than 0 epochs"
    ]


def _took(trainings: Sequence[HealReport], whole: Result | None) -> dict[str, Any]:
    took = _reported(together(trainings))
    took |= {"trainings": [_reported(each) for each in trainings]} if len(trainings) > 1 else {}
    return took | ({"trained_in": whole.digest} if whole is not None else {})


def _reported(training: HealReport) -> dict[str, Any]:
    """Return a report as a record has it: JSON knows no tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(training).items()}
