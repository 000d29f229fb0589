"""The searches of a store as values: what each plan cost before healing, and which ones were chosen. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from depthprune.errors import UserError
from depthprune.experiments.choosing.task_search import SCORES_FOLDER
from depthprune.strategies.evaluator import read_trace
from depthprune.strategies.search_result import read_search_result

Dropped = tuple[int, ...]


@dataclass(frozen=True)
class Search:
    """A search for the layers to drop, on the rows of a task.

    Args:
        model: the identity of the model; `model_name`, what it is called.
        task: whose rows were used.
        method: `greedy`, …
        objective: what was minimised, and its unit.
        chosen: number of layers → the plan that was found.
        values: the objective of every plan that was tried, the full model's included.
    """

    model: str
    model_name: str
    task: str
    method: str
    objective: str
    chosen: Mapping[int, Dropped] = field(hash=False)
    values: Mapping[Dropped, float] = field(hash=False)


def read_searches(root: Path) -> list[Search]:
    """Read the searches of a store; other files are left alone.

    A trace beside the result has the plans that were tried and not chosen.
    """
    found = []
    for file in sorted((root / SCORES_FOLDER).glob("search-*.json")):
        try:
            result = read_search_result(file)
        except UserError:
            continue
        values = {(): result.full} | dict(result.plans.values())
        trace = file.with_suffix(".trace.jsonl")
        if trace.is_file():
            try:
                entries = read_trace(trace)
            except UserError:
                entries = []
            whole = [entry for entry in entries if entry.get("fraction", 1) == 1]
            values = {tuple(entry["dropped"]): float(entry["value"]) for entry in whole} | values
        found.append(
            Search(
                result.model["identity"],
                str(result.model["name"]),
                str(result.calibration["data"]),
                result.method,
                " ".join(filter(None, (result.objective["name"], result.objective.get("unit", "")))),
                {count: dropped for count, (dropped, _) in result.plans.items()},
                values,
            )
        )
    return found
