"""Read the records of a store, and the figures that everyone takes from them. No torch."""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from depthprune.evaluation.measurement import Measurement, primary_of
from depthprune.experiments.store.store import Store, readable_record
from depthprune.specs import canonical_json, heal_of


def records(store: Store) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield (name of the folder, record) for every folder with a record; None for one that is broken or foreign."""
    if not store.root.is_dir():
        return
    for folder in sorted(store.root.iterdir()):
        file = folder / "record.json"
        if file.is_file():
            yield folder.name, readable_record(file)


def measured(record: dict[str, Any]) -> Measurement:
    """Return a record's primary metric."""
    return primary_of(record["outcome"])


def speedup_of(profile: dict[str, Any]) -> float | None:
    """Return how many times as fast as the full model a run's model is; None where nobody timed it.

    >>> speedup_of({"latency_ms": 2.0, "full_latency_ms": 3.0})
    1.5
    """
    if "speedup" in profile:  # measured in turns; older records have the two latencies alone
        return profile["speedup"]["value"]
    latency, full = profile.get("latency_ms"), profile.get("full_latency_ms")
    return full / latency if latency and full else None


def is_full(record: dict[str, Any]) -> bool:
    """Return whether a run is a full model's, by which others are measured, and no training for several depths."""
    return not record["spec"]["drop"]["dropped"] and not record["spec"]["heal"].get("steps")


def group_of(record: dict[str, Any]) -> str:
    """Return what a run has in common with the full model it is compared with: all but the layers and how they go."""
    spec = record["spec"]
    whole = {**spec, "evaluation": without_empty(spec["evaluation"]), "drop": None}
    return json.dumps({**whole, "heal": _full_recipe(json.dumps(spec["heal"]))}, sort_keys=True)


def without_empty(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is empty: what a spec can say since later is not in older records, which mean the same."""
    return {name: value for name, value in values.items() if value not in (None, "", [])}


@lru_cache(maxsize=256)  # thousands of records share a few recipes
def _full_recipe(heal: str) -> str:
    return canonical_json(heal_of(json.loads(heal)).for_full())
