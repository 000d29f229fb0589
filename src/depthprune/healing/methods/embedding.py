"""Imitating the full model's sentence embeddings and hidden states, on text without labels.

Sentence encoders are made shallower so: every second layer of the full model is kept, and what is left learns to give
the full model's embeddings (Reimers and Gurevych, 2020, https://arxiv.org/abs/2004.09813, and the distillation example
of sentence-transformers, which minimises their squared error). No task is needed, and none is known to the model.
"""

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from depthprune.errors import UserError
from depthprune.healing.base import Cut, Healed, OnStep, Schedule, Teacher, TrainingData, healer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class EmbeddingOptions:
    """What the loss weighs.

    Args:
        pooled: weight of one minus the cosine of student's and teacher's pooled embeddings.
        states: weight of the squared error of the last hidden states over the teacher's squared norm, real tokens only.
        dropout: train with the model's dropout; without it, student and teacher are compared as they will be used.
    """

    pooled: float = 1.0
    states: float = 1.0
    dropout: bool = False

    def __post_init__(self) -> None:
        if min(self.pooled, self.states) < 0 or not self.pooled + self.states:
            raise UserError("pooled and states are weights of a loss: at least 0, and one of them above it")


@healer(
    "embedding",
    options=EmbeddingOptions,
    paper="https://arxiv.org/abs/2004.09813",
    needs_teacher=True,
    unlabelled=True,
    teacher_loss=True,
)
def embedding(
    model: "PreTrainedModel",
    data: TrainingData,
    options: EmbeddingOptions,
    *,
    schedule: Schedule,
    seed: int,
    cut: Cut,
    teacher: Teacher | None = None,
    on_step: OnStep | None = None,
) -> Healed:
    """Imitate the full model's sentence embeddings and last hidden states; needs no labels.

    The teacher's states are computed once and kept on the disk where the rows are read more than once.

    Args:
        model: trained in place, with or without a head; a head learns nothing.
        data: rows; labels are ignored.
        options: weights of the loss.
        schedule: how long and how fast.
        seed: of the order of the rows.
        cut: not needed.
        teacher: the full model; it pools as its folder does.
        on_step: called after each optimiser step.

    Raises:
        UserError: the teacher's hidden states have another size, the model is an encoder-decoder or all frozen, or the
            disk has not enough room.
    """
    from depthprune.healing.teaching.embeddings import check_embeddings, embedding_loss, taught_states
    from depthprune.healing.teaching.outputs import numbered_rows
    from depthprune.healing.training import decided, train
    from depthprune.scratch import scratch_folder

    assert teacher is not None, "a method that needs a teacher gets one"
    if not schedule.num_epochs:
        return Healed(model)
    if data.execution.gradient_checkpointing and not options.dropout:
        raise UserError(
            "without dropout the student of 'embedding' runs in evaluation mode, in which transformers keeps all "
            "activations; leave --gradient-checkpointing out, and save memory with --accumulation"
        )
    full, once = teacher.model(), schedule.num_epochs <= 1
    check_embeddings(model, full)
    started = time.perf_counter()
    with scratch_folder("teacher") as folder:
        numbered = numbered_rows(data)
        loss = partial(embedding_loss, **asdict(options), pooling=teacher.pooling)
        schedule = decided(schedule, model, numbered, loss(taught_states(full, data, folder)[0]))
        taught, how = taught_states(full, data, folder, precision=schedule.precision, read_once=once)
        asked = time.perf_counter() - started
        report = train(model, numbered, schedule, loss=loss(taught), reads=(-1,), seed=seed, on_step=on_step)
    seconds = report.seconds + (0.0 if once else asked)
    report = replace(report, seconds=seconds, examples_per_second=report.examples_per_second * report.seconds / seconds)
    return Healed(model, (report,), () if once else (f"the teacher's hidden states: {how}",))
