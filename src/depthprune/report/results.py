"""The records of a store as rows of a comparison. No torch.

A row is a run with what the full model of the same task, seed and recipe scored. Which strategies chose its layers is
known from the plan where they go by position, and from what sweeps wrote down where they go by scores.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from depthprune.experiments.expansion import BASELINE
from depthprune.experiments.store import Store
from depthprune.experiments.summary import group_of, records, score_of
from depthprune.experiments.sweep_rows import stored_rows
from depthprune.plan import format_layers
from depthprune.report.analyses import Analysis, read_analyses
from depthprune.specs import HealSpec, heal_of

CHOSEN = "chosen"  # layers that no known strategy would have chosen


@dataclass(frozen=True)
class Run:
    """A recorded run.

    Args:
        digest: its name.
        model, model_name: identity, and what a sweep calls it, or else the folder.
        task: of the run, and `primary`, its metric.
        strategies: names of all that chose these layers; none for the full model.
        depth, dropped: the plan.
        seed, recipe: of the fine-tuning; the recipe is a text that like ones share.
        score, full_score: fractions; the full model's is None where it has no record.
        parameters, full_parameters, weight_bytes: sizes.
        latency_ms, full_latency_ms: an example's, measured one after the other.
        train_seconds: of the fine-tuning.
        heal: the recipe's values.
        model_type: the architecture, as transformers calls it; None in older records.
        baseline: whether the model is only there to be compared with.
        examples: on which the score was taken.
        options: of the command that repeats the fine-tuning.
    """

    digest: str
    model: str
    model_name: str
    task: str
    primary: str
    strategies: tuple[str, ...]
    depth: int
    dropped: tuple[int, ...]
    seed: int
    recipe: str
    score: float
    full_score: float | None
    parameters: int
    full_parameters: int
    weight_bytes: int
    latency_ms: float
    full_latency_ms: float
    train_seconds: float
    heal: HealSpec = field(default_factory=HealSpec)
    model_type: str | None = None
    baseline: bool = False
    examples: int = 0
    options: str = ""

    @property
    def count(self) -> int:
        """How many layers went."""
        return len(self.dropped)

    @cached_property
    def drops_first(self) -> bool:
        """Whether all layers go before anything is trained, which is the paper's way."""
        return self.heal == self.heal.for_full()

    @property
    def retention(self) -> float | None:
        """Score over that of the full model; None where that is unknown or not above 0."""
        return self.score / self.full_score if self.full_score is not None and self.full_score > 0 else None

    @property
    def speedup(self) -> float:
        """Latency of the full model over that of this one."""
        return self.full_latency_ms / self.latency_ms


@dataclass(frozen=True)
class Results:
    """Everything that a report is made of.

    Args:
        runs: every record that can be read.
        foreign: names of those that cannot, and of files among the analyses that are none.
        notes: cells that a sweep skipped, with the reason.
        analyses: of layers.
    """

    runs: tuple[Run, ...]
    foreign: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    analyses: tuple[Analysis, ...] = ()

    def pruned(self, **fixed: Any) -> list[Run]:
        """Return the pruned runs whose attributes have these values."""
        return [run for run in self.runs if run.dropped and all(getattr(run, k) == v for k, v in fixed.items())]

    def values(self, name: str) -> list[Any]:
        """Return the values of an attribute, each once, sorted."""
        return sorted({getattr(run, name) for run in self.runs})

    def strategies(self) -> list[str]:
        """Return the names of the strategies that chose something."""
        return sorted({name for run in self.runs for name in run.strategies})


def read_results(root: Path) -> Results:
    """Read a store."""
    store = Store(root)
    labels, names, baselines = defaultdict(set), defaultdict(list), set()
    for row in stored_rows(store):
        names[row["digest"]].append(str(row["model"]))
        if row.get("count"):
            labels[row["digest"]].add(str(row["strategy"]))
        elif row["strategy"] == BASELINE:
            baselines.add(row["digest"])
    found, foreign = [], []
    called: dict[str, dict[str, None]] = defaultdict(dict)  # model → what it is called, by sweeps first
    for name, record in records(store):
        if record is None:
            foreign.append(name)
        else:
            found.append((name, record))
            called[record["spec"]["model"]] |= dict.fromkeys(names[name])
    for _, record in found:
        model = record["spec"]["model"]
        called[model][str(record.get("environment", {}).get("model", model[:19]))] = None
    full = {group_of(record): score_of(record) for _, record in found if not record["spec"]["drop"]["dropped"]}
    runs = []
    for name, record in found:
        group, shown = full.get(group_of(record)), next(iter(called[record["spec"]["model"]]))
        runs.append(_run(name, record, labels[name], group, shown, name in baselines))
    analyses, others = read_analyses(root)
    notes = _notes(store) + [f"{' and '.join(map(repr, some))} are one model" for some in map(list, called.values())
                             if len(some) > 1]  # fmt: skip
    return Results(tuple(runs), (*foreign, *others), tuple(notes), analyses)


def _notes(store: Store) -> list[str]:
    import json

    from depthprune.experiments.sweep_rows import SWEEPS

    notes: dict[str, None] = {}
    for file in sorted((store.root / SWEEPS).glob("*.json")) if (store.root / SWEEPS).is_dir() else ():
        try:
            notes |= dict.fromkeys(map(str, json.loads(file.read_text(encoding="utf-8"))["skipped"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return list(notes)


def _run(
    digest: str, record: dict[str, Any], labels: Iterable[str], full: float | None, name: str, baseline: bool
) -> Run:
    spec, outcome, profile = record["spec"], record["outcome"], record["outcome"]["profile"]
    heal = heal_of(spec["heal"])
    dropped = tuple(outcome["plan"]["dropped"])
    names = sorted({*labels, *outcome["plan"].get("strategies", ())}) or ([CHOSEN] if dropped else [])
    return Run(
        digest=digest,
        model=spec["model"],
        model_name=name,
        task=spec["evaluation"]["task"],
        primary=outcome["primary"],
        strategies=tuple(names) if dropped else (),
        depth=outcome["plan"]["depth"],
        dropped=dropped,
        seed=spec["seed"],
        recipe=_recipe(heal),
        score=score_of(record),
        full_score=full if dropped else score_of(record),
        parameters=profile["parameters"],
        full_parameters=profile.get("full_parameters", profile["parameters"]),
        weight_bytes=profile["weight_bytes"],
        latency_ms=profile["latency_ms"],
        full_latency_ms=profile.get("full_latency_ms", profile["latency_ms"]),
        train_seconds=outcome["heal"]["seconds"],
        heal=heal,
        model_type=record.get("environment", {}).get("model_type"),
        baseline=baseline,
        examples=int(outcome["metrics"][outcome["primary"]].get("examples", 0)),
        options=_options(heal, spec["evaluation"].get("max_length", 128)),
    )


COMMON = ("num_epochs", "learning_rate", "batch_size")  # said of every recipe


@lru_cache(maxsize=256)
def _recipe(heal: HealSpec) -> str:
    parts = [f"{heal.num_epochs:g} epochs", f"learning rate {heal.learning_rate:g}", f"batch {heal.batch_size}"]
    return ", ".join([*parts, *(f"{name.replace('_', ' ')} {shown}".strip() for name, shown in _unusual(heal))])


@lru_cache(maxsize=256)
def _options(heal: HealSpec, max_length: int) -> str:
    """Return the options that repeat a fine-tuning; weight decay has none."""
    parts = [f"--epochs {heal.num_epochs:g}", f"--learning-rate {heal.learning_rate:g}"]
    parts += [f"--batch-size {heal.batch_size}"] if heal.batch_size != 32 else []
    parts += [f"--max-length {max_length}"] if max_length != 128 else []
    return " ".join([*parts, *(f"--{name.replace('_', '-')} {shown}".strip() for name, shown in _unusual(heal))])


def _unusual(heal: HealSpec) -> Iterator[tuple[str, str]]:
    for item in fields(HealSpec):
        value = getattr(heal, item.name)
        if item.name not in COMMON and value != item.default:
            is_layers, is_number = isinstance(value, tuple), isinstance(value, int | float)
            yield (
                item.name,
                ("" if value is True else format_layers(value) if is_layers else f"{value:g}" if is_number else value),
            )


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the standard deviation over seeds; None of a single one.

    >>> mean_and_spread([0.5])
    (0.5, None)
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def percent(value: float, spread: float | None = None) -> str:
    """Write a fraction times a hundred, with its spread.

    >>> percent(0.8123), percent(0.8, 0.0123)
    ('81.23', '80.00 ± 1.23')
    """
    return f"{100 * value:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else "")
