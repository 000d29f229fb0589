"""Recipes: parse them, resolve their steps, run them.

A recipe is a tuple of steps. It is written `finetune(num_epochs=2)+drop+finetune`, as the name of a registered recipe,
or in YAML as a list of names and of mappings `{method: finetune, num_epochs: 2}`. A step overrides entries of the whole
recipe (`specs.STEP_ENTRIES`) and sets its method's own options. If no step drops the layers, they are dropped before
the first step.

Entries of older recipes (`epochs_before`, `drop_every`, `freeze_*`) stand for steps. No torch before `heal`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, get_type_hints

from depthprune.errors import UserError
from depthprune.healing.base import (
    UNTRAINED,
    Cut,
    Healed,
    Healer,
    HealReport,
    OnStep,
    PlannedStep,
    Schedule,
    Teacher,
    TrainingData,
    recipes,
    registry,
)
from depthprune.healing.steps import run_steps
from depthprune.registry import unknown
from depthprune.specs import STEP_ENTRIES, HealSpec, Step
from depthprune.specs.options import options_of, read_value

if TYPE_CHECKING:
    from transformers import PreTrainedModel

UNLABELLED = ("unlabelled", "unlabelled_rows")  # entries of a recipe about rows without labels


def parse_recipe(value: str | Iterable[str | Step | Mapping[str, Any]]) -> tuple[Step, ...]:
    """Return the steps of a recipe that is given as text, or as a list of texts, steps and mappings.

    >>> [str(step) for step in parse_recipe("two-step")]
    ['finetune', 'drop', 'finetune']

    Raises:
        UserError: if a method, recipe or option does not exist, or a value has another type.
    """
    steps: list[Step] = []
    for item in [value] if isinstance(value, str) else value:
        if isinstance(item, Step):
            steps.append(_step(item.method, dict(item.options)))
        elif isinstance(item, str):
            for part in _split(item, "+"):
                steps += _named(part)
        elif isinstance(item, Mapping) and isinstance(item.get("method"), str):
            options = {k: v for k, v in item.items() if k not in ("method", "options")}
            steps.append(_step(item["method"], options | dict(item.get("options", ()))))
        else:
            raise UserError(f"{item!r} is not a step; write a method's name, or {{method: NAME, num_epochs: 2}}")
    return tuple(steps)


def read_recipe(
    values: Mapping[str, Any], said: Callable[[str], str] = str, kind: type[HealSpec] = HealSpec
) -> HealSpec:
    """Return a recipe from plain values, as a sweep's file or the command line has them.

    >>> read_recipe({"num_epochs": 2, "steps": "two-step"}).steps == parse_recipe("finetune+drop+finetune")
    True

    Args:
        values: name of a field of `HealSpec` → its value, as itself or as text.
        said: from the name of a field to what complaints call it.
        kind: the class of the recipe.

    Raises:
        UserError: no such field, a value of another kind or out of bounds, or no such method.
    """
    known, read = options_of(kind), {}
    for name, value in values.items():
        if name not in known:
            raise unknown("entry of a recipe", str(name), list(known))
        if name == "steps":
            read[name] = parse_recipe(value if isinstance(value, str | list | tuple) else [value])
        else:
            read[name] = known[name].read(value, said(name))
    return kind(**read)


def read_beside(own: Mapping[str, Any], shared: Mapping[str, Any]) -> HealSpec:
    """Return a recipe from its own plain values, and from those that hold for all recipes which do not say them.

    Unlabelled rows that are named for all hold for the recipes that learn from a teacher's answers, and for no others.

    Raises:
        UserError: see `read_recipe` and `resolve`.
    """
    plain = {name: value for name, value in {**shared, **own}.items() if name not in UNLABELLED}
    if not any(step.healer.teacher_loss for step in resolve(read_recipe(plain))):
        shared = {name: value for name, value in shared.items() if name not in UNLABELLED}
    return read_recipe({**shared, **own})


def as_recorded(heal: HealSpec) -> HealSpec:
    """Return a recipe as a run's spec has it: one that is written as the step `finetune` is plain fine-tuning.

    >>> as_recorded(HealSpec(steps=parse_recipe("finetune"))) == HealSpec()
    True
    """
    return replace(heal, steps=()) if heal.steps in ((Step("finetune"),), (Step("drop"), Step("finetune"))) else heal


def resolve(heal: HealSpec, *, precision: str | None = None) -> tuple[PlannedStep, ...]:
    """Return the steps of a recipe, ready to be carried out.

    Args:
        precision: what was decided for `auto`.

    Raises:
        UserError: if a method or option does not exist, a value has another type, or is out of range.
    """
    heal.check()
    whole = Schedule(**{item.name: getattr(heal, item.name) for item in fields(Schedule)})
    whole = replace(whole, precision=precision or heal.precision)
    steps = parse_recipe(heal.steps) if heal.steps else _steps_of_entries(heal)
    planned = [_planned(step, whole) for step in steps]
    if heal.teacher and not any(step.healer.needs_teacher for step in planned):
        raise UserError("the recipe names a teacher, and none of its steps needs one; leave the teacher out")
    if heal.unlabelled and not any(step.healer.teacher_loss for step in planned):
        raise UserError(
            "the recipe names unlabelled rows, and none of its steps learns from a teacher's answers to them; leave "
            "them out, or give a recipe that does, such as logit-kd"
        )
    dropping = [step.healer.name for step in planned if step.healer.drops]
    if again := [name for name in dropping[1:] if name != "drop"]:
        raise UserError(
            f"'{dropping[0]}' drops all layers that are to go, and leaves none for '{again[0]}'; give one of the two"
        )
    if not dropping:
        planned.insert(0, PlannedStep(registry.get("drop"), None, whole))
    return tuple(planned)


def heal(
    model: "PreTrainedModel",
    data: TrainingData,
    recipe: Sequence[PlannedStep],
    *,
    cut: Cut,
    seed: int,
    teacher: Teacher | None = None,
    on_step: OnStep | None = None,
) -> Healed:
    """Run a recipe; parameters that its steps freeze are trainable again afterwards.

    Args:
        model: the full model, changed in place.
        data: to train on.
        recipe: from `resolve`.
        cut: the layers to drop.
        seed: of every training in it.
        teacher: the full model, for methods that need one.
        on_step: called after each optimiser step; every training counts from 1.

    Raises:
        UserError: if a method needs a teacher and there is none, does not return `Healed`, or leaves layers in the
            model that should be dropped.
    """
    from depthprune.healing.without_dropout import run_with_dropout

    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        healed = run_steps(model, data, recipe, cut=cut, seed=seed, teacher=teacher, on_step=on_step)
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        run_with_dropout(model)
    if cut.pending:
        raise UserError(
            f"the recipe leaves layer {cut.pending[0]}, which was to go, in the model; give it a step 'drop'"
        )
    return healed


def together(reports: Sequence[HealReport]) -> HealReport:
    """Combine the reports of several trainings: times and steps are sums, loss and precision those of the last.

    The history of several is that of each, and not of all.
    """
    if not reports:
        return UNTRAINED
    seconds = sum(report.seconds for report in reports)
    examples = sum(report.examples_per_second * report.seconds for report in reports)
    return replace(
        reports[-1],
        seconds=seconds,
        examples_per_second=examples / seconds if seconds else 0.0,
        steps=sum(report.steps for report in reports),
        history=reports[0].history if len(reports) == 1 else (),
    )


def _steps_of_entries(heal: HealSpec) -> tuple[Step, ...]:
    """Return the steps that the entries of a recipe without steps stand for."""
    frozen = _options(layers=heal.freeze_layers, embeddings=heal.freeze_embeddings)
    steps = [Step("freeze", frozen)] if frozen else []
    if heal.gradual:
        return (*steps, Step("gradual", _options(every=heal.drop_every, every_steps=heal.drop_every_steps)))
    if heal.epochs_before:
        steps += [Step("freeze", _options(dropped=True))] if heal.freeze_dropped else []
        steps += [Step("finetune", _options(num_epochs=heal.epochs_before))]
    return (*steps, Step("drop"), Step("finetune"))


def _options(**values: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((name, value) for name, value in values.items() if value))


def _planned(step: Step, whole: Schedule) -> PlannedStep:
    healer, values = registry.get(step.method), dict(step.options)
    schedule = replace(whole, **{name: values.pop(name) for name in STEP_ENTRIES if name in values})
    for item in options_of(Schedule).values():
        item.check(getattr(schedule, item.name), f"'{step}': {item.name}")
    schedule.check_parts()
    return PlannedStep(healer, healer.options(**values) if healer.options is not None else None, schedule)


def _named(text: str) -> tuple[Step, ...]:
    """Return the steps of `name` or `name(option=value, …)`."""
    found = re.fullmatch(r"\s*([\w.-]+)\s*(?:\((.*)\))?\s*", text, re.DOTALL)
    if found is None:
        raise UserError(f"'{text}' is not a step of a recipe; write NAME or NAME(option=value, …), and + between steps")
    name, inside = found[1], found[2]
    known = [*registry.names(), *recipes.names()]
    if name not in known:
        raise unknown("healing method or recipe", name, sorted(known), among=(registry, recipes))
    if name not in recipes.names():
        return (_step(name, _read(inside or "", text)),)
    if inside:
        raise UserError(
            f"'{name}' is a recipe and takes no options; write its steps out: {show(recipes.get(name).steps)}"
        )
    return parse_recipe(recipes.get(name).steps)


def show(steps: Iterable[Step]) -> str:
    """Return a recipe as text that `parse_recipe` reads.

    >>> show((Step("freeze", (("layers", (0, 1)),)), Step("finetune")))
    'freeze(layers=0-1)+finetune'
    """
    return "+".join(map(str, steps))


def _read(inside: str, text: str) -> dict[str, Any]:
    """Return the options between the parentheses, values as text; a part without `=` belongs to the one before it."""
    options: dict[str, str] = {}
    for part in _split(inside, ","):
        name, equals, value = (each.strip() for each in part.partition("="))
        if equals:
            options[name] = value
        elif options:
            options[next(reversed(options))] += f",{name}"  # layers=0,2-3
        else:
            raise UserError(f"'{part.strip()}' in '{text}' is not an option; write option=value")
    return options


def _split(text: str, at: str) -> list[str]:
    """Split text at a character outside of parentheses."""
    return [part for part in re.split(rf"{re.escape(at)}(?![^(]*\))", text) if part.strip() or at == "+"]


def _step(method: str, options: Mapping[str, Any]) -> Step:
    """Return a step with options of the right kinds."""
    healer = registry.get(method)
    kinds = {name: options_of(Schedule)[name].kind for name in STEP_ENTRIES} | _kinds(healer)
    values = {}
    for name, value in options.items():
        if name not in kinds:
            raise unknown(f"option of '{method}'", name, sorted(kinds))
        values[name] = read_value(kinds[name], f"{name} of '{method}'", value)
    return Step(method, tuple(sorted(values.items())))


def _kinds(healer: Healer) -> dict[str, Any]:
    return get_type_hints(healer.options) if healer.options is not None else {}
