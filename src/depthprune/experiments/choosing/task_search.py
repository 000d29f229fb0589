"""Search on a task's training rows, for runs whose strategy is a search. No torch until a search starts.

The objective is `output`, the distance from the full model's output, so that neither labels nor the rows of the
evaluation are used. A stepwise search finds all smaller plans on its way; the store keeps its result and trace, so that
a search for another count is resumed.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from depthprune.errors import PlanError
from depthprune.experiments.choosing.engine import Engine
from depthprune.quiet import no_progress
from depthprune.result_file import write_json
from depthprune.sources import ModelSource
from depthprune.strategies.scored import parse_protected
from depthprune.strategies.search_result import SearchResult, read_search_result
from depthprune.tasks import TaskData
from depthprune.tasks.data.calibration import training_sample

SCORES_FOLDER = "scores"  # of a store
OBJECTIVE = "output"
STEPWISE = ("greedy", "beam")  # for a count, these find all smaller counts too
Progress = Callable[[str, int, int], None]


def task_search(
    source: ModelSource,
    method: str,
    data: TaskData,
    counts: Sequence[int],
    *,
    protect: str | None,
    max_length: int,
    store: Path,
    device: str,
    take: bool = True,
    on_progress: Progress = no_progress,
) -> SearchResult | None:
    """Return the plans that a search finds for some counts, from the store if it has them.

    Args:
        take: search if the store has no plans; otherwise return None.

    Raises:
        UserError: if the model cannot be searched, or a count is impossible.
    """
    from depthprune.experiments.choosing.search import SearchOptions, search_layers
    from depthprune.experiments.specification import stack_depth

    depth = stack_depth(source)
    most = depth - max(1, len(parse_protected(protect, depth)))
    wanted = {count for count in counts if 1 <= count <= most}
    if not wanted:
        raise PlanError(f"cannot drop {', '.join(map(str, counts))} of {depth} layers; --count is 1 to {most}")
    if method in STEPWISE:
        wanted = set(range(1, max(wanted) + 1))
    file = search_file(store, source, method, data, protect, max_length)
    if file.is_file():
        known = read_search_result(file)
        if wanted <= set(known.plans):
            return known
        wanted |= set(known.plans)
    if not take:
        return None
    found = search_layers(
        source,
        method,
        training_sample(data, max_length),
        SearchOptions(tuple(sorted(wanted)), OBJECTIVE, protect),
        engine=Engine(device=device),
        trace=file.with_suffix(".trace.jsonl"),
        task_data=data,
        on_progress=lambda stage, done, total: on_progress(f"{method} search: {stage}", done, total),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, found.to_dict())
    return found


def search_file(
    store: Path, source: ModelSource, method: str, data: TaskData, protect: str | None, max_length: int
) -> Path:
    """Return the file of a store for the result of a search on a model and a task."""
    sample = training_sample(data, max_length)
    key = [source.identity, method, OBJECTIVE, data.fingerprint, sample.split, sample.samples, max_length]
    text = json.dumps([*key, protect] if protect else key)
    return store / SCORES_FOLDER / f"search-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
