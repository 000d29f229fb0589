"""A student's loss beside a teacher, whether the two fit, and the teacher's weights for the student.

Shapes: B sequences, S pairs of states, N vectors, D hidden size.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from depthprune.errors import UserError
from depthprune.healing.base import Cut
from depthprune.healing.teaching.losses import attention_loss, labels_loss, logits_loss, states_loss
from depthprune.healing.teaching.outputs import Outputs, Wanted, outputs_asked
from depthprune.plan import LayerPlan
from depthprune.surgery import drop_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from depthprune.healing.trainer import Loss


def check_pair(
    student: "PreTrainedModel", teacher: "PreTrainedModel", *, hidden: bool, depth: int, attention: bool = False
) -> None:
    """Refuse a teacher that the student cannot imitate.

    Args:
        hidden: whether hidden states are compared.
        attention: whether attentions are compared.
        depth: layers of the full model, which the teacher then needs to have.

    Raises:
        UserError: the teacher has another vocabulary, other outputs, or for hidden states another size or depth.
    """
    mine: Any = student.config
    other: Any = teacher.config
    if mine.vocab_size != other.vocab_size:
        raise UserError(
            f"the teacher has a vocabulary of {other.vocab_size:,} tokens and the model one of {mine.vocab_size:,}, so "
            "it cannot read the same rows; give a teacher with the same tokenizer"
        )
    if mine.num_labels != other.num_labels:
        raise UserError(
            f"the teacher puts out {_outputs(other.num_labels)} and the model {_outputs(mine.num_labels)}; give a "
            "teacher that was fine-tuned on the same task"
        )
    if hidden and mine.hidden_size != other.hidden_size:
        raise UserError(
            f"the teacher's hidden states have {other.hidden_size} dimensions and the model's {mine.hidden_size}; give "
            "beta=0, which compares logits alone, or another teacher"
        )
    if (hidden or attention) and other.num_hidden_layers != depth:
        raise UserError(
            f"the teacher has {other.num_hidden_layers} layers and the full model {depth}, so their states cannot be "
            "matched by index; give beta=0, which compares logits alone, or another teacher"
        )
    if attention and mine.num_attention_heads != other.num_attention_heads:
        raise UserError(
            f"the teacher has {other.num_attention_heads} attention heads a layer and the model "
            f"{mine.num_attention_heads}; give gamma=0, or another teacher"
        )


def _outputs(number: int) -> str:
    return f"{number} output" + ("s" if number != 1 else "")


@contextmanager
def showing_attention(*models: "PreTrainedModel", wanted: bool) -> Iterator[None]:
    """Let models compute attention in the way that puts it out (`eager`), if it is wanted.

    Raises:
        UserError: a model has no such way.
    """
    before: list[Any] = [model.config._attn_implementation for model in models]
    try:
        for model in models if wanted else ():
            try:
                model.set_attn_implementation("eager")
            except ValueError as error:
                raise UserError(f"a {type(model).__name__} puts out no attention ({error}); give gamma=0") from None
        yield
    finally:
        for model, known in zip(models, before, strict=True):
            if wanted and model.config._attn_implementation != known:
                model.set_attn_implementation(known)


def distillation_loss(
    teacher: Outputs, wanted: Wanted, states: Sequence[int], options: Any, *, num_labelled: int | None = None
) -> "Loss":
    """Return the loss of a batch for `healing.training.train`.

    Args:
        teacher: what it says to rows, by their number, which the batch has as `row`.
        wanted: what it was asked for.
        states: the student's states, each for one of `wanted.states`.
        options: the weights; see `methods.distill.DistillOptions`.
        num_labelled: rows from this number on have no label; None where all have one.
    """

    def loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
        rows_B = batch.pop("row")
        labels_B = batch.pop("labels", None)
        said = teacher(rows_B, batch)
        assert said.logits_BC is not None, "they are wanted"
        given = {**batch, "labels": labels_B} if options.alpha < 1 and num_labelled is None else batch
        answer = model(**given, **outputs_asked(states, wanted.attentions))
        total = options.alpha * logits_loss(answer.logits, said.logits_BC, options.temperature)
        if options.alpha < 1:
            hard = answer.loss
            if num_labelled is not None:
                assert labels_B is not None, "some rows have labels"
                hard = labels_loss(answer.logits, labels_B, rows_B < num_labelled)
            total = total + (1 - options.alpha) * hard
        if said.states_SND is not None:
            states_SND = wanted.picked(answer.hidden_states, batch, states)
            total = total + options.beta * states_loss(states_SND, said.states_SND, normalise=options.normalise)
        if wanted.attentions:
            real_BT = batch["attention_mask"].bool()
            total = total + options.gamma * attention_loss(answer.attentions, said.attentions_BHTT, real_BT)
        return total

    return loss


def inherit_weights(student: "PreTrainedModel", teacher: "PreTrainedModel", cut: Cut) -> None:
    """Give the student the teacher's weights: of the layers that it still has, and of everything outside the stack.

    What is frozen in the student stays as it is.

    Args:
        student: changed in place.
        teacher: of the same architecture and depth as the full model.
        cut: which layers the student has.

    Raises:
        UserError: the teacher is another architecture, or has another depth or other sizes.
    """
    known: Any = teacher.config
    if known.num_hidden_layers != cut.plan.depth:
        raise UserError(
            f"the teacher has {known.num_hidden_layers} layers and the full model {cut.plan.depth}, so its weights "
            "cannot be taken; give a teacher of the same depth"
        )
    tensors = (*teacher.parameters(), *teacher.buffers())
    shorter = copy.deepcopy(teacher, {id(tensor): tensor for tensor in tensors})  # shares its tensors
    gone = tuple(layer for layer in range(cut.plan.depth) if layer not in cut.present)
    if gone:
        drop_layers(shorter, LayerPlan(cut.plan.depth, gone))
    weights = dict(shorter.named_parameters()) | dict(shorter.named_buffers())
    mine = dict(student.named_parameters()) | dict(student.named_buffers())
    wrong = next((name for name, t in mine.items() if name not in weights or weights[name].shape != t.shape), None)
    if wrong is not None:
        raise UserError(
            f"the teacher, a {type(teacher).__name__}, has no '{wrong}' of the model's size, so its weights cannot be "
            "taken; give a teacher of the same architecture"
        )
    with torch.no_grad():
        for name, tensor in mine.items():
            if tensor.requires_grad or not isinstance(tensor, torch.nn.Parameter):
                tensor.copy_(weights[name])
