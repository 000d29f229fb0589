"""Look into a checkpoint, score it, or fine-tune it as it is: `depthprune.inspect`, `evaluate` and `finetune`."""

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from depthprune.arguments import checked
from depthprune.errors import LoadError
from depthprune.experiments.kept_checkpoints import hand_over
from depthprune.experiments.store import DEFAULT_STORE, Store
from depthprune.output import check_target
from depthprune.plan import LayerPlan
from depthprune.quiet import no_progress, quietly
from depthprune.sources import ModelSource, locate
from depthprune.specs import HealSpec
from depthprune.tasks import TaskOptions, load_task

if TYPE_CHECKING:
    from depthprune.experiments.run import Progress, Result


@dataclass(frozen=True)
class InspectedStack:
    """A stack of layers, as it lies in a checkpoint.

    Args:
        name: what plans call it: `layers`, or `encoder` and `decoder` where there are two.
        path: of its modules; empty where one layer's weights serve every pass.
        depth_key: the entry of config.json that says how many layers there are.
        parameters: of each layer.
    """

    name: str
    path: str
    depth_key: str
    parameters: tuple[int, ...]

    @property
    def depth(self) -> int:
        """How many layers there are."""
        return len(self.parameters)

    def choices(self, count: int) -> dict[str, LayerPlan]:
        """Return what each strategy by position would drop; those that cannot serve the count are left out."""
        from depthprune.strategies import choose, possible_counts, registry

        return {
            name: choose(name, self.depth, count)
            for name in registry.names()
            if count in possible_counts(name, self.depth)
        }


@dataclass(frozen=True)
class Inspection:
    """What is in a checkpoint.

    Args:
        model: as it was asked for.
        class_name: of the model.
        parameters: in all.
        stacks: in the order of the modules.
    """

    model: str
    class_name: str
    parameters: int
    stacks: tuple[InspectedStack, ...]


@checked("inspect")
def inspect(model: str | Path, *, allow_pickle: bool = False, trust_remote_code: bool = False) -> Inspection:
    """Return a model's stacks with the parameters of each layer. This is `depthprune.inspect`.

    Only the headers of the weights are read where names and config.json leave no doubt.

    Args:
        model: a local folder or a Hub id.
        allow_pickle: read weights from .bin files.
        trust_remote_code: run modelling code that the model brings.

    Raises:
        UserError: anything a user can cause, in one line.
    """
    source = locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    return _from_headers(source) or _from_modules(source)


def _from_headers(source: ModelSource) -> Inspection | None:
    from depthprune.checkpoints.cut import stacks_in_plain_sight
    from depthprune.checkpoints.layout import read_checkpoint

    if source.weights[0].suffix != ".safetensors":
        return None
    checkpoint = read_checkpoint(source.path)
    stacks = stacks_in_plain_sight(source, checkpoint)
    if stacks is None:
        return None
    found = []
    for stack in stacks.values():
        sizes = [0] * stack.depth
        for name, tensor in checkpoint.tensors.items():
            place = stack.layer_of(name)
            if place is not None and place[0] < stack.depth:
                sizes[place[0]] += prod(tensor.shape)
        found.append(InspectedStack(stack.name, stack.path, stack.depth_key, tuple(sizes)))
    what = (source.config.get("architectures") or [source.config["model_type"]])[0]
    return Inspection(source.name, what, sum(prod(t.shape) for t in checkpoint.tensors.values()), tuple(found))


@quietly()
def _from_modules(source: ModelSource) -> Inspection:
    from depthprune.loading import model_class
    from depthprune.profiling.footprint import num_parameters
    from depthprune.surgery.modules import meta_model, probe_stacks

    chosen, config = model_class(source)
    stacks = probe_stacks(chosen, config)
    skeleton = meta_model(chosen, config)
    found = []
    for stack in stacks.values():
        lists = [list(skeleton.get_submodule(path).children()) for path in stack.paths]
        parts = zip(*lists, strict=True) if lists else [()] * stack.depth
        sizes = tuple(sum(num_parameters(module) for module in modules) for modules in parts)
        found.append(InspectedStack(stack.name, ", ".join(stack.paths), stack.depth_key, sizes))
    return Inspection(source.name, chosen.__name__, num_parameters(skeleton), tuple(found))


@checked("finetune")
def finetune(
    model: str | Path,
    task: str,
    *,
    options: TaskOptions | None = None,
    heal: HealSpec | None = None,
    output: Path | str | None = None,
    max_length: int = 128,
    seed: int = 42,
    store: Path | str = DEFAULT_STORE,
    device: str = "auto",
    force: bool = False,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: "Progress" = no_progress,
) -> "Result":
    """Fine-tune a checkpoint as it is, such as one that was cut, and score it. This is `depthprune.finetune`.

    It is a run that drops nothing: one that the store has is not run again.

    Args:
        model: a local folder or a Hub id.
        task: one of `depthprune list`: a GLUE task, `docstrings`, or `custom`.
        options: where the task's data lies, and its columns.
        heal: epochs, learning rate, batch size; the paper's example by default.
        output: where the checkpoint goes; it stays in the store without it.
        max_length: tokens to which an example is cut.
        seed: of the fresh head, of dropout, of the order of the rows.
        store: the folder of runs.
        device: `auto`, `cpu` or `cuda`.
        force: run again what the store has.
        on_progress: called with the stage's name and how far it is.

    Returns:
        The run: `.score`, `.outcome`, and the checkpoint at `.model`.

    Raises:
        UserError: anything a user can cause, in one line.
    """
    from depthprune.experiments.comparison import compare

    if output is not None:
        check_target(Path(output))
    result = compare(
        model,
        task,
        options=options,
        heal=heal,
        max_length=max_length,
        seed=seed,
        store=store,
        device=device,
        force=force,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
        on_progress=on_progress,
    ).full
    return result if output is None else replace(result, model=hand_over(Store(store), result.digest, Path(output)))


@dataclass(frozen=True)
class Evaluation:
    """What a checkpoint scores.

    Args:
        metrics: name → `{"value": fraction, "examples": how many}`.
        primary: name of the primary metric.
        notes: what to know about how the data was read, a sentence each.
    """

    metrics: dict[str, dict[str, float | int]]
    primary: str
    notes: tuple[str, ...]

    @property
    def score(self) -> float:
        """The primary metric, a fraction."""
        return float(self.metrics[self.primary]["value"])


@checked("evaluate")
@quietly()
def evaluate(
    model: str | Path,
    task: str,
    *,
    options: TaskOptions | None = None,
    max_length: int = 128,
    batch_size: int = 32,
    device: str = "auto",
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: "Progress" = no_progress,
) -> Evaluation:
    """Score a checkpoint that has a trained head, without training. This is `depthprune.evaluate`.

    Args:
        model: a local folder or a Hub id.
        task: one of `depthprune list`: a GLUE task, `docstrings`, or `custom`.
        options: where the task's data lies, and its columns; all rows that are given are scored.
        max_length: tokens to which an example is cut.
        batch_size: examples a forward pass.
        device: `auto`, `cpu` or `cuda`.
        on_progress: called with the stage's name and how far it is.

    Raises:
        LoadError: the model has no head that was trained for such a task.
        UserError: anything else a user can cause, in one line.
    """
    from depthprune.devices import resolve_device
    from depthprune.evaluation.baseline import balance_note, majority_baseline
    from depthprune.evaluation.classification import evaluate as score
    from depthprune.loading import check_positions, load_classifier, load_tokenizer
    from depthprune.tasks.encoding import encode
    from depthprune.tasks.heads import fit_to_head, head_labels

    source = locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    options = replace(options or TaskOptions(), scoring_only=True)
    if options.kind is None and len(head_labels(source.config) or ()) == 1 and task == "custom":
        options = replace(options, kind="regression")  # so the head says, where whole numbers would look like classes
    data = fit_to_head(load_task(task, options), source.config, source.name, needed=True)
    on_progress("loading the model", 0, 1)
    classifier, fresh = load_classifier(source, data.task.num_outputs, device=resolve_device(device))
    if fresh:
        raise LoadError(
            f"'{model}' has no trained head for '{task}' ('{fresh[0]}' is missing or has another shape); "
            "fine-tune it first: depthprune finetune"
        )
    tokenizer = load_tokenizer(source)
    encoded = encode(data, tokenizer, max_length)
    check_positions(classifier, max(max(rows["length"]) for rows in encoded.values()), source.name)

    def step(done: int, total: int) -> None:
        on_progress("score", done, total)

    metrics = score(classifier, tokenizer, data.task, encoded, batch_size=batch_size, on_step=step)
    notes = (*data.notes, *balance_note(data, majority_baseline(data)))
    return Evaluation(metrics, data.task.primary, notes)
