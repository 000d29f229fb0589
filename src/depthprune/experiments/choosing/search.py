"""Search for the layers of a model to drop: load it, take a sample, open the objective, search."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from depthprune.arguments import checked
from depthprune.errors import UserError
from depthprune.experiments.choosing.calibrate import Prepared, prepare
from depthprune.experiments.choosing.engine import Engine
from depthprune.experiments.environment import environment
from depthprune.plan import LayerPlan
from depthprune.quiet import no_progress, quietly
from depthprune.sources import ModelSource, locate
from depthprune.specs import HealSpec, canonical_json, heal_of
from depthprune.strategies.evaluator import Evaluator, read_trace
from depthprune.strategies.scored import parse_protected
from depthprune.strategies.search_result import SearchResult
from depthprune.strategies.searched import Space, methods, trials
from depthprune.tasks import TaskData
from depthprune.tasks.data.calibration import CalibrationOptions

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SearchOptions:
    """The options of a search.

    Args:
        counts: how many layers to drop; a greedy search finds all smaller counts on the way.
        objective: what is minimised; by default the one that fits the model. `output` is the distance from the full
            model's output: `kl` for a model with a head, `embedding` for one without.
        protect: layers that are kept, such as `0,-1`.
        race: stop evaluating candidates that are clearly worse on a part of the sample.
        reuse: start a plan at the hidden state that it shares with an earlier one; otherwise at the embeddings.
        width: number of plans in a beam.
        generations: of the evolutionary search.
        seed: of the evolutionary search, and of fine-tuning.
        heal: for the objective `finetuned`.
        store: the folder of runs, for `finetuned`.
    """

    counts: tuple[int, ...]
    objective: str | None = None
    protect: str | None = None
    race: bool = False
    reuse: bool = True
    width: int = 3
    generations: int = 20
    seed: int = 42
    heal: HealSpec = field(default_factory=HealSpec)
    store: Path | str = Path("runs")


@checked("search")
@quietly()
def search_layers(
    model: str | Path | ModelSource,
    method: str,
    data: CalibrationOptions | str,
    options: SearchOptions,
    *,
    stack: str | None = None,
    engine: Engine | None = None,
    trace: Path | str | None = None,
    task_data: TaskData | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: Progress = no_progress,
) -> SearchResult:
    """Search for the layers to drop. This is `depthprune.search`.

    Args:
        model: a local folder or a Hub id, or a model that was located before.
        method: `greedy`, `beam`, `evolutionary` or `exhaustive`.
        data: the sample, or the name of the data to sample from.
        options: of the search.
        stack: which stack, for a model with several.
        engine: how the model is run.
        trace: file for every evaluated plan; an interrupted search is resumed from it.
        task_data: the rows of the task in `data`, if they were read before.
        on_progress: called with (name of the stage, steps done, steps in all).

    Raises:
        UserError: for anything that the user can fix; the message is one line.
    """
    chosen = methods.get(method)
    trace = Path(trace) if trace is not None else None
    engine = engine or Engine()
    if engine.layerwise:
        raise UserError("a search runs the model many times; --layerwise is for depthprune score --method loss")
    source = locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    on_progress("loading the model", 0, 1)
    prepared = prepare(source, CalibrationOptions(data) if isinstance(data, str) else data, engine, stack, task_data)
    space = Space(
        prepared.stack.depth,
        tuple(sorted(set(options.counts))),
        parse_protected(options.protect, prepared.stack.depth),
        options.width,
        options.generations,
        options.seed,
    )
    total = trials(method, space)

    def on_trial(done: int) -> None:
        on_progress("plans", done, max((total or done) + 1, done))

    from depthprune.experiments.choosing import objectives

    objective = objectives.choose_objective(prepared, options.objective)
    header = _as_recorded(_header(prepared, method, objective.name, space, options), trace)
    started = time.perf_counter()

    def look(opened: Any) -> tuple[dict[int, LayerPlan], Evaluator]:
        with Evaluator(opened, trace=trace, header=header, race=options.race, on_trial=on_trial) as evaluator:
            evaluator.value(LayerPlan(space.depth, ()))
            plans = methods.check_returned(method, chosen.function(evaluator, space), dict)
            _ = [evaluator.value(plan) for plan in plans.values()]
            return plans, evaluator

    if objective.name == objectives.FINETUNED:
        how = {"heal": options.heal, "seed": options.seed, "store": options.store, "on_progress": on_progress}
        plans, evaluator = look(objectives.finetuned_objective(prepared, device=str(prepared.model.device), **how))
    else:
        with objectives.opened_objective(prepared, objective, reuse=options.reuse) as opened:
            plans, evaluator = look(opened)
    import torch

    return SearchResult(
        model=prepared.describe(),
        stack=prepared.stack.name,
        depth=space.depth,
        method=method,
        objective={"name": objective.name, "unit": objective.unit},
        plans={count: (plan.dropped, evaluator.value(plan)) for count, plan in plans.items()},
        full=evaluator.value(LayerPlan(space.depth, ())),
        calibration=prepared.calibration.describe() | ({"notes": prepared.notes} if prepared.notes else {}),
        settings=header["settings"],
        trials=evaluator.trials,
        seconds=sum(entry["seconds"] for entry in read_trace(trace)) if trace else time.perf_counter() - started,
        environment=environment(str(prepared.model.device), torch.get_num_threads()),
    )


def _header(prepared: Prepared, method: str, objective: str, space: Space, options: SearchOptions) -> dict[str, Any]:
    """Return what identifies a search: it is resumed from a trace only if all of this agrees."""
    settings: dict[str, Any] = {"seed": space.seed, "protected": sorted(space.protected), "race": options.race}
    if method == "beam":
        settings["width"] = space.width
    if method == "evolutionary":
        settings["generations"] = space.generations
    if objective == "embedding" and prepared.pooling != ("mean",):
        settings["pooling"] = list(prepared.pooling)
    if objective == "finetuned":
        settings["heal"] = json.loads(canonical_json(options.heal))
    return {
        "model": prepared.source.identity,
        "stack": prepared.stack.name,
        "method": method,
        "objective": objective,
        "calibration": prepared.calibration.fingerprint,
        "batch_size": prepared.engine.batch_size,
        "settings": settings,
    }


def _as_recorded(header: dict[str, Any], trace: Path | None) -> dict[str, Any]:
    """Return a header as a trace of this search has it, in which an earlier version wrote the recipe in full."""
    try:
        with (trace or Path()).open(encoding="utf-8") as lines:
            found = json.loads(lines.readline())
        heal = heal_of(found["settings"]["heal"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, UserError):
        return header
    found.pop("format", None)
    settings = found["settings"] | {"heal": json.loads(canonical_json(heal))}
    return found if found | {"settings": settings} == header else header
