"""Heal a checkpoint that was cut already, taught by the model that it was cut from: `depthprune.heal`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.arguments import checked
from depthprune.devices import resolve_device
from depthprune.errors import UserError
from depthprune.evaluation.measurement import Measurement
from depthprune.experiments.healed.pair import Pair, find_pair
from depthprune.experiments.memory import check_memory, training_bytes
from depthprune.experiments.specification import stack_depth
from depthprune.healing.base import HealReport, PlannedStep
from depthprune.healing.execution.place import Place
from depthprune.healing.execution.reporting import check_reporters
from depthprune.healing.recipe import resolve, show
from depthprune.output import check_outside, check_space, check_target
from depthprune.plan import LayerPlan
from depthprune.quiet import no_progress, quietly
from depthprune.specs import Execution, HealSpec, Step, canonical_json
from depthprune.tasks import TaskData, TaskOptions, load_task
from depthprune.tasks.data.calibration import CalibrationOptions

if TYPE_CHECKING:
    from depthprune.experiments.healed.unlabelled import Outcome
    from depthprune.experiments.run import Progress

# Chosen on MiniLM, cut to half its depth (docs/results/minilm.md).
UNLABELLED = HealSpec(
    num_epochs=1, batch_size=64, learning_rate=5e-4, similar_lengths=True, warmup=0.1, steps=(Step("embedding"),)
)


@dataclass(frozen=True)
class HealedCheckpoint:
    """What `heal` wrote.

    Args:
        path: the folder.
        cosine: mean cosine of the embeddings to the teacher's on held-out texts, before and after; None with labels.
        scores: `full`, `cut`, `healed` → metric → what was measured; empty without a task.
            A cut model without a trained head has none.
        primary: name of the metric on which retention stands; empty without a task.
        texts: how many were trained on, and how many held out; the rows of the task, and 0, with labels.
        training: what it took.
        notes: what to know, a sentence each.
    """

    path: Path
    cosine: tuple[float, float] | None
    scores: dict[str, dict[str, Measurement]]
    primary: str
    texts: tuple[int, int]
    training: HealReport
    notes: tuple[str, ...]

    def kept(self, name: str) -> float | None:
        """Return the share of the full model's quality that `cut` or `healed` keeps; None where there is none."""
        if name not in self.scores:
            return None
        return self.scores[name][self.primary].retained(self.scores["full"][self.primary])


@checked("heal")
@quietly()
def heal(
    model: str | Path,
    teacher: str | Path,
    output: str | Path,
    *,
    data: str | CalibrationOptions | None = None,
    task: str | None = None,
    options: TaskOptions | None = None,
    recipe: HealSpec | None = None,
    held_out: int | None = None,
    max_length: int = 128,
    seed: int = 42,
    device: str = "auto",
    execution: Execution = Execution(),
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: "Progress" = no_progress,
) -> HealedCheckpoint:
    """Heal a checkpoint that was cut already, and write it as a plain checkpoint. This is `depthprune.heal`.

    Without labels, on any text, before a task is known: the model learns to give the full model's sentence embeddings
    and hidden states. Or, with a recipe that needs labels, on the training rows of a task.

    Args:
        model: the cut model: a local folder, one of sentence-transformers too, or a Hub id.
        teacher: the model that it was cut from; for a task, fine-tuned on it.
        output: a folder that does not exist or is empty.
        data: texts without labels: a file (text, CSV, JSON lines, parquet), a data set's folder or Hub id, `-`, or a
            task's name; the training texts of `task` if None.
        task: with `data`, pairs with an amount of similarity, such as `stsb`, on which the cosine of the embeddings is
            scored without training; else what is trained on.
        options: where the task's data is, and its columns.
        recipe: steps and schedule; one pass of `embedding` by default.
        held_out: texts that are never trained on; 500 if None, or a tenth of few.
        max_length: tokens to which a text is cut.
        seed: of the choice of texts and of the training.
        device: `auto`, `cpu` or `cuda`.
        execution: gradient checkpointing, and where losses are reported to.
        on_progress: called with (name of the stage, steps done, steps in all).

    Raises:
        UserError: anything a user can cause, in one line; nothing is written then.
    """
    from depthprune.experiments.healed.labelled import heal_labelled

    if data is None and task is None:
        raise UserError("say what to train on: --data FILE with texts, or --task")
    recipe = recipe or UNLABELLED
    recipe = recipe if recipe.steps else replace(recipe, steps=UNLABELLED.steps)
    steps, output = resolve(recipe), Path(output)
    if recipe.unlabelled:
        raise UserError("unlabelled rows beside a task's own go with depthprune run; give texts alone as data")
    check_target(output)
    check_reporters(execution.report_to)
    device = resolve_device(device)
    pair = find_pair(model, teacher, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    check_outside(output, pair.root or pair.student.path)
    check_memory(training_bytes(pair.student, LayerPlan(stack_depth(pair.student), ()), steps, pair.teacher), device)
    check_space(output, sum(file.stat().st_size for file in pair.student.weights))
    how: dict[str, Any] = {"max_length": max_length, "seed": seed, "device": device, "on_progress": on_progress}
    place = _place(output, pair, recipe, max_length)
    how |= {"execution": execution, "place": place}
    on_progress("reading the data", 0, 1)
    rows = None if task is None else load_task(task, options)
    try:
        if rows is not None and data is None and not all(step.healer.unlabelled for step in steps):
            place.about["data"] = rows.fingerprint
            outcome, labelled = heal_labelled(pair, rows, steps, **how), True
        else:
            outcome, labelled = _unlabelled(pair, data, rows, steps, held_out, how), False
    except UserError:
        place.remove_states()
        raise
    on_progress("saving", 0, 1)
    _save(pair, outcome, output, recipe, labelled=labelled)
    place.remove_states()
    return HealedCheckpoint(
        output, outcome.cosine, outcome.scores, outcome.primary, outcome.texts, outcome.training, outcome.notes
    )


def _place(output: Path, pair: Pair, recipe: HealSpec, max_length: int) -> Place:
    """Return where trainings keep their logs and states: beside the output, under its name."""
    about = {"model": pair.student.identity, "teacher": pair.teacher.identity, "recipe": canonical_json(recipe)}
    logs, states = (output.with_name(f"{output.name}.{end}") for end in ("logs", "unfinished"))
    return Place(output.name, logs, states, about | {"length": max_length})


def _unlabelled(
    pair: Pair,
    data: str | CalibrationOptions | None,
    rows: TaskData | None,
    steps: Sequence[PlannedStep],
    held_out: int | None,
    how: dict[str, Any],
) -> "Outcome":
    """Read the texts, of the task where nothing else is given, and heal on them."""
    from depthprune.evaluation.embedding import check_similarity_task
    from depthprune.experiments.healed.unlabelled import check_unlabelled, heal_unlabelled
    from depthprune.tasks.data.sentences import read_sentences

    check_unlabelled(steps)
    scored = rows
    if rows is not None:
        try:
            check_similarity_task(rows.task)
        except UserError:
            if data is not None:
                raise
            scored = None  # its texts are all that is asked for
    if isinstance(data, str) or data is None:
        data = CalibrationOptions(data or "", seed=how["seed"])
    sentences = read_sentences(data, held_out=held_out, task_data=None if data.data else rows)
    how["place"].about["data"] = sentences.fingerprint
    return heal_unlabelled(pair, sentences, steps, task=scored, **how)


def _save(pair: Pair, outcome: "Outcome", output: Path, recipe: HealSpec, *, labelled: bool) -> None:
    """Save the healed model with the files beside the cut one's weights, a card and the history."""
    from depthprune.checkpoints.save import save_made
    from depthprune.experiments.environment import checkpoint_provenance

    healed: dict[str, Any] = {"teacher": pair.teacher.identity, "recipe": show(recipe.steps), "data": outcome.data}
    count, of = outcome.texts[0], "labelled rows" if labelled else "texts without labels"
    how = f"the recipe {show(recipe.steps)} on {count:,} {of}, taught by {pair.teacher.title}"
    if outcome.cosine is not None:
        before, after = outcome.cosine
        healed["cosine"] = [before, after]
        how += f"; mean cosine to its embeddings on {outcome.texts[1]:,} other texts: {before:.4f} → {after:.4f}"
    save_made(
        outcome.model,
        output,
        source=pair.student,
        provenance=checkpoint_provenance(pair.student, LayerPlan(stack_depth(pair.student), ()), healed=healed),
        training=how,
        task_kept=not labelled,
        root=None if labelled else pair.root,
    )
