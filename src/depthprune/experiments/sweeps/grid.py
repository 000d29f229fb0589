"""What a sweep is: models × strategies × counts × tasks × seeds × recipes, as a YAML file. No torch.

    models: [bert-base-cased]       # or name: folder or Hub id
    baselines: [distilbert-base-cased]              # trained and scored as they are; may be left out, or stand alone
    tasks: [mrpc, stsb]
    dataset: glue                   # a folder in the layout of nyu-mll/glue; the Hub if left out
    strategies: [top, symmetric, contribution, {name: contribution, threshold: 0.95}]
    counts: [1..L-1]                # or numbers
    seeds: [42]
    heal: {num_epochs: 3, learning_rate: 2.0e-5}     # or several, each with a name; see HealSpec for their entries
    max_length: 128

Every entry is checked when the file is read, and a complaint names the line.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from depthprune.errors import PlanError, UserError
from depthprune.healing.recipe import parse_recipe, resolve
from depthprune.plan import parse_layers
from depthprune.specs import HealSpec

ALL_COUNTS = "1..L-1"
DEFAULT_RECIPE = "default"
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class StrategyEntry:
    """A strategy with its parameters.

    Args:
        name: by position, by score or by search.
        threshold: with a score: the count is the outcome.
        protect: with a score or a search: layers that stay.
    """

    name: str
    threshold: float | None = None
    protect: str | None = None

    @property
    def label(self) -> str:
        """What tables call it."""
        more = [f"threshold {self.threshold:g}"] if self.threshold is not None else []
        more += [f"protect {self.protect}"] if self.protect else []
        return self.name + (f" ({', '.join(more)})" if more else "")


@dataclass(frozen=True)
class SweepSpec:
    """A grid of runs, as it was asked for.

    Args:
        models: folders or Hub ids.
        tasks: names of tasks.
        dataset: where the tasks' data lies.
        strategies: how layers are chosen.
        counts: how many layers to drop: numbers, or `1..L-1`.
        seeds: one run each.
        heal: name → recipe.
        max_length: tokens to which an example is cut.
        text_columns, label_column, eval_split, kind: of the task `custom`; kind is `classification` or `regression`.
        metric: the primary metric, where it is not the task's own.
        baselines: folders or Hub ids of models to compare with, which lose no layers: a distilled one of the same size.
        names: what tables call models; from `models: {NAME: MODEL}`.
    """

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    strategies: tuple[StrategyEntry, ...]
    counts: tuple[int | str, ...]
    dataset: str | None = None
    seeds: tuple[int, ...] = (42,)
    heal: dict[str, HealSpec] = field(default_factory=lambda: {DEFAULT_RECIPE: HealSpec()})
    max_length: int = 128
    text_columns: tuple[str, ...] = ()
    label_column: str | None = None
    eval_split: str | None = None
    kind: str | None = None
    metric: str | None = None
    baselines: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict, metadata={"derived": True})

    def counts_for(self, depth: int) -> tuple[int, ...]:
        """Return the counts for a stack of `depth` layers, ascending."""
        found: set[int] = set()
        for count in self.counts:
            found |= set(range(1, depth)) if isinstance(count, str) else {count}
        return tuple(sorted(found))


def read_sweep(path: Path) -> SweepSpec:
    """Read a sweep from a YAML file.

    Raises:
        UserError: it cannot be read, or an entry is unknown or out of range; the message names the line.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"the sweep '{path}' cannot be read ({error.strerror}); give a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the sweep '{path}' is not YAML ({' '.join(str(error).split())}); mend it") from None
    if not isinstance(content, dict):
        raise UserError(f"the sweep '{path}' has no entries; write models, tasks, strategies and counts")
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value} if node is not None else {}
    return parse_sweep(content, where=lambda key: f"'{path.name}', line {lines.get(key, 1)}: ")


def parse_sweep(content: Mapping[str, Any], where=lambda key: "") -> SweepSpec:
    """Make a sweep of plain values.

    Args:
        where: entry → the beginning of a complaint about it.

    Raises:
        UserError: an entry is unknown, missing or out of range.
    """
    known = {item.name: item for item in fields(SweepSpec) if not item.metadata.get("derived")}
    for key in content:
        if key not in known:
            raise UserError(f"{where(key)}there is no entry '{key}'{_near(key, known)} (known: {', '.join(known)})")
    missing = [name for name, item in known.items() if item.default is MISSING and item.default_factory is MISSING]
    if content.get("baselines") and not any(map(content.get, ("models", "strategies", "counts"))):
        missing = ["tasks"]  # models that are only compared with need no more
    if missing := [name for name in missing if not content.get(name)]:
        raise UserError(f"{where(missing[0])}a sweep needs '{missing[0]}'")
    values: dict[str, Any] = {"names": {}, "models": (), "strategies": (), "counts": ()}
    for key, value in content.items():
        try:
            if key in ("models", "baselines") and isinstance(value, Mapping):
                values["names"] |= {model: str(name) for name, model in value.items() if isinstance(model, str)}
                value = list(value.values())
            values[key] = _PARSERS[key](value)
        except _Wrong as wrong:
            raise UserError(f"{where(key)}{key}: {wrong}") from None
    return SweepSpec(**values)


class _Wrong(Exception):
    """A value that an entry cannot have."""


def _near(name: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _texts(value: Any) -> tuple[str, ...]:
    for item in _list(value):
        if not isinstance(item, str) or not item:
            raise _Wrong(f"{item!r} is not a name")
    return tuple(dict.fromkeys(_list(value)))


def _tasks(value: Any) -> tuple[str, ...]:
    from depthprune.tasks import registry

    for name in _texts(value):
        if name not in registry.names():
            raise _Wrong(f"no task is named '{name}'{_near(name, registry.names())}")
    return _texts(value)


def _strategies(value: Any) -> tuple[StrategyEntry, ...]:
    from depthprune.scores import registry as metrics
    from depthprune.strategies import registry
    from depthprune.strategies.scored import ON_THE_COSINE
    from depthprune.strategies.searched import methods

    found = []
    for item in _list(value):
        entry = {"name": item} if isinstance(item, str) else item
        if not isinstance(entry, Mapping) or "name" not in entry:
            raise _Wrong(f"{item!r} is not a strategy; write its name, or name and parameters")
        unknown = [key for key in entry if key not in ("name", "threshold", "protect")]
        if unknown:
            raise _Wrong(f"a strategy has no '{unknown[0]}'{_near(unknown[0], ('threshold', 'protect'))}")
        names = [*registry.names(), *metrics.names(), *methods.names()]
        if entry["name"] not in names:
            raise _Wrong(f"no strategy is named '{entry['name']}'{_near(entry['name'], names)}")
        if len(entry) > 1 and entry["name"] in registry.names():
            raise _Wrong(f"'{entry['name']}' goes by position and takes neither threshold nor protect")
        threshold = entry.get("threshold")
        if threshold is not None and entry["name"] in methods.names():
            raise _Wrong(f"'{entry['name']}' is a search and takes no threshold; give counts")
        if threshold is not None and (not isinstance(threshold, int | float) or not -1 < threshold < 1):
            raise _Wrong(f"{threshold!r} is no cosine that a layer could be above; 0.9 to 0.99 are usual")
        if threshold is not None and entry["name"] not in ON_THE_COSINE:
            raise _Wrong(f"'{entry['name']}' takes no threshold; {' and '.join(ON_THE_COSINE)} do. Give counts")
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
            raise _Wrong(f"{item!r} is not a number of layers; write 2, 1-4 or {ALL_COUNTS}")
    return tuple(dict.fromkeys(found))


def _seeds(value: Any) -> tuple[int, ...]:
    for item in _list(value):
        if not isinstance(item, int) or isinstance(item, bool) or item < 0:
            raise _Wrong(f"{item!r} is not a seed; write a number from 0")
    return tuple(dict.fromkeys(_list(value)))


def _heal(value: Any) -> dict[str, HealSpec]:
    found: dict[str, HealSpec] = {}
    for item in _list(value):
        if not isinstance(item, Mapping):
            raise _Wrong(f"{item!r} is not a recipe; write its entries, such as {{num_epochs: 3}}")
        recipe = dict(item)
        name = str(recipe.pop("name", DEFAULT_RECIPE))
        if name in found:
            raise _Wrong(f"two recipes are named '{name}'; give each a name of its own")
        found[name] = _recipe(recipe)
    return found


def _recipe(recipe: dict[str, Any]) -> HealSpec:
    known: dict[str, Any] = {item.name: item.type for item in fields(HealSpec) if item.name != "teacher"}
    for key, value in recipe.items():
        if key not in known:
            raise _Wrong(f"a recipe has no '{key}'{_near(key, known)} (known: {', '.join(known)})")
        if key == "steps":
            continue
        recipe[key] = _layers(value) if key == "freeze_layers" else _of_kind(known[key], key, value)
    try:
        if "steps" in recipe:
            recipe["steps"] = parse_recipe(_list(recipe["steps"]))
        heal = HealSpec(**recipe)
        resolve(heal)
    except UserError as error:
        raise _Wrong(str(error)) from None
    return heal


def _of_kind(kind: Any, key: str, value: Any) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):  # YAML reads 2e-5 as text
        try:
            return float(value)
        except ValueError:
            raise _Wrong(f"{key} is a number, not {value!r}") from None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _Wrong(f"{key} is {KINDS[kind]}, not {value!r}")
    return value


def _layers(value: Any) -> tuple[int, ...]:
    text = ",".join(map(str, _list(value)))
    try:
        return tuple(sorted(set(parse_layers(text)))) if text else ()
    except PlanError as error:
        raise _Wrong(f"freeze_layers: {error}") from None


def _length(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 4:
        raise _Wrong(f"{value!r} is not a number of tokens; write 4 or more")
    return value


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise _Wrong(f"{value!r} is not text")
    return value


_PARSERS = {
    "models": _texts, "tasks": _tasks, "strategies": _strategies, "counts": _counts, "seeds": _seeds, "heal": _heal,
    "max_length": _length, "dataset": _text, "text_columns": _texts, "label_column": _text, "eval_split": _text,
    "kind": _text, "metric": _text, "baselines": _texts,
}  # fmt: skip
