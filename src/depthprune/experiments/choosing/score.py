"""Score the layers of a model: load it, take a sample, compute the scores, and describe them for a score file."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.arguments import checked
from depthprune.errors import CannotDropError, ExtensionError, UserError
from depthprune.experiments.choosing.calibrate import Prepared, open_states, prepare
from depthprune.experiments.choosing.engine import Engine
from depthprune.experiments.environment import environment
from depthprune.plan import LayerPlan
from depthprune.quiet import no_progress, quietly
from depthprune.registry import warn_once
from depthprune.scores.base import LayerScores, Scores, ScoringMethod, check_token, registry
from depthprune.sources import ModelSource, locate
from depthprune.tasks import TaskData
from depthprune.tasks.data.calibration import CalibrationOptions

if TYPE_CHECKING:
    from depthprune.surgery.stacks import Stack

Progress = Callable[[str, int, int], None]


@checked("score")
@quietly()
def score_layers(
    model: str | Path | ModelSource,
    method: str,
    data: CalibrationOptions | str,
    *,
    stack: str | None = None,
    token: str | None = None,
    objective: str | None = None,
    engine: Engine | None = None,
    task_data: TaskData | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: Progress = no_progress,
) -> Scores:
    """Score the layers of a model on calibration data. This is `depthprune.score`.

    Args:
        model: a local folder or a Hub id, or a model that was located before.
        method: one of `depthprune list`: `contribution`, `block-influence`, `angular`, …
        data: the sample, or the name of the data to sample from.
        stack: which stack, for a model with several.
        token: `first`, `last`, or `mean` for the mean of all real tokens, for methods of a single token; by default the
            token that represents a sentence.
        objective: for the method `loss`: `loss`, `perplexity`, `kl`, `embedding`, `metric`; by default the one that
            fits the model.
        engine: how the model is run.
        task_data: the rows of the task in `data`, if they were read before.
        on_progress: called with (name of the stage, steps done, steps in all).

    Returns:
        The scores; for a similarity method, those of all such methods, since one forward pass gives them all.

    Raises:
        UserError: for anything that the user can fix; the message is one line.
    """
    chosen = registry.get(method)
    if token is not None:
        check_token(token)
    if objective is not None and chosen.needs != "objective":
        raise UserError(f"--objective is for --method loss; '{method}' has none")
    engine = engine or Engine()
    options = CalibrationOptions(data) if isinstance(data, str) else data
    source = locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    on_progress("loading the model", 0, 1)
    prepared = prepare(source, options, engine, stack, task_data)
    from depthprune.scores.batches import sentence_token

    token = token or sentence_token(prepared.model, prepared.tokenizer, prepared.stack.name)
    more: dict[str, Any] = {}
    if chosen.needs == "pass":
        by_method = _similarity(prepared, method, token, on_progress)
    elif chosen.needs == "objective":
        name, scores = _objective_scores(prepared, chosen, objective, on_progress)
        by_method, more["objective"] = {method: scores}, name
    elif chosen.needs == "gradient":
        by_method = {method: _gradient_scores(prepared, chosen, on_progress)}
    else:
        by_method = {method: _weight_scores(prepared, chosen, on_progress)}
    import torch

    return Scores(
        model=prepared.describe() | more,
        stack=prepared.stack.name,
        depth=prepared.stack.depth,
        method=method,
        by_method=by_method,
        calibration=prepared.calibration.describe() | ({"notes": prepared.notes} if prepared.notes else {}),
        token=token,
        environment=environment(str(prepared.model.device), torch.get_num_threads()),
    )


def _similarity(prepared: Prepared, method: str, token: str, on_progress: Progress) -> dict[str, LayerScores]:
    from depthprune.scores.capture import similarity_pass
    from depthprune.scores.layerwise import similarity_by_layer

    inputs = prepared.batches(predict=False).inputs

    def step(done: int, total: int) -> None:
        on_progress("layers" if prepared.pieces else "pass", done, total)

    if prepared.pieces is None:
        sums = similarity_pass(prepared.model, prepared.stack, inputs, token=token, on_step=step)
    else:
        with open_states(prepared.engine) as store:
            sums = similarity_by_layer(prepared.pieces, inputs, store, token=token, on_step=step)
    found = {}
    for name, part in registry.items():
        if part.needs == "pass":
            try:
                found[name] = _checked(part, part.function(sums), prepared.stack.depth)
            except ExtensionError as error:
                if name == method:
                    raise
                warn_once(error)
    return found


def _checked(part: ScoringMethod, scores: Any, depth: int) -> LayerScores:
    """Check that a method returned scores for every layer.

    Raises:
        ExtensionError: if the method returned something else.
    """
    if len(registry.check_returned(part.name, scores, LayerScores).layers) != depth:
        raise registry.fault(part.name, f"returned {len(scores.layers)} scores for {depth} layers")
    return scores


def _objective_scores(
    prepared: Prepared, chosen: ScoringMethod, name: str | None, on_progress: Progress
) -> tuple[str, LayerScores]:
    from depthprune.experiments.choosing.objectives import FINETUNED, choose_objective, opened_objective
    from depthprune.scores.layerwise import loss_by_layer
    from depthprune.strategies.evaluator import Evaluator

    if name == FINETUNED:
        raise UserError(
            "the objective 'finetuned' trains a model for each plan; run depthprune search --objective finetuned"
        )
    objective = choose_objective(prepared, name)
    if prepared.pieces is not None:
        if objective.cost is None:
            raise UserError(f"--layerwise cannot take the objective '{objective.name}'; give loss, kl or perplexity")
        with open_states(prepared.engine) as store:
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

        return objective.name, _checked(chosen, chosen.function(prepared.stack.depth, value), prepared.stack.depth)


def _gradient_scores(prepared: Prepared, chosen: ScoringMethod, on_progress: Progress) -> LayerScores:
    if prepared.pieces is not None:
        raise UserError(f"--layerwise cannot take gradients; leave it out, or choose another method than {chosen.name}")
    from depthprune.scores.objectives.base import registry as objectives
    from depthprune.scores.predictions import check_finite, loss_tensor, number_predicted

    objectives.get("loss").check(prepared.head, prepared.calibration.labels is not None, type(prepared.model).__name__)
    prepared.fit_labels()
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

    return _checked(chosen, chosen.function(layers, add_gradients), len(layers))


def _weight_scores(prepared: Prepared, chosen: ScoringMethod, on_progress: Progress) -> LayerScores:
    if prepared.pieces is None:
        return _checked(chosen, chosen.function(layer_modules(prepared.model, prepared.stack)), prepared.stack.depth)
    scores = []
    for i in range(prepared.stack.depth):
        scores += _checked(chosen, chosen.function([[prepared.pieces.layer(i)]]), 1).layers
        on_progress("layers", i + 1, prepared.stack.depth)
    return LayerScores(tuple(scores))


def layer_modules(model: Any, stack: "Stack") -> list[list[Any]]:
    """Return the modules of each layer of a stack.

    Raises:
        CannotDropError: if all passes share the weights of one layer.
    """
    if not stack.paths:
        raise CannotDropError("one layer's weights serve every pass, so there are no layers to compare")
    return [[model.get_submodule(f"{path}.{i}") for path in stack.paths] for i in range(stack.depth)]
