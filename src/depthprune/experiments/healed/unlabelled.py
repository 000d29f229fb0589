"""Heal on text without labels: what counts is how close the embeddings come to the teacher's on texts held out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from depthprune.errors import UserError
from depthprune.evaluation.measurement import Measurement
from depthprune.experiments.healed.pair import Loaded, LoadedTeacher, Pair
from depthprune.healing.base import HealReport, PlannedStep, TrainingData
from depthprune.healing.execution.place import Place
from depthprune.healing.execution.progress import TrainingProgress
from depthprune.healing.recipe import heal, together
from depthprune.loading import num_positions
from depthprune.specs import Execution
from depthprune.tasks import TaskData
from depthprune.tasks.data.sentences import Sentences, encode_texts, number_cut

if TYPE_CHECKING:
    from torch import Tensor

    from depthprune.experiments.run import Progress

Scores = dict[str, Measurement]


@dataclass(frozen=True)
class Outcome:
    """What a healing came to.

    Args:
        model: the healed one, its weights in the dtype in which the cut one was saved.
        training: what it took.
        scores: `full`, `cut` and `healed` → metrics; empty where no task is scored.
        primary: name of the metric on which retention stands.
        texts: how many were trained on, and how many held out.
        data: `sha256:…` over the texts, or over the task's rows.
        cosine: mean cosine of the embeddings to the teacher's on held-out texts, before and after; None with labels.
        notes: what to know, a sentence each.
    """

    model: Any
    training: HealReport
    scores: dict[str, Scores]
    primary: str
    texts: tuple[int, int]
    data: str
    cosine: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


def check_unlabelled(recipe: Sequence[PlannedStep]) -> None:
    """Refuse a recipe that cannot do without labels.

    Raises:
        UserError: the message names the step.
    """
    wrong = next((step.healer.name for step in recipe if not step.unlabelled), None)
    if wrong is not None:
        raise UserError(f"'{wrong}' needs labels, and a text has none; give --task instead of --data")


def heal_unlabelled(
    pair: Pair,
    sentences: Sentences,
    recipe: Sequence[PlannedStep],
    *,
    task: TaskData | None,
    max_length: int,
    seed: int,
    device: str,
    execution: Execution,
    place: Place | None,
    on_progress: "Progress",
) -> Outcome:
    """Heal a cut model on texts, and compare it with its teacher on others.

    Args:
        recipe: of steps that need no labels.
        task: pairs with an amount of similarity, to score the embeddings' cosine on; None for no score.
        max_length: tokens to which a text is cut, fewer where the models take fewer.
        execution, place: how trainings are carried out, and where they keep what outlives them.

    Raises:
        UserError: the models cannot be compared, or the training diverged.
    """
    on_progress("loading the models", 0, 1)
    pair.check_tokenizers(sentences.held_out)
    loaded = pair.load(device)
    tokenizer, positions = pair.tokenizer, map(num_positions, (loaded.student, loaded.teacher))
    length = min(max_length, tokenizer.model_max_length, *filter(None, positions))
    on_progress("tokenising", 0, 1)
    rows = encode_texts(sentences.train, tokenizer, length)
    cut = number_cut(sentences.train, rows, tokenizer, length)
    measure = _Measure(pair, loaded, sentences.held_out, task, length, on_progress)
    full, before = measure.scores(loaded.teacher), (measure.cosine(loaded.student), measure.scores(loaded.student))
    told = TrainingProgress(on_progress, "healing")
    how = {"execution": execution, "place": place, "on_log": told.log}
    healed = heal(
        loaded.student,
        TrainingData(rows, tokenizer, on_progress, measure.closeness, **how),
        recipe,
        cut=pair.cut(),
        seed=seed,
        teacher=LoadedTeacher(pair.teacher, loaded.teacher, pair.pooling),
        on_step=told.step,
    )
    model: Any = healed.model
    model = model.to(loaded.dtype).float()  # what is measured is what is saved
    after = measure.cosine(model), measure.scores(model)
    notes = (f"{cut:,} of the texts are longer than {length} tokens and were cut",) if cut else ()
    notes += healed.notes
    return Outcome(
        model.to(loaded.dtype),
        together(healed.trainings),
        scores={} if task is None else {"full": full, "cut": before[1], "healed": after[1]},
        primary=next(iter(full), ""),
        texts=(len(sentences.train), len(sentences.held_out)),
        data=sentences.fingerprint,
        cosine=(before[0], after[0]),
        notes=notes,
    )


class _Measure:
    """Measures models against the teacher, whose embeddings of the held-out texts are kept."""

    def __init__(
        self,
        pair: Pair,
        loaded: Loaded,
        held_out: Sequence[str],
        task: TaskData | None,
        length: int,
        on_progress: "Progress",
    ):
        self._tokenizer, self._pooling, self._task = pair.tokenizer, pair.pooling, task
        self._length, self._on_progress = length, on_progress
        self._held_out = encode_texts(held_out, pair.tokenizer, length)
        self._teacher = loaded.teacher
        self._taught_ND = self._embed(loaded.teacher, self._held_out)

    def _embed(self, model: Any, rows: Any) -> "Tensor":
        from depthprune.evaluation.embedding import embed

        step = lambda done, total: self._on_progress("measuring", done, total)  # noqa: E731
        return embed(model, self._tokenizer, rows, self._pooling, on_step=step)

    def closeness(self, model: Any, rows: Any) -> float:
        """Return the mean cosine of a model's embeddings of some rows to the teacher's."""
        from depthprune.evaluation.embedding import mean_cosine

        return mean_cosine(self._embed(model, rows), self._embed(self._teacher, rows))

    def cosine(self, model: Any) -> float:
        """Return the mean cosine of a model's embeddings to the teacher's."""
        from depthprune.evaluation.embedding import mean_cosine

        return mean_cosine(self._embed(model, self._held_out), self._taught_ND)

    def scores(self, model: Any) -> Scores:
        """Return the metrics of the embeddings' cosine on the task; empty without one."""
        from depthprune.evaluation.embedding import similarity

        if self._task is None:
            return {}

        def embed_texts(texts: Sequence[str]) -> "Tensor":
            return self._embed(model, encode_texts(texts, self._tokenizer, self._length))

        return similarity(embed_texts, self._task)
