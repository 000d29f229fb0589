"""Train once, cut at any depth: `depthprune.train_once`, and `depthprune run --depths`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from depthprune import processes
from depthprune.arguments import checked
from depthprune.devices import resolve_device
from depthprune.errors import UserError
from depthprune.experiments.choosing.choose import Choice, choose_plan
from depthprune.experiments.comparison import check_plan_early
from depthprune.experiments.depths.recipe import (
    plan_of,
    read_depths,
    says_order,
    training_recipe,
    with_depths,
    with_order,
)
from depthprune.experiments.run import Progress, Result, run
from depthprune.experiments.specification import make_spec, shared_training, stack_depth, teacher_run
from depthprune.experiments.store.kept_checkpoints import hand_over, moved_to
from depthprune.experiments.store.store import DEFAULT_STORE, Store
from depthprune.experiments.transfer_set import with_unlabelled
from depthprune.healing.execution.reporting import check_reporters
from depthprune.output import check_target
from depthprune.quiet import no_progress, quietly
from depthprune.sources import locate
from depthprune.specs import DropSpec, EvalSpec, Execution, HealSpec, RunSpec
from depthprune.tasks import TaskOptions, load_task

DEFAULT_STRATEGY = "top"


@dataclass(frozen=True)
class DepthCurve:
    """One model at several depths, all from one training.

    Args:
        full: the run of the full model, fine-tuned by itself, which the others are compared with.
        runs: depth → the run of the model that was cut to it, the deepest first.
    """

    full: Result
    runs: Mapping[int, Result]

    def retention(self, depth: int) -> float | None:
        """The share of the full model's quality that is kept at a depth; see `Measurement.retained`."""
        return self.runs[depth].measured.retained(self.full.measured)


@checked("train_once")
@quietly()
def train_once(
    model: str | Path,
    task: str,
    depths: str | Iterable[int],
    *,
    strategy: str | None = None,
    protect: str | None = None,
    options: TaskOptions | None = None,
    heal: HealSpec | None = None,
    teacher: str | Path | None = None,
    output: Path | str | None = None,
    max_length: int = EvalSpec.max_length,
    seed: int = RunSpec.seed,
    store: Path | str = DEFAULT_STORE,
    device: str = "auto",
    force: bool = False,
    profile: bool = True,
    execution: Execution = Execution(),
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: Progress = no_progress,
) -> DepthCurve:
    """Train a model once so that it can be cut at any depth, and score it at several. This is `depthprune.train_once`.

    A smaller depth lacks the layers that a larger one lacks, and more. The checkpoint of the training stays in the
    store: a depth that is asked for later costs no training.

    Args:
        model: a local folder or a Hub id.
        task: one of `depthprune list`: a GLUE task, `docstrings`, or `custom`.
        depths: how many layers are left, each a checkpoint: `"12,9,6"`, `"4-12"` or numbers. The model's own depth is
            the whole model after the training.
        strategy: which layers go, in its order: `top` (the default), another one by position, by a score or a search.
        protect: with a score or a search: layers that stay, such as `"0,-1"`.
        options: where the task's data lies, and its columns.
        heal: the training; its layers go with `adaptive-layers` (the default) or `layerdrop`. Where its depths are not
            said, `adaptive-layers` trains every depth from the smallest of `depths` on.
        teacher: a fine-tuned model, for recipes that need one.
        output: a folder in which each checkpoint gets a folder, `depth-12` and so on; they stay in the store without.
        max_length: tokens to which an example is cut.
        seed: of the fresh head, of dropout, of the order of the rows, of the sub-networks that are drawn.
        store: the folder of runs.
        device: `auto`, `cpu` or `cuda`.
        force: run again what the store has.
        profile: measure latencies; a record without has None in their place.
        execution: where losses are reported to.
        on_progress: called with the stage's name (the run's first) and how far it is.

    Raises:
        UserError: for anything that the user can fix; the message is one line.
    """
    asked, heal = read_depths(depths), training_recipe(heal or HealSpec())
    if strategy is not None and says_order(heal):
        raise UserError("the recipe says in which order layers go, and the strategy does, too; leave one of them out")
    Choice(strategy or DEFAULT_STRATEGY, count=1, protect=protect).check()  # before anything is loaded
    trust = {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
    teaching = None if teacher is None else locate(teacher, **trust)
    heal = heal if teaching is None else replace(heal, teacher=teaching.identity)
    check_reporters(execution.report_to)
    runs = Store(store)
    runs.check_writable()
    source = locate(model, **trust)
    depth = stack_depth(source)
    heal, smallest = with_depths(heal, asked, depth)
    device = resolve_device(device)
    processes.begin(device)
    data, heal = with_unlabelled(load_task(task, options), heal)
    order = None
    if not says_order(heal):
        choice = Choice(strategy or DEFAULT_STRATEGY, depth - smallest, protect=protect)
        where = {"max_length": max_length, "store": Path(store), "device": device, "on_progress": on_progress}
        _, order = choose_plan(choice, depth, source, data, **where)
    heal, order = with_order(heal, order, depth)
    lowest = plan_of(depth, order, smallest)
    check_plan_early(source, lowest, data)
    cut = make_spec(source, data, lowest, heal=heal, max_length=max_length, seed=seed)
    specs = {each: replace(cut, drop=DropSpec(plan_of(depth, order, each).dropped)) for each in asked}
    targets = {} if output is None else {each: Path(output).absolute() / f"depth-{each}" for each in asked}
    for each, target in targets.items():
        if force or moved_to(runs, specs[each].digest()) != target:
            check_target(target)

    def one(spec: RunSpec, title: str, *, save: bool = True, teaches: bool = False) -> Result:
        said = lambda stage, done, total: on_progress(f"{title}: {stage}", done, total)  # noqa: E731
        how: dict[str, Any] = {"store": runs, "device": device, "force": force, "profile": profile}
        how |= {"teacher": teaching, "execution": execution}
        return run(source, data, spec, save=save, teaches=teaches, on_progress=said, **how)

    training = shared_training(cut)
    assert training is not None, "the recipe has been checked"
    plain, taught = replace(training, heal=training.heal.for_full()), teacher_run(cut) is not None
    full = one(plain, "full model", save=False, teaches=taught)
    if force and training not in specs.values():
        one(training, "training for all depths")
    found = {}
    for each, spec in specs.items():
        result = one(spec, f"depth {each}")
        if (target := targets.get(each)) is not None:
            if moved_to(runs, result.digest) != target:
                hand_over(runs, result.digest, target, stays=spec == training)
            result = replace(result, model=target)
        found[each] = result
    return DepthCurve(full, found)
