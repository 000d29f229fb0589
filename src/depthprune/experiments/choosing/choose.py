"""Choose the layers of a run: by position, explicitly, by scores on the task's data, or by a search on it."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from depthprune.errors import PlanError, UserError
from depthprune.experiments.choosing.engine import Engine
from depthprune.experiments.choosing.task_search import SCORES_FOLDER, task_search
from depthprune.plan import LayerPlan
from depthprune.registry import unknown
from depthprune.result_file import write_json
from depthprune.scores import Scores, read_scores
from depthprune.scores import registry as scoring_methods
from depthprune.sources import ModelSource
from depthprune.strategies import plan_layers, registry, removal_order
from depthprune.strategies.scored import check_choice, check_threshold, plan_scored, scored_order
from depthprune.strategies.searched import methods
from depthprune.tasks import TaskData
from depthprune.tasks.data.calibration import training_sample

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Choice:
    """How layers are chosen, as given by the user.

    Args:
        strategy: by position (`top`, …), by a score (`contribution`, …) or by a search (`greedy`, …).
        count: how many layers to drop.
        layers: layers to drop, such as `8,9-11`.
        keep: layers to keep, in the same form.
        threshold: with a score: drop the layers whose mean cosine is above it.
        protect: with a score or a search: layers that are kept, such as `0,-1`.
    """

    strategy: str | None = None
    count: int | None = None
    layers: str | Iterable[int] | None = None
    keep: str | Iterable[int] | None = None
    threshold: float | None = None
    protect: str | None = None

    @property
    def by_score(self) -> bool:
        """Whether the layers have to be scored first."""
        return self.strategy is not None and self.strategy in scoring_methods.names()

    @property
    def by_search(self) -> bool:
        """Whether a search has to run first."""
        return self.strategy is not None and self.strategy in methods.names()

    def check(self) -> None:
        """Check a choice before anything is loaded.

        Raises:
            UserError: if there is no such strategy, several have that name, or a threshold is given without a score.
        """
        searched = (registry, scoring_methods, methods)
        kinds = [each.kind for each in searched if self.strategy is not None and self.strategy in each.names()]
        if len(kinds) > 1:
            raise UserError(
                f"'{self.strategy}' is a {kinds[0]} and a {kinds[1]}; uninstall the extension that registers the second"
            )
        if self.by_score or self.by_search:
            if self.layers is not None or self.keep is not None:
                raise PlanError("--strategy, --layers and --keep exclude each other; give one")
            if self.by_search and (self.count is None or self.threshold is not None):
                raise PlanError(f"--strategy {self.strategy} is a search; it needs --count, and takes no --threshold")
            if (self.count is None) == (self.threshold is None):
                raise PlanError(f"--strategy {self.strategy} needs --count, or a --threshold on the cosine; give one")
            if self.threshold is not None and self.strategy is not None:
                check_threshold(self.strategy, self.threshold)
            return
        if self.threshold is not None or self.protect is not None:
            raise PlanError(
                "--threshold goes with a strategy by scores, such as contribution, and --protect with one by scores or "
                "by search"
            )
        if self.strategy is not None:
            if self.strategy not in registry.names():
                known = sorted(name for each in searched for name in each.names())
                raise unknown("strategy", self.strategy, known, among=searched)
            registry.get(self.strategy)


def choose_plan(
    choice: Choice,
    depth: int,
    source: ModelSource,
    data: TaskData,
    *,
    max_length: int,
    store: Path,
    device: str,
    on_progress: Progress,
) -> tuple[LayerPlan, tuple[int, ...]]:
    """Return the plan of a choice, and the order of its layers for a gradual drop.

    Scores are computed with the original model on training rows, since the run is evaluated on the development set.

    Scores are kept in the store, so that another count needs no forward pass.

    Raises:
        UserError: if there is no such plan, or the model cannot be scored.
    """
    if choice.by_search:
        assert choice.strategy is not None and choice.count is not None
        where = {"max_length": max_length, "store": store, "device": device, "on_progress": on_progress}
        found = task_search(source, choice.strategy, data, [choice.count], protect=choice.protect, **where)
        assert found is not None, "it searches where the store has nothing"
        return found.plan(choice.count), found.order(choice.count)
    if not choice.by_score:
        plan = plan_layers(depth, strategy=choice.strategy, count=choice.count, layers=choice.layers, keep=choice.keep)
        return plan, removal_order(plan, choice.strategy)
    assert choice.strategy is not None
    how = {"count": choice.count, "threshold": choice.threshold, "protect": choice.protect}
    check_choice(choice.strategy, depth, **how)  # before the forward pass
    scores = task_scores(
        source, choice.strategy, data, max_length=max_length, store=store, device=device, on_progress=on_progress
    )
    plan = plan_scored(scores, method=choice.strategy, **how)
    return plan, scored_order(plan, scores, choice.strategy)


def task_scores(
    source: ModelSource,
    method: str,
    data: TaskData,
    *,
    max_length: int,
    store: Path,
    device: str,
    on_progress: Progress,
) -> Scores:
    """Return the scores of a model on a sample of a task's training rows, from the store if it has them."""
    from depthprune.experiments.choosing.score import score_layers

    file = score_file(store, source, method, data, max_length)
    if file.is_file():
        return read_scores(file)
    scores = score_layers(
        source,
        method,
        training_sample(data, max_length),
        engine=Engine(device=device),
        task_data=data,
        on_progress=lambda stage, done, total: on_progress(f"scores: {stage}", done, total),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, scores.to_dict())
    return scores


def score_file(store: Path, source: ModelSource, method: str, data: TaskData, max_length: int) -> Path:
    """Return the file of a store for the scores of a model on a task; all methods of one forward pass share a file."""
    group = "pass" if scoring_methods.get(method).needs == "pass" else method
    sample = training_sample(data, max_length)
    key = json.dumps([source.identity, group, data.fingerprint, sample.split, sample.samples, max_length])
    return store / SCORES_FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"
