"""How a cut model is healed, as values. Fields are options (`specs.options`); recipes of steps: `healing.recipe`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from depthprune.errors import UserError
from depthprune.specs.options import as_text, option, options_of

PRECISIONS = ("auto", "float32", "bfloat16")
ARCHITECTURE, POOLING = "architecture", "pooling"
POOLED = ("mean", "cls", "max", "lasttoken")  # what a head of our own can read
HEADS = (ARCHITECTURE, *POOLED, POOLING)


@dataclass(frozen=True)
class Step:
    """One step of a recipe, as a value: a healing method and what is set for it alone.

    Args:
        method: name of a registered healing method.
        options: (name, value) of the method's own options and of the entries of the recipe that this step overrides
            (`STEP_ENTRIES`), ascending by name.
    """

    method: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        """Return the step as it is written in a recipe.

        >>> str(Step("finetune", (("num_epochs", 2.0),)))
        'finetune(num_epochs=2)'
        """
        inside = ", ".join(f"{name}={as_text(value)}" for name, value in self.options)
        return f"{self.method}({inside})" if inside else self.method


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train. The defaults are the example of the paper's authors."""

    num_epochs: float = option(3, "Passes over the training rows; 0 trains nothing.", flag="--epochs", minimum=0)
    batch_size: int = option(32, "Examples per optimiser step.", minimum=1)
    learning_rate: float = option(
        2e-5,
        "At the start, or after the warm-up; decays linearly to zero.",
        above=0,
        below=1,
        usual="2e-5 to 5e-4 are usual",
    )
    weight_decay: float = option(0.0, "AdamW's.", minimum=0)
    precision: str = option(  # one for all runs that are compared
        "auto",
        "float32, bfloat16 (autocast; weights stay float32), or auto: what a short probe finds faster.",
        choices=PRECISIONS,
        for_step=False,
    )
    similar_lengths: bool = option(False, "Batches of similar length: about 1.4 times faster, and may cost score.")
    warmup: float = option(
        0.0, "Fraction of the steps in which the learning rate rises from zero.", minimum=0, below=1, later=True
    )
    validation_fraction: float = option(
        0.0,
        "Fraction of the training rows that is held out, to keep the epoch's weights that score best on it.",
        minimum=0,
        below=1,
        later=True,
    )
    patience: int = option(
        0,
        "With --validation-fraction: end after so many epochs without a better one; never if 0.",
        minimum=0,
        later=True,
    )
    accumulation: int = option(
        1, "Parts of a batch that are computed one after the other, which saves memory.", minimum=1, later=True
    )

    def check_parts(self) -> None:
        """Refuse values that mean something only together.

        Raises:
            UserError: one is given without the other, or they do not fit.
        """
        if self.patience and not self.validation_fraction:
            raise UserError("patience counts epochs that are no better on rows held out; it needs validation_fraction")
        if self.batch_size % self.accumulation:
            raise UserError(
                f"a batch of {self.batch_size} cannot be split into {self.accumulation} parts; give a divisor"
            )


@dataclass(frozen=True)
class Execution:
    """How trainings are carried out. It changes nothing of what they come to, so no spec and no digest has it."""

    gradient_checkpointing: bool = option(
        False,
        "Compute activations again in the backward pass instead of keeping them: less memory, a third more time.",
        group="Running",
    )
    report_to: tuple[str, ...] = option(
        (),
        "Where losses and scores are sent, too: tensorboard, trackio, wandb or another integration of transformers.",
        group="Running",
    )
    resume: bool = option(
        True,
        "Save the state of a training every five minutes, and resume one that was killed. Or begin it anew.",
        flag="--resume/--no-resume",
        group="Running",
    )


@dataclass(frozen=True)
class HealSpec(Schedule):
    """How to heal what is left: a schedule, and what else than plain fine-tuning is done.

    `steps` says the recipe step by step (`healing.recipe`), in place of the other entries here. `teacher` is the model
    by content, as in a run's spec, that methods imitate which need a teacher; the full model if empty, fine-tuned on
    the task here unless it is `fine_tuned` already. `unlabelled` says where rows without labels are; in a run's spec
    it is the content of each, `sha256:…`.
    """

    epochs_before: float = option(
        0.0,
        "Fine-tune the full model so long first, then drop; each training's learning rate decays to zero.",
        minimum=0,
        for_full=False,
        as_steps="finetune(num_epochs=3)+drop+finetune",
        later=True,
    )
    freeze_dropped: bool = option(
        False,
        "With --epochs-before: freeze the layers that will be dropped.",
        for_full=False,
        as_steps="freeze(dropped=true)+finetune+drop+finetune",
        later=True,
    )
    drop_every: float = option(
        0.0,
        "Drop layers one by one, each after so many epochs; --epochs more after the last.",
        minimum=0,
        for_full=False,
        as_steps="gradual(every=1)",
        later=True,
    )
    drop_every_steps: int = option(
        0,
        "Drop layers one by one, each after so many steps.",
        minimum=0,
        for_full=False,
        as_steps="gradual(every_steps=100)",
        later=True,
    )
    freeze_layers: tuple[int, ...] = option(
        (),
        "Freeze these layers, as 0-3, by their index before the drop.",
        as_steps="freeze(layers=0-2)+finetune",
        later=True,
    )
    freeze_embeddings: bool = option(
        False, "Freeze the embeddings.", as_steps="freeze(embeddings=true)+finetune", later=True
    )
    steps: tuple[Step, ...] = option(
        (),
        "The recipe: a name, or steps such as 'freeze(layers=0-2)+finetune'; see depthprune list.",
        flag="--heal",
        for_full=False,
        later=True,
    )
    teacher: str = option(
        "",
        "For recipes that need a teacher: a fine-tuned model; the full model, fine-tuned here, if left out.",
        for_full=False,
        later=True,
    )

    fine_tuned: bool = option(
        False,
        "The model has learned the task: the full one is scored as it is, and teaches. Implied by recipes that need a "
        "teacher, where the model's head fits the task and no --teacher is given.",
        for_full=False,
        later=True,
    )
    head: str = option(
        ARCHITECTURE,
        "What a fresh head reads: as the architecture has it; the mean, first (cls), max or lasttoken of the last "
        "hidden states; or pooling, which is the one that the model's folder names. A trained head that fits stays.",
        choices=HEADS,
        later=True,
    )
    unlabelled: tuple[str, ...] = option(
        (),
        "Files, data sets or GLUE tasks with rows for which the teacher's answers alone count, beside the task's own; "
        "for recipes such as logit-kd.",
        for_full=False,
        later=True,
    )
    unlabelled_rows: int = option(
        0,
        "Of each of --unlabelled at most so many rows, drawn by the seed; all if 0.",
        minimum=0,
        for_full=False,
        later=True,
    )

    @property
    def trains(self) -> bool:
        """Whether anything is trained."""
        epochs = (value for step in self.steps for name, value in step.options if name == "num_epochs")
        return bool(self.num_epochs or self.epochs_before or any(epochs))

    @property
    def gradual(self) -> bool:
        """Whether the layers are dropped one by one."""
        return self.drop_every > 0 or self.drop_every_steps > 0

    def check(self) -> None:
        """Refuse values that cannot train anything, and those that exclude each other.

        Raises:
            UserError: if one of them is out of range.
        """
        for item in options_of(type(self)).values():
            item.check(getattr(self, item.name))
        if self.drop_every and self.drop_every_steps:
            raise UserError("drop_every counts epochs and drop_every_steps steps; give one of them")
        if self.gradual and not self.num_epochs:
            raise UserError("after the last layer has gone, drop_every trains for num_epochs; give num_epochs above 0")
        if self.gradual and self.epochs_before:
            raise UserError("drop_every trains before the first layer goes, and epochs_before too; give one of them")
        if self.freeze_dropped and not self.epochs_before:
            raise UserError("freeze_dropped is about the training before the drop; it needs epochs_before")
        if any(layer < 0 for layer in self.freeze_layers):
            raise UserError("freeze_layers are indices from 0 in the model that was given")
        self.check_parts()
        if self.fine_tuned and self.teacher:
            raise UserError(
                "a model that is fine_tuned is the teacher itself, and another is given; give one of the two"
            )
        if self.unlabelled_rows and not self.unlabelled:
            raise UserError("unlabelled_rows bounds the rows of unlabelled, and there are none; give unlabelled")
        if self.steps and (instead := [name for name in AS_STEPS if getattr(self, name)]):
            raise UserError(f"{instead[0]} and steps exclude each other; write it as a step: {AS_STEPS[instead[0]]}")

    def for_full(self) -> "HealSpec":
        """Return the recipe of the full model that a pruned one is compared with: what is about dropping means nothing.

        Where the pruned one is trained before the drop alone, the full one is trained as long. A recipe of steps is
        compared with plain fine-tuning by the same schedule; a model that is fine-tuned already, with itself as it is.

        >>> HealSpec(epochs_before=3, num_epochs=6).for_full() == HealSpec(num_epochs=6)
        True
        >>> HealSpec(epochs_before=3, num_epochs=0).for_full() == HealSpec(num_epochs=3)
        True
        >>> HealSpec(num_epochs=3, fine_tuned=True).for_full() == HealSpec(num_epochs=0)
        True
        """
        return _for_full(self)


# What a step of a recipe can say differently from the rest of it, and what is written as steps in a recipe of steps.
STEP_ENTRIES = tuple(name for name, item in options_of(Schedule).items() if item.about.for_step)
AS_STEPS = {name: item.about.as_steps for name, item in options_of(HealSpec).items() if item.about.as_steps}


@lru_cache(maxsize=256)  # a report asks for a few recipes a hundred thousand times
def _for_full(heal: HealSpec) -> HealSpec:
    if heal.fine_tuned:
        return type(heal)(num_epochs=0)
    own = (value for step in heal.steps for name, value in step.options if name == "num_epochs")
    epochs = heal.num_epochs or heal.epochs_before or max(own, default=0.0)
    dropping = {name: item.default for name, item in options_of(type(heal)).items() if not item.about.for_full}
    return replace(heal, num_epochs=epochs, **dropping)


def heal_of(values: Mapping[str, Any]) -> HealSpec:
    """Return the recipe in a record: what was added since it was written has its default."""
    known = {item.name for item in fields(HealSpec)}
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
    if "steps" in given:
        given["steps"] = tuple(_step_of(step) for step in given["steps"])
    return HealSpec(**given)


def _step_of(values: Mapping[str, Any]) -> Step:
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in values["options"]}
    return Step(values["method"], tuple(sorted(options.items())))
