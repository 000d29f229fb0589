"""Distillation: the student learns from the full model's logits and hidden states, beside the labels."""

import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from depthprune.errors import UserError
from depthprune.healing.base import Cut, Healed, OnStep, Schedule, Teacher, TrainingData, healer, recipe
from depthprune.healing.teaching.mapping import BOUNDARY, INNER, MAPPINGS, STATES, matched_states
from depthprune.specs import Step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = ("sentence", "pooled", "all")


@dataclass(frozen=True)
class DistillOptions:
    """The loss: (1 - alpha) · labels + alpha · logits + beta · hidden states + gamma · attention.

    Args:
        alpha: weight of the teacher's logits, against 1 - alpha of the labels; at 1 no labels are needed.
        temperature: of both distributions; a regression has none.
        beta: weight of the squared error of hidden states; at 0 they are not computed.
        gamma: weight of the squared error of attention, of each layer with itself in the full model; at 0 it is not
            computed. Attention is not kept: the teacher runs at every step.
        tokens: whose states: `sentence`, the token that the architecture's own classifier reads; `pooled`, one vector
            a text, pooled as the teacher's head or folder does it (the mean of the real tokens where it has neither);
            or `all` real tokens.
        normalise: compare states of length 1, as Patient-KD does.
        states: which of the student's states: `all`; `inner`, all but the first and the last; or `last`.
        mapping: which of the teacher's states a state is to match: `boundary` or `even`; see `teaching.mapping`.
        lora_rank: train LoRA adapters of this rank and the head, and merge them (`lora`); all weights if 0.
    """

    alpha: float = 0.5
    temperature: float = 2.0
    beta: float = 0.0
    gamma: float = 0.0
    tokens: str = "sentence"
    normalise: bool = False
    states: str = "all"
    mapping: str = BOUNDARY
    lora_rank: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or self.temperature <= 0 or min(self.beta, self.gamma, self.lora_rank) < 0:
            raise UserError("alpha is between 0 and 1, temperature above 0, and beta, gamma and lora_rank not below it")
        for name, known in {"tokens": TOKENS, "states": STATES, "mapping": MAPPINGS}.items():
            if getattr(self, name) not in known:
                raise UserError(f"{name} of 'distill' is one of {', '.join(known)}, not '{getattr(self, name)}'")
        if not (self.alpha or self.beta or self.gamma):
            raise UserError("with alpha, beta and gamma at 0 nothing is learned from the teacher; use 'finetune'")

    @property
    def needs_labels(self) -> bool:
        """Whether the labels have a weight."""
        return self.alpha < 1


@healer(
    "distill", options=DistillOptions, needs_teacher=True, teacher_loss=True, paper="https://arxiv.org/abs/1503.02531"
)
def distill(
    model: "PreTrainedModel",
    data: TrainingData,
    options: DistillOptions,
    *,
    schedule: Schedule,
    seed: int,
    cut: Cut,
    teacher: Teacher | None,
    on_step: OnStep | None = None,
) -> Healed:
    """Train on the full model's logits, and on its hidden states if asked to, beside the labels.

    Rows that have no label count in all parts of the loss but that of the labels, which is the mean over the labelled
    rows of a batch, times their share of it (`teaching.losses.labels_loss`).

    The teacher's answers to the rows are computed once, where they are read more than once, and count as training time.
    The student has dropout, the teacher has none.

    Args:
        model: trained in place.
        data: rows, with labels unless alpha is 1.
        options: the loss.
        schedule: how long and how fast.
        seed: of the order of the rows and of dropout.
        cut: which layers the model still has.
        teacher: with the same vocabulary and outputs; for hidden states of the same size and depth as the full model.
        on_step: called after each optimiser step.

    Raises:
        UserError: the teacher is for other inputs or outputs, rows lack labels, or the disk has not enough room.
    """
    from depthprune.healing.adapters import adapters
    from depthprune.healing.teaching.outputs import Wanted, numbered_rows, outputs_of
    from depthprune.healing.teaching.students import check_pair, distillation_loss, showing_attention
    from depthprune.healing.training import train
    from depthprune.scratch import scratch_folder

    assert teacher is not None, "a method that needs a teacher gets one"
    if options.needs_labels and not data.labelled:
        raise UserError("the rows have no labels, which distill learns from too unless alpha is 1; give alpha=1")
    if not schedule.num_epochs:
        return Healed(model)
    pairs = matched_states(cut.present, cut.plan.depth, options.mapping, options.states) if options.beta else ()
    full = teacher.model()
    attention = options.gamma > 0
    check_pair(model, full, hidden=bool(pairs), depth=cut.plan.depth, attention=attention)
    wanted = Wanted(
        tuple(aim for _, aim in pairs),
        every_token=options.tokens == "all",
        sentence=_sentence(data),
        precision=schedule.precision,
        attentions=cut.present if attention else (),
        pooled=teacher.pooling if options.tokens == "pooled" else (),
    )
    started = time.perf_counter()
    with scratch_folder("teacher") as folder, showing_attention(model, full, wanted=attention):
        said, how = outputs_of(full, data, wanted, folder, read_once=schedule.num_epochs <= 1)
        asked = time.perf_counter() - started
        labelled = len(data.rows) - data.num_unlabelled if data.num_unlabelled else None
        loss = distillation_loss(said, wanted, tuple(state for state, _ in pairs), options, num_labelled=labelled)
        numbered = numbered_rows(data)
        rank = options.lora_rank
        trained = adapters(model, rank=rank, alpha=2.0 * rank, dropout=0.0, targets=(), seed=seed)
        with trained if rank else nullcontext():
            reads = None if attention else tuple(state for state, _ in pairs)
            report = train(model, numbered, schedule, loss=loss, reads=reads, seed=seed, on_step=on_step)
    seconds = report.seconds + asked
    report = replace(report, seconds=seconds, examples_per_second=report.examples_per_second * report.seconds / seconds)
    return Healed(model, (report,), (f"the teacher's answers: {how}",))


def _sentence(data: TrainingData) -> int | None:
    found = data.tokenizer.cls_token_id
    return found if isinstance(found, int) else None


PATIENT_KD = {"alpha": 0.5, "temperature": 10.0, "beta": 100.0, "normalise": True, "states": INNER, "warmup": 0.1}
# TextBrewer's loss of the logits lacks the factor T²; multiplied by it, its weight of 1 for hidden states is 64.
HIDDEN_KD = {"alpha": 1.0, "temperature": 8.0, "beta": 64.0, "tokens": "all", "warmup": 0.1}


def _distill(values: dict[str, object]) -> Step:
    return Step("distill", tuple(sorted(values.items())))


recipe(
    "logit-kd",
    _distill({"alpha": 0.9, "warmup": 0.1}),
    summary="Distil logits (T 2, α 0.9), beside the labels; what auto does unless told otherwise.",
    paper="https://arxiv.org/abs/1503.02531",
)
recipe(
    "patient-kd",
    _distill(PATIENT_KD),
    summary="Distil logits (T 10, α 0.5) and the sentence token's normalised states between the layers (β 100).",
    paper="https://arxiv.org/abs/1908.09355",
)
recipe(
    "hidden-kd",
    _distill(HIDDEN_KD),
    summary="Distil logits (T 8), without labels, and the hidden states of all tokens: TextBrewer's losses.",
    paper="https://arxiv.org/abs/2002.12620",
)
recipe(
    "plain-warmup",
    Step("finetune", (("warmup", 0.1),)),
    summary="Fine-tune, with a warm-up over a tenth of the steps.",
)
