"""The records of a store as rows of a comparison. No torch.

A row is a run with what the full model of the same task, data, seed and recipe scored. Which strategies chose its
layers is known from the plan where they go by position, and from what sweeps wrote down where they go by scores. Runs
are seeds of one another exactly if all else in their specs is the same; what differs is in `recipe`.
"""

import dataclasses
import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from depthprune.experiments.store.records import group_of, is_full, measured, records, speedup_of
from depthprune.experiments.store.store import Store
from depthprune.experiments.sweeps.expansion import BASELINE
from depthprune.experiments.sweeps.rows import SWEEPS, stored_rows
from depthprune.plan import format_layers
from depthprune.reporting.analyses import Analysis, read_analyses
from depthprune.reporting.searches import read_searches
from depthprune.reporting.settings import evaluation_words, healing_words
from depthprune.reporting.values import Results, Run, mean_and_spread
from depthprune.specs import heal_of

__all__ = ["Results", "Run", "mean_and_spread", "read_results"]

CHOSEN = "chosen"  # layers that no known strategy would have chosen


def read_results(*roots: Path) -> Results:
    """Read a store, or several as one; a run that several have counts once, as the first has it."""
    stores = [Store(root) for root in roots]
    labels, names, baselines = defaultdict(set), defaultdict(list), set()
    for row in (row for store in stores for row in stored_rows(store)):
        names[row["digest"]].append(str(row["model"]))
        if row.get("count"):
            labels[row["digest"]].add(str(row["strategy"]))
        elif row["strategy"] == BASELINE:
            baselines.add(row["digest"])
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    foreign = []
    called: dict[str, dict[str, None]] = defaultdict(dict)  # model → what it is called, by sweeps first
    data: dict[str, set[str]] = defaultdict(set)
    for store, (name, record) in ((each, entry) for each in stores for entry in records(each)):
        if record is None:
            foreign.append(_place(store.root, name, roots))
        elif name not in found:
            found[name] = store.root / name, record
            called[record["spec"]["model"]] |= dict.fromkeys(names[name])
            data[record["spec"]["evaluation"]["task"]].add(record["spec"]["evaluation"].get("data", ""))
    for _, record in found.values():
        model = record["spec"]["model"]
        called[model][str(record.get("environment", {}).get("model", model[:19]))] = None
    full = {group_of(record): measured(record) for _, record in found.values() if is_full(record)}
    runs = []
    for name, (folder, record) in found.items():
        spec = record["spec"]
        about = {
            "model_name": next(iter(called[spec["model"]])),
            "baseline": name in baselines,
            "setting": evaluation_words(spec, several_data=len(data[spec["evaluation"]["task"]]) > 1),
            "full": full.get(group_of(record)),
            "folder": folder,
        }
        runs.append(_run(name, record, labels[name], about))
    analyses: dict[tuple, Analysis] = {}
    for root in roots:
        some, others = read_analyses(root)
        analyses |= {dataclasses.astuple(each): each for each in some}
        foreign += [_place(root, name, roots) for name in others]
    notes = [note for store in stores for note in _notes(store)]
    notes += [f"{' and '.join(map(repr, some))} are one model" for some in map(list, called.values())
                             if len(some) > 1]  # fmt: skip
    runs = _with_spread(_with_curves(_one_plan_a_name(runs)))
    return Results(tuple(runs), tuple(foreign), tuple(notes), tuple(analyses.values()),
                   tuple(search for root in roots for search in read_searches(root)))  # fmt: skip


def _place(root: Path, name: str, roots: Sequence[Path]) -> str:
    """Return what a file of a store is called: with its store where there are several."""
    return name if len(roots) == 1 else f"{root.name}/{name}"


def _notes(store: Store) -> list[str]:
    notes: dict[str, None] = {}
    for file in sorted((store.root / SWEEPS).glob("*.json")) if (store.root / SWEEPS).is_dir() else ():
        try:
            notes |= dict.fromkeys(map(str, json.loads(file.read_text(encoding="utf-8"))["skipped"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return list(notes)


def _run(digest: str, record: dict[str, Any], labels: Iterable[str], about: dict[str, Any]) -> Run:
    spec, outcome, profile = record["spec"], record["outcome"], record["outcome"]["profile"]
    environment = record.get("environment", {})
    latency, speedup = (
        value if value and not math.isnan(value) else None for value in (profile.get("latency_ms"), speedup_of(profile))
    )
    heal = heal_of(spec["heal"])
    dropped = tuple(outcome["plan"]["dropped"])
    names = sorted({*labels, *outcome["plan"].get("strategies", ())}) or ([CHOSEN] if dropped else [])
    if is_full(record):
        about["full"] = measured(record)
    return Run(
        digest=digest,
        model=spec["model"],
        task=spec["evaluation"]["task"],
        primary=outcome["primary"],
        strategies=tuple(names) if dropped else (),
        depth=outcome["plan"]["depth"],
        dropped=dropped,
        order=tuple(spec["drop"].get("order", ())),
        seed=spec["seed"],
        recipe=", ".join(filter(None, (healing_words(heal), about["setting"]))),
        measured=measured(record),
        parameters=profile["parameters"],
        full_parameters=profile.get("full_parameters", profile["parameters"]),
        weight_bytes=profile["weight_bytes"],
        latency_ms=latency,
        full_latency_ms=latency * (speedup or 1.0) if latency else None,  # as the ratio says, which is timed in turns
        train_seconds=outcome["heal"]["seconds"],
        heal=heal,
        model_type=environment.get("model_type"),
        group=group_of(record),
        data=spec["evaluation"].get("data", ""),
        max_length=spec["evaluation"].get("max_length", 128),
        data_options=environment.get("data") or {},
        steps=int(outcome["heal"].get("steps", 0)),
        before_healing=not (heal.trains or heal.steps or outcome.get("fresh_tensors")),
        hardware=_hardware(environment),
        **about,
    )


def _hardware(environment: Mapping[str, Any]) -> str:
    device = str(environment.get("device", ""))
    if device and device != "cpu":
        return device
    threads = environment.get("threads")
    return str(environment.get("processor", "")) + (
        f", {threads} thread{'s' if threads != 1 else ''}" if threads else ""
    )


def _one_plan_a_name(runs: Sequence[Run]) -> list[Run]:
    """Give a strategy that chose different layers at one count a name for each choice, so that none is averaged.

    A strategy by scores may do so on other data; a run whose strategy is unknown always states its layers.
    """
    plans: dict[tuple, Counter[tuple]] = defaultdict(Counter)
    for run in runs:
        for name in run.strategies:
            plans[run.model, run.task, run.recipe, run.count, name][run.plan] += 1

    def named(run: Run, name: str) -> str:
        choices = plans[run.model, run.task, run.recipe, run.count, name]
        if len(choices) == 1 or run.plan == min(choices, key=lambda plan: (-choices[plan], plan)):
            return name
        layers = format_layers(run.dropped) + (f" in the order {','.join(map(str, run.order))}" if run.order else "")
        return f"{name} (layers {layers})"

    found = []
    for run in runs:
        names = tuple(named(run, name) for name in run.strategies)
        found.append(run if names == run.strategies else replace(run, strategies=names))
    return found


def _with_curves(runs: Sequence[Run]) -> list[Run]:
    """Name the whole model of a training for several depths after the strategies of the runs that are cut from it.

    So it is the point of their curve at which no layer has gone.
    """
    names: dict[tuple, set[str]] = defaultdict(set)
    for run in runs:
        if run.dropped:
            names[run.model, run.task, run.recipe, run.seed] |= set(run.strategies)
    return [
        run
        if run.dropped or run.is_full
        else replace(run, strategies=tuple(sorted(names[run.model, run.task, run.recipe, run.seed])))
        for run in runs
    ]


def _with_spread(runs: Sequence[Run]) -> list[Run]:
    """Tell every run how far seeds are apart where its model, task and recipe were run with several."""
    plans: dict[tuple, dict[tuple, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        plans[run.model, run.task, run.recipe][run.plan].append(run.score)
    pooled: dict[tuple, tuple[float, int]] = {}
    for key, some in plans.items():
        several = [scores for scores in some.values() if len(scores) > 1]
        freedom = sum(len(scores) - 1 for scores in several)
        squares = sum(statistics.variance(scores) * (len(scores) - 1) for scores in several)
        pooled[key] = (squares / freedom if freedom else 0.0, freedom)
    found = []
    for run in runs:
        variance, freedom = pooled[run.model, run.task, run.recipe]
        found.append(replace(run, seed_variance=variance, seed_freedom=freedom) if freedom else run)
    return found
