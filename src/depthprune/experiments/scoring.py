"""Score the layers of a model: load, sample, one pass or one loss a layer, and what a score file says about it all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.errors import CannotDropError, UserError
from depthprune.experiments import provenance
from depthprune.experiments.engine import Engine
from depthprune.experiments.prepare import resolve_device
from depthprune.loading import load_model, load_tokenizer
from depthprune.plan import LayerPlan
from depthprune.scores.base import LayerScores, Metric, Scores, registry
from depthprune.sources import ModelSource, locate
from depthprune.tasks import TaskData
from depthprune.tasks.calibration import CalibrationOptions, load_calibration

if TYPE_CHECKING:
    from depthprune.surgery.stacks import Stack

Progress = Callable[[str, int, int], None]
TOKENS = ("first", "last")


@dataclass
class Prepared:
    """A model with a sample.

    Args:
        pieces: the checkpoint, where layers are loaded one at a time.
    """

    source: ModelSource
    model: Any
    tokenizer: Any
    stack: "Stack"
    calibration: Any
    engine: Engine
    pieces: Any = None
    head: str | None = field(init=False)

    def __post_init__(self) -> None:
        from depthprune.scores.batches import head_of

        self.head = head_of(self.model)

    def batches(self, *, predict: bool) -> Any:
        """Return the sample in batches."""
        from depthprune.scores.batches import Batches

        return Batches(self.calibration, self.model, self.tokenizer, self.engine.batch_size, predict=predict)

    def describe(self) -> dict[str, Any]:
        """Return what a score file says about the model."""
        return {
            "name": Path(self.source.name).name if self.source.commit is None else self.source.name,
            "identity": self.source.identity,
            "class": type(self.model).__name__,
            "weights": "fine-tuned" if self.head == "classes" else "pre-trained",
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }


def prepare(
    source: ModelSource,
    options: CalibrationOptions,
    engine: Engine,
    stack: str | None,
    task_data: TaskData | None = None,
) -> Prepared:
    """Load a model and a sample, of a task's rows where these were read before.

    Raises:
        UserError: anything a user can cause.
    """
    from depthprune.scores.batches import is_decoder
    from depthprune.surgery.modules import find_stacks

    device = resolve_device(engine.device)
    _check_dtype(engine.dtype)
    tokenizer = load_tokenizer(source)
    pieces = None
    if engine.layerwise:
        if device != "cpu":
            raise UserError("--layerwise runs on the CPU; add --device cpu")
        from depthprune.surgery.piecewise import PiecewiseModel

        pieces = PiecewiseModel(source, stack, dtype=engine.dtype)
        model, chosen = pieces.model, pieces.stack
    else:
        import torch

        model = load_model(source)
        if engine.dtype != "auto":
            model = model.to(getattr(torch, engine.dtype))
        model = model.eval().to(device)  # pyright: ignore[reportArgumentType]
        chosen = _choose(find_stacks(model), stack)
    blocks = is_decoder(model) and tokenizer.cls_token_id is None
    calibration = load_calibration(options, tokenizer, blocks=blocks, task_data=task_data)
    return Prepared(source, model, tokenizer, chosen, calibration, engine, pieces)


def score_layers(
    model: str,
    metric: str,
    data: CalibrationOptions | str,
    *,
    stack: str | None = None,
    token: str | None = None,
    objective: str | None = None,
    engine: Engine | None = None,
    task_data: TaskData | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: Progress = lambda stage, done, total: None,
) -> Scores:
    """Score the layers of a model on calibration data. This is `depthprune.score`.

    Args:
        model: a local folder or a Hub id.
        metric: one of `depthprune list`: `contribution`, `block-influence`, `angular`, …
        data: the sample, or what to take it from.
        stack: which stack, for a model with several.
        token: `first` or `last`, for the metrics of a single token; the sentence's token by default.
        objective: for the metric `loss`: `loss`, `perplexity`, `kl`, `embedding`, `metric`; what fits the model by
            default.
        engine: how the model is run.
        task_data: the rows of the task that `data` names, where they were read before.
        on_progress: called with the stage's name and how far it is.

    Returns:
        The scores; for a metric of similarity, those of all such metrics, since one pass gives them all.

    Raises:
        UserError: anything a user can cause, in one line.
    """
    chosen = registry.get(metric)
    if token is not None and token not in TOKENS:
        raise UserError(f"there is no token '{token}'; it is 'first' or 'last'")
    if objective is not None and chosen.needs != "objective":
        raise UserError(f"--objective is for --metric loss; '{metric}' has none")
    engine = engine or Engine()
    options = CalibrationOptions(data) if isinstance(data, str) else data
    source = locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    on_progress("load", 0, 1)
    prepared = prepare(source, options, engine, stack, task_data)
    from depthprune.scores.batches import sentence_token

    token = token or sentence_token(prepared.model, prepared.tokenizer, prepared.stack.name)
    more: dict[str, Any] = {}
    if chosen.needs == "pass":
        metrics = _similarity(prepared, token, on_progress)
    elif chosen.needs == "objective":
        name, scores = _objective_scores(prepared, chosen, objective, on_progress)
        metrics, more["objective"] = {metric: scores}, name
    elif chosen.needs == "gradient":
        metrics = {metric: _gradient_scores(prepared, chosen, on_progress)}
    else:
        metrics = {metric: _weight_scores(prepared, chosen, on_progress)}
    import torch

    return Scores(
        model=prepared.describe() | more,
        stack=prepared.stack.name,
        depth=prepared.stack.depth,
        metric=metric,
        metrics=metrics,
        calibration=prepared.calibration.describe(),
        token=token,
        environment=provenance.environment(str(prepared.model.device), torch.get_num_threads()),
    )


def _similarity(prepared: Prepared, token: str, on_progress: Progress) -> dict[str, LayerScores]:
    from depthprune.scores.capture import similarity_pass
    from depthprune.scores.layerwise import similarity_by_layer

    inputs = prepared.batches(predict=False).inputs

    def step(done: int, total: int) -> None:
        on_progress("layers" if prepared.pieces else "pass", done, total)

    if prepared.pieces is None:
        sums = similarity_pass(prepared.model, prepared.stack, inputs, token=token, on_step=step)
    else:
        with open_store(prepared.engine) as store:
            sums = similarity_by_layer(prepared.pieces, inputs, store, token=token, on_step=step)
    return {name: part.function(sums) for name, part in registry.items() if part.needs == "pass"}


def _objective_scores(
    prepared: Prepared, chosen: Metric, name: str | None, on_progress: Progress
) -> tuple[str, LayerScores]:
    from depthprune.experiments.objectives import FINETUNED, choose_objective, opened_objective
    from depthprune.scores.layerwise import loss_by_layer
    from depthprune.strategies.evaluator import Evaluator

    if name == FINETUNED:
        raise UserError("the objective 'finetuned' trains a model a plan; run depthprune search --objective finetuned")
    objective = choose_objective(prepared, name)
    if prepared.pieces is not None:
        if objective.cost is None:
            raise UserError(f"--layerwise cannot take the objective '{objective.name}'; give loss, kl or perplexity")
        with open_store(prepared.engine) as store:
            scores = loss_by_layer(
                prepared.pieces,
                prepared.batches(predict=True),
                objective.cost,
                store,
                on_step=lambda done, total: on_progress("layers", done, total),
            )
        return objective.name, scores
    with opened_objective(prepared, objective) as opened:
        evaluator = Evaluator(opened, on_trial=lambda done: on_progress("plans", done, prepared.stack.depth + 1))

        def value(plan: Any) -> float:
            result = evaluator.value(plan)
            evaluator.keep([LayerPlan(plan.depth, ())])
            return result

        return objective.name, chosen.function(prepared.stack.depth, value)


def _gradient_scores(prepared: Prepared, chosen: Metric, on_progress: Progress) -> LayerScores:
    if prepared.pieces is not None:
        raise UserError(f"--layerwise cannot take gradients; leave it out, or choose another metric than {chosen.name}")
    from depthprune.scores.objectives import check_finite, loss_tensor, number_predicted
    from depthprune.scores.objectives import registry as objectives

    objectives.get("loss").check(prepared.head, prepared.calibration.labels is not None, type(prepared.model).__name__)
    layers = layer_modules(prepared.model, prepared.stack)
    prepared.model.requires_grad_(False)
    for modules in layers:
        for module in modules:
            module.requires_grad_(True)
    batches = prepared.batches(predict=True)

    def add_gradients() -> int:
        count = 0
        for number, batch in enumerate(batches):
            loss = loss_tensor(prepared.model(**batch.inputs), batch, prepared.head)
            check_finite(float(loss.detach()), number, ())
            loss.backward()
            count += number_predicted(batch, prepared.head)
            on_progress("gradients", number + 1, len(batches))
        return count

    return chosen.function(layers, add_gradients)


def _weight_scores(prepared: Prepared, chosen: Metric, on_progress: Progress) -> LayerScores:
    if prepared.pieces is None:
        return chosen.function(layer_modules(prepared.model, prepared.stack))
    scores = []
    for i in range(prepared.stack.depth):
        scores += chosen.function([[prepared.pieces.layer(i)]]).layers
        on_progress("layers", i + 1, prepared.stack.depth)
    return LayerScores(tuple(scores))


def layer_modules(model: Any, stack: "Stack") -> list[list[Any]]:
    """Return the modules of each layer of a stack.

    Raises:
        CannotDropError: one layer's weights serve every pass.
    """
    if not stack.paths:
        raise CannotDropError("one layer's weights serve every pass, so there are no layers to compare")
    return [[model.get_submodule(f"{path}.{i}") for path in stack.paths] for i in range(stack.depth)]


def open_store(engine: Engine) -> Any:
    import tempfile

    from depthprune.scores.states import StateStore

    return StateStore(engine.cache_memory, engine.cache_dir or Path(tempfile.gettempdir()))


def _choose(stacks: dict[str, Any], name: str | None) -> Any:
    if name is None and len(stacks) > 1:
        known = ", ".join(f"'{known}' ({stack.depth} layers)" for known, stack in stacks.items())
        raise UserError(f"the model has several stacks: {known}; say which one with --stack")
    if name is not None and name not in stacks:
        raise UserError(f"the model has no stack '{name}'; it has {', '.join(map(repr, stacks))}")
    return stacks[name] if name is not None else next(iter(stacks.values()))


def _check_dtype(dtype: str) -> None:
    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise UserError(f"there is no dtype '{dtype}'; it is one of auto, float32, bfloat16, float16")
