"""From a model, the rows of a task and a plan to the spec of a run. No torch where config.json names the depth."""

from dataclasses import replace

from depthprune.errors import LoadError, UserError
from depthprune.healing.recipe import as_recorded, resolve
from depthprune.healing.steps import shared_length
from depthprune.loading import model_class
from depthprune.plan import LayerPlan, choose_stack
from depthprune.sources import ModelSource
from depthprune.specs import DropSpec, EvalSpec, HealSpec, RunSpec
from depthprune.specs.healing import ARCHITECTURE, POOLED, POOLING
from depthprune.strategies import removal_order
from depthprune.surgery.config.depth import depth_keys
from depthprune.surgery.stacks import depths_of
from depthprune.tasks import TaskData
from depthprune.tasks.heads import fit_to_head, fits_head


def stack_depth(source: ModelSource) -> int:
    """Return the depth of the model's stack, from its configuration alone where that leaves no doubt.

    Raises:
        CannotDropError: it has none.
        PlanError: it has several.
    """
    keys = depth_keys(source.config)
    if len(keys) == 1 and "." not in next(iter(keys)):
        return next(iter(keys.values()))
    from depthprune.surgery.modules import probe_stacks

    stacks = probe_stacks(*model_class(source))
    depths = depths_of(stacks)
    return depths[choose_stack(depths, model=f"'{source.name}'", advice="this command cuts models with one")]


def with_given_head(source: ModelSource, data: TaskData, heal: HealSpec) -> HealSpec:
    """Return the recipe for a model that may have learned the task already.

    Where the recipe needs a teacher, names none, and the model brings a trained head for the task, the model is
    `fine_tuned`: as it is, it is the full model that a cut is compared with, and the teacher. A trained head that is
    what the recipe asks for stays, and counts as the one that the model has.

    Raises:
        UserError: the recipe says that the model is fine-tuned, and it has no head for the task, or asks for a head
            that the task or the model cannot have.
    """
    heal = replace(heal, head=_pooling_of(source) if heal.head == POOLING else heal.head)
    fits = fits_head(data, source.config, source.name, head=heal.head)
    heal = replace(heal, head=ARCHITECTURE) if fits else heal
    if heal.fine_tuned and not fits:
        raise UserError(
            f"'{source.name}' has no trained head for '{data.task.name}', so it is not fine-tuned on it; leave "
            "--fine-tuned out, or give a model that is"
        )
    return replace(heal, fine_tuned=True) if fits and not heal.teacher and needs_teacher(heal) else heal


def _pooling_of(source: ModelSource) -> str:
    """Return how a model's folder pools; the mean where it does not say.

    Raises:
        LoadError: in a way that no head can read, or in several.
    """
    from depthprune.tasks.pooling import read_pooling

    first, *more = ways = read_pooling(source.path)
    if more or first not in POOLED:
        raise LoadError(
            f"'{source.name}' pools by {' and '.join(ways)}, and a head reads one of {', '.join(POOLED)}; give --head "
            "with one of these"
        )
    return first


def needs_teacher(heal: HealSpec) -> bool:
    """Tell whether a step of a recipe needs a teacher."""
    return any(step.healer.needs_teacher for step in resolve(heal))


def make_spec(
    source: ModelSource,
    data: TaskData,
    plan: LayerPlan,
    *,
    heal: HealSpec,
    max_length: int,
    seed: int,
    order: tuple[int, ...] | None = None,
) -> RunSpec:
    """Put a run's spec together. A task's fixed hold-out is part of the data's fingerprint.

    Args:
        order: in which layers go where they go one by one; by default the one nearest the output first.

    Raises:
        UserError: the recipe says that the model is fine-tuned, and it has no head for the task.
    """
    heal = as_recorded(with_given_head(source, data, heal))
    fitted = fit_to_head(data, source.config, source.name, head=heal.head).task
    more = {"outputs": fitted.outputs, "metric": data.task.chosen_metric}
    evaluation = EvalSpec(task=data.task.name, data=data.fingerprint, max_length=max_length, **more)
    drop = DropSpec(plan.dropped)
    if not plan.dropped:
        heal = heal.for_full()
    elif any(step.healer.one_by_one for step in resolve(heal)):
        drop = DropSpec(plan.dropped, order or removal_order(plan))
    return RunSpec(model=source.identity, evaluation=evaluation, drop=drop, heal=heal, seed=seed)


def teacher_run(spec: RunSpec) -> RunSpec | None:
    """Return the run of the full model whose checkpoint teaches a run; None where a model teaches it that is there."""
    if spec.heal.teacher or spec.heal.fine_tuned or not needs_teacher(spec.heal):
        return None
    return replace(spec, drop=DropSpec(), heal=spec.heal.for_full())


def shared_training(spec: RunSpec) -> RunSpec | None:
    """Return the run that trains the whole model once for all plans, from whose checkpoint a run's layers are dropped.

    It has the steps of the recipe that are the same for all plans (`healing.steps`), and drops nothing. None where
    there are no such steps, or the run is that training itself.
    """
    recipe = resolve(spec.heal)
    length = shared_length(recipe)
    taught = any(step.healer.needs_teacher for step in recipe[:length])
    heal = replace(spec.heal, steps=spec.heal.steps[:length], teacher=spec.heal.teacher if taught else "")
    if not any(step.healer.teacher_loss for step in recipe[:length]):
        heal = replace(heal, unlabelled=(), unlabelled_rows=0)
    whole = replace(spec, drop=DropSpec(), heal=heal)
    return whole if length and whole != spec else None
