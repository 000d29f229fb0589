"""From what a person says to the values that a run takes. The Python API's `run` and `finetune` live here."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from depthprune import processes
from depthprune.arguments import checked
from depthprune.devices import resolve_device
from depthprune.experiments.run import Progress, Result, run
from depthprune.experiments.specification import make_spec, stack_depth, teacher_run
from depthprune.experiments.store.kept_checkpoints import hand_over
from depthprune.experiments.store.store import DEFAULT_STORE, Store
from depthprune.experiments.transfer_set import with_unlabelled
from depthprune.healing.execution.reporting import check_reporters
from depthprune.healing.recipe import resolve
from depthprune.loading import model_class
from depthprune.output import check_target
from depthprune.plan import LayerPlan
from depthprune.quiet import no_progress, quietly
from depthprune.sources import ModelSource, locate
from depthprune.specs import EvalSpec, Execution, HealSpec, RunSpec
from depthprune.strategies import plan_layers, removal_order
from depthprune.tasks import TaskData, TaskOptions, load_task


@dataclass(frozen=True)
class Comparison:
    """A shortened model beside the full one, fine-tuned and scored alike.

    Args:
        full: the run that drops nothing.
        pruned: the run that was asked for; the same as `full` where that drops nothing.
    """

    full: Result
    pruned: Result

    @property
    def retention(self) -> float | None:
        """The share of the full model's quality that the pruned one keeps; see `Measurement.retained`."""
        return self.pruned.measured.retained(self.full.measured)


@checked("run")
@quietly()
def compare(
    model: str | Path,
    task: str,
    *,
    strategy: str | None = None,
    count: int | None = None,
    layers: str | Iterable[int] | None = None,
    keep: str | Iterable[int] | None = None,
    threshold: float | None = None,
    protect: str | None = None,
    options: TaskOptions | None = None,
    heal: HealSpec | None = None,
    teacher: str | Path | None = None,
    max_length: int = EvalSpec.max_length,
    seed: int = RunSpec.seed,
    store: Path | str = DEFAULT_STORE,
    device: str = "auto",
    force: bool = False,
    save: bool = True,
    profile: bool = True,
    execution: Execution = Execution(),
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: Progress = no_progress,
) -> Comparison:
    """Drop layers of a pre-trained model, fine-tune what is left, and score it beside the full model.

    This is `depthprune.run`. Runs that the store has are not run again.

    Args:
        model: a local folder or a Hub id.
        task: one of `depthprune list`: a GLUE task, `docstrings`, or `custom`.
        strategy: how to choose the layers, with `count`: by position, or by a score, which is then taken on the
            task's training rows; or give `layers` or `keep` instead.
        count: how many layers to drop.
        layers: layers to drop, such as `"8,9-11"`.
        keep: layers to keep, in the same form.
        threshold: with a score on the cosine, instead of `count`: layers whose mean cosine is above it go.
        protect: with a score: layers that stay, such as `"0,-1"`.
        options: where the task's data lies, and its columns.
        heal: epochs, learning rate, batch size, steps, where rows without labels are; the paper's example by default.
        teacher: a fine-tuned model, for recipes that need one. If None, the model itself as it is, where it has a
            trained head for the task, and else the full model's own run.
        max_length: tokens to which an example is cut.
        seed: of the fresh head, of dropout, of the order of the rows.
        store: the folder of runs.
        device: `auto`, `cpu` or `cuda`.
        force: run again what the store has.
        save: keep the pruned checkpoint, at `.pruned.model`.
        profile: measure latencies; a record without has None in their place.
        execution: gradient checkpointing, and where losses are reported to.
        on_progress: called with the stage's name (the run's first) and how far it is.

    Raises:
        UserError: for anything that the user can fix; the message is one line.
    """
    from depthprune.experiments.choosing.choose import (  # which score layers, which needs this module
        Choice,
        choose_plan,
    )

    choice = Choice(strategy, count, layers, keep, threshold, protect)
    choice.check()  # before anything is loaded
    heal = heal or HealSpec()
    trust = {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
    teaching = None if teacher is None else locate(teacher, **trust)
    heal = heal if teaching is None else dataclasses.replace(heal, teacher=teaching.identity)
    resolve(heal)
    check_reporters(execution.report_to)
    Store(store).check_writable()
    source = locate(model, **trust)
    depth = stack_depth(source)
    by_data = choice.by_score or choice.by_search
    plan = None if by_data else plan_layers(depth, strategy=strategy, count=count, layers=layers, keep=keep)
    device = resolve_device(device)
    processes.begin(device)
    data, heal = with_unlabelled(load_task(task, options), heal)
    order = None if plan is None else removal_order(plan, strategy)
    if plan is None:
        chosen = None
        if processes.is_first():
            where = {"max_length": max_length, "store": Path(store), "device": device, "on_progress": on_progress}
            chosen = choose_plan(choice, depth, source, data, **where)
        chosen = processes.agree(chosen)
        assert chosen is not None, "the first process chooses for all"
        plan, order = chosen
    runs = Store(store)

    def spec_of(chosen: LayerPlan) -> RunSpec:
        return make_spec(source, data, chosen, heal=heal, max_length=max_length, seed=seed, order=order)

    def one(chosen: LayerPlan, title: str, keep_model: bool) -> Result:
        return run(
            source,
            data,
            spec_of(chosen),
            store=runs,
            device=device,
            save=keep_model,
            force=force,
            profile=profile,
            teacher=teaching,
            execution=execution,
            on_progress=lambda stage, done, total: on_progress(f"{title}: {stage}", done, total),
        )

    if not plan.dropped:
        full = one(plan, "full model", save)
        return Comparison(full, full)
    check_plan_early(source, plan, data)
    teaches = teacher_run(spec_of(plan)) is not None
    full = one(dataclasses.replace(plan, dropped=()), "full model", teaches)
    return Comparison(full, one(plan, "pruned model", save))


@checked("finetune")
def finetune(
    model: str | Path,
    task: str,
    *,
    options: TaskOptions | None = None,
    heal: HealSpec | None = None,
    output: Path | str | None = None,
    max_length: int = EvalSpec.max_length,
    seed: int = RunSpec.seed,
    store: Path | str = DEFAULT_STORE,
    device: str = "auto",
    force: bool = False,
    execution: Execution = Execution(),
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: Progress = no_progress,
) -> Result:
    """Fine-tune a checkpoint as it is, such as one that was cut, and score it. This is `depthprune.finetune`.

    It is a run that drops nothing: one that the store has is not run again.

    Args:
        model: a local folder or a Hub id.
        task: one of `depthprune list`: a GLUE task, `docstrings`, or `custom`.
        options: where the task's data lies, and its columns.
        heal: epochs, learning rate, batch size; the paper's example by default.
        output: where the checkpoint goes; it stays in the store without it.
        max_length: tokens to which an example is cut.
        seed: of the fresh head, of dropout, of the order of the rows.
        store: the folder of runs.
        device: `auto`, `cpu` or `cuda`.
        force: run again what the store has.
        execution: gradient checkpointing, and where losses are reported to.
        on_progress: called with the stage's name and how far it is.

    Returns:
        The run: `.score`, `.outcome`, and the checkpoint at `.model`.

    Raises:
        UserError: anything a user can cause, in one line.
    """
    if output is not None:
        check_target(Path(output))
    result = compare(
        model,
        task,
        options=options,
        heal=heal,
        max_length=max_length,
        seed=seed,
        store=store,
        device=device,
        force=force,
        execution=execution,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
        on_progress=on_progress,
    ).full
    return (
        result
        if output is None
        else dataclasses.replace(result, model=hand_over(Store(store), result.digest, Path(output)))
    )


def check_plan_early(source: ModelSource, plan: LayerPlan, data: TaskData) -> None:
    """Refuse a plan that the architecture does not allow before the full model is trained for nothing.

    Raises:
        CannotDropError: see `surgery.proof.comparison.check_drop`.
    """
    from depthprune.surgery.modules import probe_stacks, pruned_config
    from depthprune.surgery.proof.comparison import check_drop
    from depthprune.surgery.stacks import match_plans

    chosen, config = model_class(source)
    plans = match_plans(probe_stacks(chosen, config), plan)
    check_drop(chosen, config, pruned_config(config, plans, chosen), plans)
