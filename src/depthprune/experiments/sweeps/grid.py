"""The definition of a sweep: models × strategies × counts × tasks × seeds × recipes, as a YAML file. No torch.

    models: [bert-base-cased]       # or name: folder or Hub id
    baselines: [distilbert-base-cased]              # trained and scored as they are; may be left out, or stand alone
    tasks: [mrpc, stsb]
    dataset: glue                   # a folder in the layout of nyu-mll/glue; the Hub if left out
    strategies: [top, symmetric, contribution, {name: contribution, threshold: 0.95}]
    counts: [1..L-1]                # or numbers
    seeds: [42]
    heal: {num_epochs: 3, learning_rate: 2.0e-5}     # or several, each with a name or as steps; see HealSpec
    learning_rate: 5.0e-5           # an entry of HealSpec beside `heal` holds for all recipes that do not say it
    teacher: bert-mrpc              # of recipes that need one, or {TASK: MODEL}; the full model's run if left out
    max_length: 128

Every entry is checked when the file is read; error messages name the line.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from depthprune.errors import UserError
from depthprune.healing.recipe import read_beside, resolve
from depthprune.registry import unknown
from depthprune.specs import EvalSpec, HealSpec, RunSpec
from depthprune.specs.options import options_of
from depthprune.tasks import TaskOptions

ALL_COUNTS = "1..L-1"
DEFAULT_RECIPE = "default"
NEEDED = ("models", "tasks", "strategies", "counts")
ALL_TASKS = ""  # in a teacher's mapping
Teacher = dict[str, str]  # task → model


@dataclass(frozen=True)
class StrategyEntry:
    """A strategy with its parameters.

    Args:
        name: by position, by score or by search.
        threshold: with a score; the count is the result.
        protect: with a score or a search: layers to keep.
    """

    name: str
    threshold: float | None = None
    protect: str | None = None

    @property
    def label(self) -> str:
        """Its name in tables."""
        more = [f"threshold {self.threshold:g}"] if self.threshold is not None else []
        more += [f"protect {self.protect}"] if self.protect else []
        return self.name + (f" ({', '.join(more)})" if more else "")


@dataclass(frozen=True)
class SweepSpec:
    """A grid of runs.

    Args:
        models: folders or Hub ids.
        tasks: names of tasks.
        strategies: how layers are chosen.
        counts: how many layers to drop: numbers, or `1..L-1`.
        seeds: one run each.
        heal: name → recipe. Of the file, entries of `HealSpec` beside it hold for all recipes.
        max_length: tokens to which an example is cut.
        baselines: folders or Hub ids of models to compare with, which lose no layers: a distilled one of the same size.
        options: where the tasks' data lies, its columns, the metric. Of the file, each is an entry of its own.
        names: of models in tables; from `models: {NAME: MODEL}`.
        teachers: name of a recipe → task, or `ALL_TASKS`, → folder or Hub id of the model that is to teach it.
    """

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    strategies: tuple[StrategyEntry, ...]
    counts: tuple[int | str, ...]
    seeds: tuple[int, ...] = (RunSpec.seed,)
    heal: dict[str, HealSpec] = field(default_factory=lambda: {DEFAULT_RECIPE: HealSpec()})
    max_length: int = EvalSpec.max_length
    baselines: tuple[str, ...] = ()
    options: TaskOptions = field(default_factory=TaskOptions, metadata={"key": False})
    names: dict[str, str] = field(default_factory=dict, metadata={"key": False})
    teachers: dict[str, Teacher] = field(default_factory=dict, metadata={"key": False})

    def teacher_of(self, recipe: str, task: str) -> str | None:
        """Return the model that was given to teach a recipe on a task; None where it is the full model's own run."""
        teachers = self.teachers.get(recipe, {})
        return teachers.get(task, teachers.get(ALL_TASKS))

    def counts_for(self, depth: int) -> tuple[int, ...]:
        """Return the counts for a stack of `depth` layers, ascending."""
        found: set[int] = set()
        for count in self.counts:
            found |= set(range(1, depth)) if isinstance(count, str) else {count}
        return tuple(sorted(found))


def read_sweep(path: Path) -> SweepSpec:
    """Read a sweep from a YAML file.

    Raises:
        UserError: if the file cannot be read, or an entry is unknown or out of range; the message names the line.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"the sweep '{path}' cannot be read ({error.strerror}); give a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the sweep '{path}' is not YAML ({' '.join(str(error).split())}); fix it") from None
    if not isinstance(content, dict):
        raise UserError(f"the sweep '{path}' has no entries; write models, tasks, strategies and counts")
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value} if node is not None else {}
    return parse_sweep(content, where=lambda key: f"'{path.name}', line {lines.get(key, 1)}: ")


def parse_sweep(content: Mapping[str, Any], where=lambda key: "") -> SweepSpec:
    """Make a sweep from plain values.

    Args:
        where: entry → the beginning of an error message about it.

    Raises:
        UserError: if an entry is unknown, missing or out of range.
    """
    own = [item.name for item in fields(SweepSpec) if item.metadata.get("key", True)]
    data, training = options_of(TaskOptions), options_of(HealSpec)
    known = [*own, *data, *(name for name in training if name != "steps")]
    for key in content:
        if key not in known:
            raise UserError(f"{where(key)}there is no entry '{key}'{_near(key, known)} (known: {', '.join(known)})")
    # Models that are only compared with need neither strategies nor counts.
    missing = [name for name in NEEDED if not content.get(name) and (name == "tasks" or not _alone(content))]
    if missing:
        raise UserError(f"{where(missing[0])}a sweep needs '{missing[0]}'")
    values: dict[str, Any] = {"names": {}, "models": (), "strategies": (), "counts": ()}
    for key in ("models", "baselines"):
        if isinstance(given := content.get(key), Mapping):
            values["names"] |= {model: str(name) for name, model in given.items() if isinstance(model, str)}
            content = {**content, key: list(given.values())}

    def read(key: str, parse: Callable[[Any], Any], named: bool = False) -> Any:
        try:
            return parse(content[key])
        except UserError as error:
            raise UserError(f"{where(key)}{'' if named else f'{key}: '}{error}") from None

    values |= {key: read(key, parse) for key, parse in _PARSERS.items() if content.get(key) not in (None, [], ())}
    values["options"] = TaskOptions(**{key: read(key, item.read, True) for key, item in data.items() if key in content})
    if "max_length" in content:
        values["max_length"] = read("max_length", options_of(EvalSpec)["max_length"].read, True)
    for key in training.keys() & content.keys() - {"teacher"}:
        read(key, training[key].read, True)  # a complaint names its own line, and not that of `heal`
    defaults = {key: content[key] for key in training if key in content}
    told = "heal" if "heal" in content or "teacher" not in content else "teacher"
    content = {"heal": {}, **content}
    values["heal"], values["teachers"] = read(told, lambda _: _recipes(content["heal"], defaults))
    spec = SweepSpec(**values)
    for name, teachers in spec.teachers.items():
        if left := [task for task in spec.tasks if spec.teacher_of(name, task) is None]:
            raise UserError(f"{where('teacher')}the recipe '{name}' has teachers ({', '.join(teachers)}) and none for "
                            f"the task '{left[0]}'; name one for each task")  # fmt: skip
    return spec


def _alone(content: Mapping[str, Any]) -> bool:
    """Return whether a sweep has baselines only."""
    return bool(content.get("baselines")) and not any(content.get(name) for name in ("models", "strategies", "counts"))


def _near(name: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _texts(value: Any) -> tuple[str, ...]:
    for item in _list(value):
        if not isinstance(item, str) or not item:
            raise UserError(f"{item!r} is not a name")
    return tuple(dict.fromkeys(_list(value)))


def _tasks(value: Any) -> tuple[str, ...]:
    from depthprune.tasks import registry

    for name in _texts(value):
        if name not in registry.names():
            raise unknown("task", name, registry.names(), among=(registry,))
    return _texts(value)


def _strategies(value: Any) -> tuple[StrategyEntry, ...]:
    from depthprune.scores import registry as scoring_methods
    from depthprune.strategies import registry
    from depthprune.strategies.scored import ON_THE_COSINE
    from depthprune.strategies.searched import methods

    found = []
    for item in _list(value):
        entry = {"name": item} if isinstance(item, str) else item
        if not isinstance(entry, Mapping) or "name" not in entry:
            raise UserError(f"{item!r} is not a strategy; write its name, or name and parameters")
        wrong = [key for key in entry if key not in ("name", "threshold", "protect")]
        if wrong:
            raise UserError(f"a strategy has no '{wrong[0]}'{_near(wrong[0], ('threshold', 'protect'))}")
        names = [*registry.names(), *scoring_methods.names(), *methods.names()]
        if entry["name"] not in names:
            raise unknown("strategy", entry["name"], names, among=(registry, scoring_methods, methods))
        if len(entry) > 1 and entry["name"] in registry.names():
            raise UserError(f"'{entry['name']}' goes by position and takes neither threshold nor protect")
        threshold = entry.get("threshold")
        if threshold is not None and entry["name"] in methods.names():
            raise UserError(f"'{entry['name']}' is a search and takes no threshold; give counts")
        if threshold is not None and (not isinstance(threshold, int | float) or not -1 < threshold < 1):
            raise UserError(f"{threshold!r} is not a cosine that a layer could exceed; 0.9 to 0.99 are usual")
        if threshold is not None and entry["name"] not in ON_THE_COSINE:
            raise UserError(f"'{entry['name']}' takes no threshold; {' and '.join(ON_THE_COSINE)} do. Give counts")
        found.append(StrategyEntry(entry["name"], threshold, str(entry["protect"]) if "protect" in entry else None))
    return tuple(dict.fromkeys(found))


def _counts(value: Any) -> tuple[int | str, ...]:
    found: list[int | str] = []
    for item in _list(value):
        run = re.fullmatch(r"(\d+)(?:-|\.\.)(\d+)", str(item))
        if item == ALL_COUNTS:
            found.append(ALL_COUNTS)
        elif run is not None and int(run[1]) <= int(run[2]) < 1000:
            found += range(int(run[1]), int(run[2]) + 1)
        elif isinstance(item, int) and not isinstance(item, bool) and item >= 1:
            found.append(item)
        else:
            raise UserError(f"{item!r} is not a number of layers; write 2, 1-4 or {ALL_COUNTS}")
    return tuple(dict.fromkeys(found))


def _seeds(value: Any) -> tuple[int, ...]:
    for item in _list(value):
        if not isinstance(item, int) or isinstance(item, bool) or item < 0:
            raise UserError(f"{item!r} is not a seed; write a number from 0")
    return tuple(dict.fromkeys(_list(value)))


def _recipes(value: Any, defaults: Mapping[str, Any]) -> tuple[dict[str, HealSpec], dict[str, Teacher]]:
    """Return the recipes by name, and the teachers that those have which are taught by a model that is given."""
    found: dict[str, HealSpec] = {}
    teachers: dict[str, Teacher] = {}
    of_all = _teacher(defaults.get("teacher"))
    for item in _list(value):
        if not isinstance(item, Mapping | str):
            raise UserError(f"{item!r} is not a recipe; write its entries, such as {{num_epochs: 3}}, or its steps")
        recipe = {"name": item, "steps": item} if isinstance(item, str) else dict(item)
        name = str(recipe.pop("name", DEFAULT_RECIPE))
        if name in found:
            raise UserError(f"two recipes are named '{name}'; give each a name of its own")
        given = _teacher(recipe.pop("teacher", None))
        heal = read_beside(recipe, {k: v for k, v in defaults.items() if k != "teacher"})
        taught = any(step.healer.needs_teacher for step in resolve(heal))
        if given and not taught:
            raise UserError(f"the recipe '{name}' names a teacher, and none of its steps needs one; leave it out")
        if taught and (given := given or of_all):
            teachers[name] = given
        found[name] = heal
    if of_all and not teachers:
        raise UserError("a teacher is named, and no recipe has a step that needs one; leave it out")
    if defaults.get("unlabelled") and not any(heal.unlabelled for heal in found.values()):
        raise UserError("unlabelled rows are named, and no recipe learns from a teacher's answers; leave them out")
    return found, teachers


def _teacher(value: Any) -> Teacher:
    """Return task → teacher, from a model for all tasks or a mapping."""
    from depthprune.tasks import registry

    teachers = dict(value) if isinstance(value, Mapping) else {ALL_TASKS: value} if value is not None else {}
    for task, model in teachers.items():
        if task not in (ALL_TASKS, *registry.names()):
            raise UserError(f"teacher: no task is named '{task}'{_near(task, registry.names())}")
        if not isinstance(model, str) or not model:
            raise UserError(f"teacher: {model!r} is not a model; write a folder or a Hub id")
    return teachers


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "models": _texts, "tasks": _tasks, "strategies": _strategies, "counts": _counts, "seeds": _seeds,
    "baselines": _texts,
}  # fmt: skip
