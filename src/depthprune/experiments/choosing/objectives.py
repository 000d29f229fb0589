"""The objectives of a search on a model: a cost on calibration data, a task's metric, or the score after
fine-tuning."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.errors import UserError
from depthprune.evaluation.base import in_unit_of, score
from depthprune.evaluation.measurement import Measurement
from depthprune.experiments.choosing.calibrate import Prepared, open_states
from depthprune.plan import LayerPlan
from depthprune.registry import unknown
from depthprune.specs import HealSpec
from depthprune.strategies.evaluator import BatchObjective, FunctionObjective
from depthprune.tasks.metrics.base import HIGHER, LOWER
from depthprune.tasks.metrics.base import registry as metrics

if TYPE_CHECKING:
    from depthprune.scores.leftout import LeftOut
    from depthprune.scores.objectives.base import Objective

METRIC, FINETUNED = "metric", "finetuned"
OUTPUT = "output"
SUMMARIES = {  # of the objectives that are not a cost per batch, or stand for another
    METRIC: "A task's primary metric without training, as a cost.",
    FINETUNED: "A task's primary metric after fine-tuning each plan, as a cost; the most expensive objective.",
    OUTPUT: "How far the output is from the full model's, without labels: kl, or embedding for a model without a head.",
}


def cost_of(measured: Measurement) -> float:
    """Return what a search minimises of a metric: one minus it, or the metric itself where lower is better.

    >>> cost_of(Measurement(0.75)), cost_of(Measurement(0.25, better="lower"))
    (0.25, 0.25)
    """
    return 1 - measured.value if measured.better == HIGHER else measured.value


@dataclass(frozen=True)
class NamedObjective:
    """An objective by name.

    Args:
        name: what the command calls it.
        cost: the cost per batch; None for a metric, which is not a mean over examples.
        unit: of its value.
    """

    name: str
    cost: "Objective | None"
    unit: str


def objective_names() -> list[str]:
    """Return the names of the objectives."""
    from depthprune.scores.objectives.base import registry

    return sorted([*registry.names(), *SUMMARIES])


def choose_objective(prepared: Prepared, name: str | None) -> NamedObjective:
    """Return the objective `name`, or the one that fits the model best if None.

    Raises:
        UserError: if the objective does not fit the model or the data.
    """
    from depthprune.scores.objectives.base import default_objective, registry

    labelled = prepared.calibration.labels is not None
    if name == OUTPUT:
        name = "embedding" if prepared.head is None else "kl"
    name = name or default_objective(prepared.head, labelled)
    if name in (METRIC, FINETUNED):
        if not labelled:
            raise UserError(f"the objective '{name}' needs a task with labels, such as --data mrpc")
        if name == METRIC and prepared.head != "classes":
            raise UserError(
                f"the objective 'metric' needs a classifier, and '{prepared.source.name}' is a "
                f"{type(prepared.model).__name__}; fine-tune it first: depthprune finetune"
            )
        if name == METRIC:
            prepared.fit_labels()
        task = prepared.calibration.task
        lower = metrics.get(task.metrics[0]).better == LOWER
        return NamedObjective(name, None, task.primary if lower else f"1 − {task.primary}")
    if name not in registry.names():
        raise unknown("objective", name, objective_names(), among=(registry,))
    cost = registry.get(name)
    cost.check(prepared.head, labelled, f"'{prepared.source.name}'")
    if cost.labels:
        prepared.fit_labels()
    return NamedObjective(name, cost, cost.unit)


@contextmanager
def opened_objective(prepared: Prepared, chosen: NamedObjective, *, reuse: bool = True) -> Iterator[BatchObjective]:
    """Open an objective on a model, which is run in part until the context ends.

    Args:
        reuse: cache hidden states and start where plans differ; otherwise every plan is run from the start.
    """
    from depthprune.scores.leftout import LeftOut
    from depthprune.scores.objectives.base import registry
    from depthprune.scores.states import StateStore
    from depthprune.surgery.partial import partial_model

    batches = prepared.batches(predict=True)
    sample = batches[0].inputs
    with (
        partial_model(prepared.model, prepared.stack, sample) as runner,
        open_states(prepared.engine) if reuse else StateStore(prepared.engine.cache_memory) as store,
    ):
        runner.resumes = runner.resumes and reuse
        leftout = LeftOut(runner, batches, chosen.cost or registry.get("kl"), store)
        yield leftout if chosen.cost is not None else TaskMetric(leftout, prepared.calibration.task)


class TaskMetric:
    """The cost by the primary metric of a classifier without training, over the whole sample at once."""

    num_batches = 1

    def __init__(self, leftout: "LeftOut", task: Any):
        self._leftout, self._task = leftout, task

    def batch(self, plan: LayerPlan, number: int) -> tuple[float, int]:
        from depthprune.evaluation.batching import refuse_nan

        expected, predicted, broken = [], [], 0
        for i in range(self._leftout.num_batches):
            logits_BC, targets = self._leftout.output(plan, i)
            broken += int(logits_BC.isnan().any(-1).sum())
            expected += targets.tolist() if self._task.regression else targets.int().tolist()
            predicted += (logits_BC[:, 0] if self._task.regression else logits_BC.argmax(-1)).tolist()
        refuse_nan(broken, len(expected))
        if not self._task.regression:
            expected, predicted = self._task.labels_of(expected), self._task.labels_of(predicted)
        name = self._task.metrics[0]
        return cost_of(in_unit_of(name, score(self._task, expected, predicted)[name])), 1

    def finish(self, mean: float) -> float:
        return mean

    def keep(self, plans: Iterable[LayerPlan]) -> None:
        self._leftout.keep(plans)

    def warm(self, plan: LayerPlan) -> None:
        self._leftout.warm(plan)


def finetuned_objective(
    prepared: Prepared,
    *,
    heal: HealSpec,
    seed: int,
    store: Path | str,
    device: str,
    on_progress: Callable[[str, int, int], None],
) -> FunctionObjective:
    """Return the objective of Greedy Layer Pruning (arXiv:2105.14839): the cost by the score after fine-tuning.

    Every plan is a run in the store, so that nothing is trained twice.
    """
    from depthprune.experiments.run import run
    from depthprune.experiments.specification import make_spec
    from depthprune.experiments.store.store import Store
    from depthprune.tasks.data.calibration import DEFAULT_LENGTH, labelled_rows

    options = prepared.calibration.options
    data = labelled_rows(options)
    assert data is not None, "the objective needs labels, which has been checked"
    runs = Store(store)

    def value(plan: LayerPlan) -> float:
        spec = make_spec(prepared.source, data, plan, heal=heal, max_length=options.length or DEFAULT_LENGTH, seed=seed)
        result = run(prepared.source, data, spec, store=runs, device=device, on_progress=on_progress)
        return cost_of(result.measured)

    return FunctionObjective(value)
