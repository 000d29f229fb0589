"""Which output of a trained head stands for which label of a task: by name, else by number, and it is said which.

A head that was trained elsewhere has an order of its own (`id2label` in config.json): MNLI's labels come in all six.
What the head's order is stands in the task from here on, so that training, scores and searches keep to it. No torch.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from depthprune.errors import LoadError, UserError
from depthprune.sources import POOLED_HEAD
from depthprune.specs.healing import ARCHITECTURE, POOLED
from depthprune.tasks.base import KINDS, Task, TaskData

CLASSIFIER = "ForSequenceClassification"  # what the classes with such a head are called
SHOWN = 6  # names in a message


def fit_to_head(
    data: TaskData, config: Mapping[str, Any], model: str, *, needed: bool = False, head: str = ARCHITECTURE
) -> TaskData:
    """Return `data` with the order of the labels that the trained head of a model has, and say how it was found.

    The task says which head the model is to have: the trained one where it stays, and else a fresh one.

    Names are compared without case. Where they say nothing (`LABEL_0`, or numbers in the data), label i is output i.
    A head with another number of outputs that does not know the labels is left for a fresh one, unless it is needed.

    Args:
        config: the content of config.json, which says whether there is a trained head.
        model: what the user called it.
        needed: the head is to be scored as it is.
        head: what a fresh head reads; a trained one of another kind does not stay, save that the architecture's is
            what is asked for where nothing is.

    Raises:
        LoadError: if the labels and the outputs cannot be matched.
        UserError: such a task has no such head.
    """
    task = replace(data.task, outputs=(), head_labels=(), head=head)
    if task.kind not in KINDS:
        if head != ARCHITECTURE:
            raise UserError(
                f"'{task.name}' is neither a classification nor a regression, and the model's own head answers it; "
                "leave --head out"
            )
        return replace(data, task=task)
    names = head_labels(config) if head in (ARCHITECTURE, own_head(config)) else None
    if names is not None and task.regression and len(names) == 1:
        task = replace(task, head=own_head(config))
    if names is None or task.regression or len(names) == 1:
        if needed and names is not None and task.regression != (len(names) == 1):
            asked, has = ("a number", "classes") if task.regression else ("classes", "a number")
            raise LoadError(
                f"'{task.name}' asks for {asked}, and the head of '{model}' puts out {has}; give other data"
            )
        return replace(data, task=task)
    order, how = _match(task.labels, names)
    if order is None:
        if len(names) != len(task.labels) and not needed:
            note = f"the head of '{model}' has {len(names)} outputs, not {len(task.labels)}: a fresh one is trained"
            return replace(data, task=task, notes=(*data.notes, note))
        raise LoadError(
            f"the labels of '{task.name}' ({_listed(task.labels)}) are not those of the head of '{model}' "
            f"({_listed(names)}); give both the same names: in the data, or in id2label of its config.json "
            "(LABEL_0, LABEL_1, … are matched by number)"
        )
    note = f"labels matched with the head's outputs by {how}: " + _listed(
        [f"{output} is '{label}'" for label, output in sorted(zip(task.labels, order, strict=True), key=_second)]
    )
    task = replace(_fitted(task, order, names), head=own_head(config))
    return replace(data, task=task, notes=(*data.notes, note))


def fits_head(data: TaskData, config: Mapping[str, Any], model: str, *, head: str = ARCHITECTURE) -> bool:
    """Tell whether a model brings a trained head for a task, by its labels and the number of its outputs.

    A language model does, or it is refused when it is loaded.

    Args:
        head: what the head is to read; see `fit_to_head`.

    Raises:
        LoadError: the labels and the outputs cannot be matched.
        UserError: such a task has no such head.
    """
    fitted = fit_to_head(data, config, model, head=head).task
    if fitted.kind not in KINDS:
        return True
    names = head_labels(config)
    return names is not None and head in (ARCHITECTURE, own_head(config)) and fitted.num_outputs == len(names)


def own_head(config: Mapping[str, Any]) -> str:
    """Return what the trained head of a model reads: `architecture`, or a pooling; empty for a model without one.

    Raises:
        LoadError: its pooling is not implemented.
    """
    if any(str(name).endswith(CLASSIFIER) for name in config.get("architectures") or ()):
        return ARCHITECTURE
    pooling = config.get(POOLED_HEAD) or ""
    if pooling and pooling not in POOLED:
        raise LoadError(f"config.json names a head on states pooled by {pooling!r}, and not one of {', '.join(POOLED)}")
    return pooling


def has_pooled_head(config: Mapping[str, Any]) -> bool:
    """Tell whether the trained head of a model is one on pooled states, which is not of its architecture."""
    return own_head(config) not in ("", ARCHITECTURE)


def head_labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names of a trained head's outputs in their order; None for a model without such a head."""
    if not own_head(config):
        return None
    found = _numbered(config.get("id2label")) or _numbered(_turned(config.get("label2id")))
    if found:
        return found
    number = config.get("num_labels", 2)
    return tuple(f"LABEL_{i}" for i in range(number if isinstance(number, int) else 2))


def _numbered(names: Any) -> tuple[str, ...]:
    try:
        found = {int(number): str(name) for number, name in names.items()}
    except (AttributeError, TypeError, ValueError):
        return ()
    return tuple(found[i] for i in range(len(found))) if sorted(found) == list(range(len(found))) else ()


def _turned(numbers: Any) -> Any:
    return {number: name for name, number in numbers.items()} if isinstance(numbers, Mapping) else None


def _match(labels: Sequence[str], names: Sequence[str]) -> tuple[tuple[int, ...] | None, str]:
    """Return the output of each label, or None, and what they were matched by."""
    places = {_plain(name): i for i, name in enumerate(names)}
    wanted = [_plain(label) for label in labels]
    if len(places) == len(names) and len(set(wanted)) == len(wanted) and all(label in places for label in wanted):
        return tuple(places[label] for label in wanted), "name"
    if all(label.isdecimal() and int(label) < len(names) for label in labels):
        return tuple(map(int, labels)), "number"
    silent = all(re.fullmatch(rf"(label_)?{i}", _plain(name)) for i, name in enumerate(names))
    if silent and len(labels) == len(names):
        return tuple(range(len(names))), "number"
    return None, ""


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def _fitted(task: Task, order: tuple[int, ...], names: Sequence[str]) -> Task:
    """Return the task in the head's order; what only the head knows become labels that no row has."""
    more = tuple(i for i in range(len(names)) if i not in order)
    outputs = (*order, *more)
    if outputs == tuple(range(len(outputs))) and not more:
        outputs = ()
    metrics = tuple("f1_macro" if metric == "f1" and len(names) > 2 else metric for metric in task.metrics)
    say_something = not all(re.fullmatch(r"label_\d+|\d+", _plain(name)) for name in names)
    return replace(
        task,
        labels=(*task.labels, *(names[i] for i in more)),
        metrics=metrics,
        outputs=outputs,
        head_labels=tuple(names) if say_something or more else (),
    )


def _second(pair: tuple[str, int]) -> int:
    return pair[1]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
