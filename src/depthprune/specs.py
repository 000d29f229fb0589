"""What a run is, as values. The digest of a spec names the run.

Model and data stand in a spec by content (a hash, or a Hub commit), never by path, so the same run has the same name
on every machine. Layers stand in it as indices, so two strategies that make the same choice share a run.

A field that is added later gets a default and `metadata={"later": True}`; it stays out of the digest while it has
that default, and old results stay valid.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

from depthprune.errors import UserError
from depthprune.plan import format_layers

PRECISIONS = ("auto", "float32", "bfloat16")
# What a step of a recipe may say differently from the rest of it. The precision is one for all runs that are compared.
STEP_ENTRIES = ("num_epochs", "batch_size", "learning_rate", "weight_decay", "similar_lengths", "warmup")
REPLACED = {  # entry of a recipe → the step that says it in a recipe of steps
    "epochs_before": "finetune(num_epochs=3)+drop+finetune",
    "freeze_dropped": "freeze(dropped=true)+finetune+drop+finetune",
    "drop_every": "gradual(every=1)",
    "drop_every_steps": "gradual(every_steps=100)",
    "freeze_layers": "freeze(layers=0-2)+finetune",
    "freeze_embeddings": "freeze(embeddings=true)+finetune",
}


@dataclass(frozen=True)
class DropSpec:
    """The layers to drop, by index in the model that was given.

    Args:
        dropped: ascending.
        order: the same layers in the order in which they go, where they go one by one.
    """

    dropped: tuple[int, ...] = ()
    order: tuple[int, ...] = field(default=(), metadata={"later": True})


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
        inside = ", ".join(f"{name}={_text(value)}" for name, value in self.options)
        return f"{self.method}({inside})" if inside else self.method


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return format_layers(tuple(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class HealSpec:
    """How to fine-tune what is left. The defaults are the paper's example.

    Args:
        num_epochs: passes over the training data; 0 trains nothing.
        batch_size: examples a step.
        learning_rate: at the start, or after the warm-up; it decays linearly to zero.
        weight_decay: AdamW's.
        precision: `float32`, `bfloat16` (autocast; weights stay float32), or `auto`: what a short probe finds faster.
        similar_lengths: put examples of like length into one batch, which saves padding and can cost score.
        epochs_before: fine-tune the full model for so many epochs first, then drop, then fine-tune again; each of the
            two trainings has a learning rate that decays to zero.
        freeze_dropped: in that first training, the layers that will go learn nothing.
        drop_every: drop the layers one by one within one training, each after so many more epochs, and go on for
            `num_epochs` after the last; the learning rate decays over all of it.
        drop_every_steps: the same, counted in optimiser steps.
        freeze_layers: layers that learn nothing, by index in the model that was given.
        freeze_embeddings: the embeddings learn nothing.
        steps: the recipe step by step, in place of `epochs_before`, `drop_every` and `freeze_*`; see `healing.recipe`.
        teacher: the model by content, as in a run's spec, that methods imitate which need a teacher; the full model,
            fine-tuned on the task, if empty.
        warmup: the fraction of the steps, from 0 to below 1, in which the learning rate rises from zero.
    """

    num_epochs: float = 3
    batch_size: int = 32
    learning_rate: float = 2e-5
    weight_decay: float = 0.0
    precision: str = "auto"
    similar_lengths: bool = False
    epochs_before: float = field(default=0.0, metadata={"later": True})
    freeze_dropped: bool = field(default=False, metadata={"later": True})
    drop_every: float = field(default=0.0, metadata={"later": True})
    drop_every_steps: int = field(default=0, metadata={"later": True})
    freeze_layers: tuple[int, ...] = field(default=(), metadata={"later": True})
    freeze_embeddings: bool = field(default=False, metadata={"later": True})
    steps: tuple[Step, ...] = field(default=(), metadata={"later": True})
    teacher: str = field(default="", metadata={"later": True})
    warmup: float = field(default=0.0, metadata={"later": True})

    @property
    def trains(self) -> bool:
        """Whether anything is trained."""
        epochs = (value for step in self.steps for name, value in step.options if name == "num_epochs")
        return bool(self.num_epochs or self.epochs_before or any(epochs))

    @property
    def gradual(self) -> bool:
        """Whether the layers go one by one."""
        return self.drop_every > 0 or self.drop_every_steps > 0

    def check(self) -> None:
        """Refuse values that cannot train anything, and those that exclude each other.

        Raises:
            UserError: one of them is out of range.
        """
        if self.num_epochs < 0 or self.batch_size < 1 or not 0 < self.learning_rate < 1:
            raise UserError("num_epochs is not below 0, batch_size is above it, and learning_rate between 0 and 1")
        if not 0 <= self.warmup < 1:
            raise UserError(f"warmup is a fraction of the steps, from 0 to below 1, not {self.warmup:g}")
        if self.precision not in PRECISIONS:
            raise UserError(f"there is no precision '{self.precision}'; it is one of {', '.join(PRECISIONS)}")
        if min(self.epochs_before, self.drop_every, self.drop_every_steps, self.weight_decay) < 0:
            raise UserError("epochs_before, drop_every, drop_every_steps and weight_decay are not below 0")
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
        if self.steps and (instead := [name for name in REPLACED if getattr(self, name)]):
            raise UserError(f"{instead[0]} and steps exclude each other; write it as a step: {REPLACED[instead[0]]}")

    def for_full(self) -> "HealSpec":
        """Return the recipe of the full model that a pruned one is compared with: what is about dropping means nothing.

        Where the pruned one is trained before the drop alone, the full one is trained as long. A recipe of steps is
        compared with plain fine-tuning by the same schedule.

        >>> HealSpec(epochs_before=3, num_epochs=6).for_full() == HealSpec(num_epochs=6)
        True
        >>> HealSpec(epochs_before=3, num_epochs=0).for_full() == HealSpec(num_epochs=3)
        True
        """
        return _for_full(self)


@lru_cache(maxsize=256)  # a report asks for a few recipes a hundred thousand times
def _for_full(heal: HealSpec) -> HealSpec:
    own = (value for step in heal.steps for name, value in step.options if name == "num_epochs")
    epochs = heal.num_epochs or heal.epochs_before or max(own, default=0.0)
    dropping = {
        "epochs_before": 0.0,
        "freeze_dropped": False,
        "drop_every": 0.0,
        "drop_every_steps": 0,
        "steps": (),
        "teacher": "",
    }
    return replace(heal, num_epochs=epochs, **dropping)


@dataclass(frozen=True)
class EvalSpec:
    """The task and its data.

    Args:
        task: name of the task.
        data: `sha256:…` over the rows and the columns the task reads.
        max_length: tokens to which an example is cut.
        outputs: the output of a trained head for each label, where its order is not the data's.
        metric: the primary metric, where it was chosen and is not the task's own.
    """

    task: str
    data: str
    max_length: int = 128
    outputs: tuple[int, ...] = field(default=(), metadata={"later": True})
    metric: str = field(default="", metadata={"later": True})


@dataclass(frozen=True)
class RunSpec:
    """One run: a model, the layers that go, how it is healed, what it is scored on.

    Args:
        model: `sha256:…` of a local model, or `hub:ID@COMMIT`.
    """

    model: str
    evaluation: EvalSpec
    drop: DropSpec = field(default_factory=DropSpec)
    heal: HealSpec = field(default_factory=HealSpec)
    seed: int = 42

    def digest(self) -> str:
        """Return the run's name: twelve hex digits of SHA-256 over the canonical JSON of the spec."""
        text = json.dumps(_canonical(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return the whole spec as JSON values."""
        return json.loads(json.dumps(asdict(self)))


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


def run_spec_of(values: Mapping[str, Any]) -> RunSpec:
    """Return the spec in a record.

    Raises:
        KeyError, TypeError, ValueError: that is no spec.
    """
    drop = {name: tuple(map(int, layers)) for name, layers in values["drop"].items()}
    said: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["evaluation"].items()}
    evaluation = EvalSpec(**said)
    return RunSpec(values["model"], evaluation, DropSpec(**drop), heal_of(values["heal"]), values["seed"])


def _canonical(spec: Any) -> dict[str, Any]:
    values = {}
    for item in fields(spec):
        value = getattr(spec, item.name)
        if item.metadata.get("later") and value == _default(item):
            continue
        values[item.name] = _canonical_value(value)
    return values


def _canonical_value(value: Any) -> Any:
    if is_dataclass(value):
        return _canonical(value)
    if isinstance(value, tuple):
        return [_canonical_value(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value  # 3 and 3.0 epochs are one run


def _default(item: Any) -> Any:
    return item.default if item.default is not MISSING else item.default_factory()
