"""What a healing method is, and the values that it is given and returns.

A method is a function in a file of its own in `healing/methods/`. It takes a model and returns a plain one, which
`save_pretrained` writes without anything of the method in it (adapters are merged). Parameters that are frozen when it
is called stay as they are. With the same seed it does the same on the CPU. No torch here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from depthprune.errors import PlanError
from depthprune.healing.execution.place import Place
from depthprune.plan import LayerPlan
from depthprune.quiet import no_progress
from depthprune.registry import Registry, first_line
from depthprune.specs import Execution, Step
from depthprune.specs import Schedule as Schedule

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OnStep = Callable[[int, int], None]  # (optimiser steps done, optimiser steps in all)


Point = Mapping[str, float]  # `step`, and either `loss` and `learning_rate` or `validation_score`


def no_log(point: Point) -> None:
    """Do nothing: the default of `on_log`."""


@dataclass(frozen=True)
class TrainingData:
    """What to train on, and what every training in a recipe needs to know beside it.

    Args:
        rows: `input_ids`, `attention_mask`, …, `length`, and `labels` if there are any (`tasks.data.encoding.encode`).
        tokenizer: pads them.
        on_progress: called with the name of what else than a training takes time, and how far it is.
        measure: returns what a model scores on rows such as these, more being better (a perplexity with its sign
            turned); needed to choose among epochs.
        execution: how trainings are carried out.
        on_log: called with each point of a training's history.
        place: where trainings keep what outlives them; None for nowhere.
        num_unlabelled: how many of the rows, the last ones, have no label: what stands in `labels` there means nothing.
            Only a method with a `teacher_loss` gets such rows (`Healer`).
    """

    rows: "Dataset"
    tokenizer: "PreTrainedTokenizerBase"
    on_progress: Callable[[str, int, int], None] = no_progress
    measure: "Callable[[PreTrainedModel, Dataset], float] | None" = None
    execution: Execution = field(default_factory=Execution)
    on_log: Callable[[Point], None] = no_log
    place: Place | None = None
    num_unlabelled: int = 0

    def labelled_rows(self) -> "TrainingData":
        """Return the same without the rows that have no label."""
        labelled = range(len(self.rows) - self.num_unlabelled)
        return replace(self, rows=self.rows.select(labelled), num_unlabelled=0) if self.num_unlabelled else self

    @property
    def labelled(self) -> bool:
        """Whether the rows have labels."""
        return "labels" in self.rows.column_names


class Teacher(Protocol):
    """The full model that a method may imitate."""

    @property
    def identity(self) -> str:
        """The model by content, as in a run's spec."""
        ...

    @property
    def pooling(self) -> tuple[str, ...]:
        """How its folder makes one vector of a sequence (`tasks.pooling.read_pooling`)."""
        ...

    def model(self) -> "PreTrainedModel":
        """Return the whole model, in evaluation mode and without gradients, where the student is."""
        ...


class Cut:
    """The layers of the model while it is healed, by index in the model that was given.

    Args:
        plan: the layers to drop.
        order: the same layers in the order in which they go one by one; the last one first if empty.
        done: whether they have gone already: a checkpoint that was cut before is healed.
    """

    def __init__(self, plan: LayerPlan, order: tuple[int, ...] = (), *, done: bool = False):
        self.plan = plan
        self._order = order or plan.dropped[::-1]
        self.present: tuple[int, ...] = plan.kept if done else tuple(range(plan.depth))

    @property
    def pending(self) -> tuple[int, ...]:
        """The layers that are still to be dropped, in the order in which they go."""
        return tuple(layer for layer in self._order if layer in self.present)

    def drop(self, model: "PreTrainedModel", layers: Iterable[int]) -> None:
        """Drop layers of `model`, in place.

        Raises:
            CannotDropError: if the architecture does not allow it.
        """
        from depthprune.surgery import drop_layers

        going = set(layers)
        positions = tuple(i for i, layer in enumerate(self.present) if layer in going)
        drop_layers(model, LayerPlan(len(self.present), positions))
        self.present = tuple(layer for layer in self.present if layer not in going)

    def modules(self, model: "PreTrainedModel", layers: Iterable[int]) -> list["nn.Module"]:
        """Return the modules of those of `layers` that are still in `model`.

        Raises:
            PlanError: if the original model has no such layer.
        """
        from depthprune.surgery.modules import find_stacks

        layers = tuple(layers)
        wrong = [layer for layer in layers if not 0 <= layer < self.plan.depth]
        if wrong:
            raise PlanError(f"layer {wrong[0]} does not exist: the stack has layers 0 to {self.plan.depth - 1}")
        stack = next(iter(find_stacks(model).values()))
        positions = [self.present.index(layer) for layer in layers if layer in self.present]
        return [model.get_submodule(path).get_submodule(str(i)) for path in stack.paths for i in positions]


@dataclass(frozen=True)
class HealReport:
    """What a training took.

    Args:
        seconds: training only, without probe and evaluation.
        examples_per_second: over those seconds.
        steps: optimiser steps.
        loss: mean training loss; None where nothing was trained.
        precision: what was used, `float32` or `bfloat16`.
        best_step: the step whose weights were kept, where they were chosen among epochs.
        validation_score: what they scored on the training rows that were held out.
        diverged_step: the step at which the loss was not finite, where earlier weights were kept.
        history: points of the training: mean losses of up to about a hundred intervals, with the learning rate at
            their last step, and the score of each epoch on the rows that were held out.
        frozen: how the states of frozen layers were come by, where they were computed once or that was asked for.
        resumed_steps: the steps from which it was resumed after it had been interrupted.
    """

    seconds: float
    examples_per_second: float
    steps: int
    loss: float | None
    precision: str
    best_step: int | None = None
    validation_score: float | None = None
    diverged_step: int | None = None
    history: tuple[Point, ...] = ()
    frozen: str | None = None
    resumed_steps: tuple[int, ...] = ()


UNTRAINED = HealReport(0.0, 0.0, 0, None, "float32")


@dataclass(frozen=True)
class Healed:
    """What a method returns.

    Args:
        model: a plain one; the one that was given, or another.
        trainings: a report for each training, none where nothing was trained.
        notes: what a reader of the record should know, a sentence each.
    """

    model: "PreTrainedModel"
    trainings: tuple[HealReport, ...] = ()
    notes: tuple[str, ...] = ()


# (model, data, options, *, schedule, seed, cut, teacher, on_step) → Healed
Method = Callable[..., Healed]


@dataclass(frozen=True)
class Healer:
    """A named healing method.

    Args:
        name: what recipes call it.
        function: carries it out; see `healing.methods.finetune` for its arguments.
        options: a frozen dataclass of the method's own options, each with a default; None where it has none.
        paper: address of the publication it comes from; empty where there is none.
        needs_teacher: whether it is given the full model; otherwise its `teacher` is None.
        unlabelled: whether rows without labels do.
        drops: whether it drops the layers itself. A recipe without such a step drops them all before its first.
        one_by_one: whether they go one by one, so that their order is part of the run.
        teacher_loss: whether its loss is, or has, a part for which the teacher's answers are enough, so that it learns
            from rows without labels beside labelled ones.
    """

    name: str
    function: Method
    options: type | None = None
    paper: str = ""
    needs_teacher: bool = False
    drops: bool = False
    one_by_one: bool = False
    unlabelled: bool = False
    teacher_loss: bool = False

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return first_line(self.function)


@dataclass(frozen=True)
class Recipe:
    """A named tuple of steps.

    Args:
        name: what the command calls it.
        steps: carried out in this order.
        summary: what it does, in a line.
        paper: address of the publication it comes from; empty where there is none.
    """

    name: str
    steps: tuple[Step, ...]
    summary: str
    paper: str = ""


@dataclass(frozen=True)
class PlannedStep:
    """A step of a recipe that is ready to be carried out.

    Args:
        healer: the method.
        options: an instance of its options; None where it has none.
        schedule: the recipe's, with what the step overrides.
    """

    healer: Healer
    options: Any = None
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def unlabelled(self) -> bool:
        """Whether rows without labels do: the method's, or that of its options that say `needs_labels`."""
        return self.healer.unlabelled or not getattr(self.options, "needs_labels", True)

    @property
    def any_plan(self) -> bool:
        """Whether it trains the whole model, alike for all plans, and drops layers afterwards (`healing.steps`)."""
        return getattr(self.options, "any_plan", False)


registry: Registry[Healer] = Registry("healer", "depthprune.healing.methods", Healer)
recipes: Registry[Recipe] = Registry("recipe", "depthprune.healing.methods", Recipe)


def healer(
    name: str,
    *,
    options: type | None = None,
    paper: str = "",
    needs_teacher: bool = False,
    drops: bool = False,
    one_by_one: bool = False,
    unlabelled: bool = False,
    teacher_loss: bool = False,
) -> Callable[[Method], Method]:
    """Register a healing method; the function itself is returned unchanged."""

    def register(function: Method) -> Method:
        about = (options, paper, needs_teacher, drops, one_by_one, unlabelled, teacher_loss)
        registry.add(name, Healer(name, function, *about))
        return function

    return register


def recipe(name: str, *steps: Step, summary: str, paper: str = "") -> Recipe:
    """Register a recipe, and return it."""
    return recipes.add(name, Recipe(name, steps, summary, paper))
