"""The settings of a run, as text and as the command that repeats it. No torch.

Runs that differ in anything but their seed are never averaged: two of them have the same text here if and only if they
were trained and evaluated the same way.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from depthprune.plan import LayerPlan, format_layers
from depthprune.specs import EvalSpec, HealSpec
from depthprune.specs.options import as_text, options_of
from depthprune.strategies import removal_order, same_choice
from depthprune.tasks import TaskOptions

if TYPE_CHECKING:
    from depthprune.reporting.values import Run

COMMON = ("num_epochs", "learning_rate", "batch_size")  # in the text of every recipe
SHOWN = ("num_epochs", "learning_rate")  # in every command
KNOWN = ("model", "evaluation", "drop", "heal", "seed")  # parts of a spec
DIGITS = 6  # hex digits of a fingerprint, to distinguish two of them
STANDS_FOR = {"teacher": "TEACHER", "unlabelled": ("UNLABELLED",)}  # what a spec has by content
DEFAULTS = {item.name: item.default for item in fields(EvalSpec) if item.default is not MISSING}


@lru_cache(maxsize=256)  # thousands of records share a few recipes
def healing_words(heal: HealSpec) -> str:
    """Describe how a model was fine-tuned.

    >>> healing_words(HealSpec(epochs_before=3, freeze_dropped=True))
    '3 epochs, learning rate 2e-05, batch 32, epochs before 3, freeze dropped'
    """
    parts = [f"{heal.num_epochs:g} epochs", f"learning rate {heal.learning_rate:g}", f"batch {heal.batch_size}"]
    return ", ".join([*parts, *(f"{name} {shown}".strip() for name, shown in _unusual(heal))])


def _unusual(heal: HealSpec) -> Iterator[tuple[str, str]]:
    for name, item in options_of(HealSpec).items():
        value = getattr(heal, name)
        if name not in COMMON and value != item.default:
            shown = _short(value) if name == "unlabelled" else value
            yield item.flag.removeprefix("--").replace("-", " "), "" if value is True else as_text(shown)


def _short(fingerprints: Sequence[str]) -> tuple[str, ...]:
    return tuple(each.removeprefix("sha256:")[:DIGITS] for each in fingerprints)


def evaluation_words(spec: Mapping[str, Any], *, several_data: bool) -> str:
    """Describe what is unusual about the data and evaluation of a run besides the task; empty if nothing is.

    Args:
        spec: of the run, as its record has it.
        several_data: whether the task was run on different rows, so that these have to be distinguished.

    >>> evaluation_words({"evaluation": {"task": "mrpc", "data": "sha256:12345678", "max_length": 64}},
    ...                  several_data=True)
    'max length 64, data 123456'
    """
    evaluation = dict(spec["evaluation"])
    data = str(evaluation.pop("data", "")).rpartition(":")[2]
    more = {k: v for k, v in spec.items() if k not in KNOWN}
    parts = [
        f"{name.replace('_', ' ')} {value if isinstance(value, str | int | float) else json.dumps(value)}"
        for name, value in sorted((evaluation | more).items())
        if name != "task" and value != DEFAULTS.get(name) and value not in (None, "", [], {})
    ]
    return ", ".join([*parts, *([f"data {data[:DIGITS]}"] if several_data else [])])


def command(run: "Run", drop: Sequence[str] | None = None) -> str:
    """Return the command that repeats a run.

    The model is `MODEL` unless it is on the Hub; older records do not have the options of the data.

    Args:
        drop: options that choose other layers than the run's.
    """
    model = run.model.removeprefix("hub:").partition("@")[0] if run.model.startswith("hub:") else "MODEL"
    words = ["depthprune", "run", model, "--task", run.task]
    words += _data_options(run)
    words += _drop_options(run) if drop is None else drop
    return " ".join([*(shlex.quote(word) for word in words), _options(run.heal, run.max_length), f"--seed {run.seed}"])


def _drop_options(run: "Run") -> tuple[str, ...]:
    plan = LayerPlan(run.depth, run.dropped)
    if run.order and run.order != removal_order(plan):
        # Explicit layers are dropped from the last one down; a strategy has its own order.
        names = [name.partition(" (")[0] for name in run.strategies]
        ordered = [name for name in same_choice(plan) if removal_order(plan, name) == run.order]
        return ("--strategy", (ordered or names)[0], "--count", str(run.count))
    if not run.dropped and not run.is_full:
        return ("--depths", str(run.depth))
    return ("--layers", format_layers(run.dropped)) if run.dropped else ()


def _data_options(run: "Run") -> Iterator[str]:
    given = dict(run.data_options)
    if run.task == "custom":
        given = {"dataset": "DATA", "text_columns": ["TEXT"], "label_column": "LABEL"} | given
    for name, item in options_of(TaskOptions).items():
        if name in given:
            yield from item.words(item.read(given[name]))


@lru_cache(maxsize=256)
def _options(heal: HealSpec, max_length: int) -> str:
    """Return the options that repeat a fine-tuning."""
    recipe = options_of(HealSpec)
    words = [word for name in SHOWN for word in (recipe[name].flag, as_text(getattr(heal, name)))]
    for name, item in recipe.items():
        value = STANDS_FOR.get(name) if name in STANDS_FOR and getattr(heal, name) else getattr(heal, name)
        words += item.words(value) if name not in SHOWN else ()
    words += options_of(EvalSpec)["max_length"].words(max_length)
    return " ".join(map(shlex.quote, words))
