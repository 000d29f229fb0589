"""What a store remembers of its sweeps: which cell stands behind which run, and how long runs take. No torch."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.experiments.store.store import Store
from depthprune.result_file import replace_json

if TYPE_CHECKING:
    from depthprune.experiments.sweeps.expansion import Expansion

SWEEPS = "sweeps"  # folder in a store


def remember(expansion: "Expansion", store: Store) -> Path:
    """Write down which cells stand behind which runs, beside what other sweeps wrote; returns the file.

    A cell's key is all that it says, so the same sweep again changes nothing.
    """
    rows = [vars(row) | {"model": Path(row.model).name} for row in expansion.rows]
    content = {"rows": rows, "skipped": expansion.skipped}
    name = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    file = store.root / SWEEPS / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_json(file, content)
    return file


def estimate(expansion: "Expansion", store: Store) -> float | None:
    """Return seconds of one worker for the runs that are not done, from the records of like runs; None without any."""
    from depthprune.experiments.store.records import records

    known: dict[tuple[str, str], list[float]] = {}
    done = dict(records(store))
    for record in filter(None, done.values()):
        key = (record["spec"]["model"], record["spec"]["evaluation"]["task"])
        known.setdefault(key, []).append(float(record["outcome"]["seconds"]))
    total = 0.0
    for digest, job in expansion.jobs.items():
        if digest in done:
            continue
        times = known.get((job.spec.model, job.spec.evaluation.task)) or [t for each in known.values() for t in each]
        if not times:
            return None
        total += sum(times) / len(times)
    return total


def stored_rows(store: Store) -> list[Mapping[str, Any]]:
    """Return the cells of every sweep that the store remembers, each once."""
    rows: dict[str, Mapping[str, Any]] = {}
    for file in sorted((store.root / SWEEPS).glob("*.json")) if (store.root / SWEEPS).is_dir() else ():
        try:
            for row in json.loads(file.read_text(encoding="utf-8"))["rows"]:
                rows[json.dumps(row, sort_keys=True)] = row
        except (OSError, ValueError, KeyError, TypeError):
            continue  # other files are left alone; what it would have said is in the records
    return list(rows.values())
