"""What a store knows, in numbers: how far its sweeps are, and the best plan so far for each task. No torch."""

import json
import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from depthprune.evaluation.measurement import Measurement, mean_of
from depthprune.experiments.store.leases import Watch, running
from depthprune.experiments.store.records import group_of, is_full, measured, without_empty
from depthprune.experiments.store.store import MEASURED, Store, readable_record
from depthprune.experiments.sweeps.rows import stored_rows
from depthprune.specs import canonical_json, heal_of

OTHER_FOLDERS = ("sweeps", "scores", "analyses", MEASURED)  # in a store, beside its runs


@dataclass
class Tally:
    """How far the runs in a store are.

    Args:
        done, failed, running, waiting: digests; waiting are those that a sweep asked for and nobody began.
        foreign: files and folders that are no runs, or records that cannot be read; left alone.
    """

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def tally(store: Store, asked: list[str] | None = None) -> Tally:
    """Count the runs of a store.

    Args:
        asked: digests that a sweep asks for; those of all sweeps that the store remembers by default.
    """
    found = Tally()
    watch = Watch()
    for folder in sorted(store.root.iterdir()) if store.root.is_dir() else ():
        if not folder.is_dir() or folder.name in OTHER_FOLDERS:
            continue
        name = folder.name
        if (folder / "record.json").is_file():
            (found.done if readable_record(folder / "record.json") else found.foreign).append(name)
        elif running(folder) is not None and not watch.is_dead(folder):
            found.running.append(name)
        elif (folder / "failure.json").is_file():
            found.failed.append(name)
        elif not (folder / "spec.json").is_file():
            found.foreign.append(name)
    known = {*found.done, *found.failed, *found.running}
    wanted = asked if asked is not None else [row["digest"] for row in stored_rows(store)]
    found.waiting = [digest for digest in dict.fromkeys(wanted) if digest not in known]
    return found


@dataclass(frozen=True)
class Best:
    """The pruned model of a task that scores best, as a mean over its seeds.

    Args:
        task: of the runs; with their metric in brackets, where the task was scored by several.
        record: of the first of its runs.
        measured: the mean over seeds.
        spread: their standard deviation, or None of a single one.
        seeds: how many there are.
        retention: mean share of the full models' quality, or None where one has no record or there is no such share.
    """

    task: str
    record: dict[str, Any]
    measured: Measurement
    spread: float | None
    seeds: int
    retention: float | None


def best_plans(found: list[dict[str, Any]]) -> list[Best]:
    """Return, for each task and metric, the pruned model with the best mean over seeds.

    Runs are seeds of one another where their specs say the same but for the seed.
    """
    full = {group_of(record): measured(record) for record in found if is_full(record)}
    same: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for record in found:
        if record["spec"]["drop"]["dropped"]:
            spec = record["spec"]
            parts = (
                without_empty(spec["evaluation"]),
                without_empty(spec["drop"]),
                canonical_json(heal_of(spec["heal"])),
            )
            one = json.dumps([spec["model"], *parts], sort_keys=True)
            of_task = same.setdefault((spec["evaluation"]["task"], record["outcome"]["primary"]), {})
            of_task.setdefault(one, []).append(record)
    best, metrics = [], Counter(task for task, _ in same)
    for (task, metric), plans in sorted(same.items()):
        some = max(plans.values(), key=lambda some: mean_of(list(map(measured, some))).merit)
        scores = [measured(record) for record in some]
        whole = [full.get(group_of(record)) for record in some]
        kept = [one.retained(other) if other else None for one, other in zip(scores, whole, strict=True)]
        known = [share for share in kept if share is not None]
        share = statistics.fmean(known) if len(known) == len(kept) else None
        spread = statistics.stdev(score.value for score in scores) if len(scores) > 1 else None
        name = task if metrics[task] == 1 else f"{task} ({metric})"
        best.append(Best(name, some[0], mean_of(scores), spread, len(scores), share))
    return best
