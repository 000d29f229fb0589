"""The loss of a student that imitates its teacher's embeddings and hidden states.

Shapes: B sequences, T tokens, D hidden size.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from depthprune.errors import UserError
from depthprune.healing.base import TrainingData
from depthprune.healing.teaching.outputs import Wanted, outputs_of
from depthprune.tasks.pooling import MEAN, pooled_BD

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

ROW, LABELS = "row", "labels"  # columns that no model takes
TaughtStates = Callable[[Tensor | None, Mapping[str, Tensor]], Tensor]  # (numbers of the rows, batch) to [B, T, D]


def check_embeddings(student: "PreTrainedModel", teacher: "PreTrainedModel") -> None:
    """Refuse a student that cannot imitate its teacher's embeddings.

    Raises:
        UserError: their hidden states differ in size, it is an encoder-decoder, or all of it is frozen.
    """
    sizes = [getattr(model.config.get_text_config(), "hidden_size", None) for model in (student, teacher)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"the teacher's hidden states have {sizes[1]} dimensions and the model's {sizes[0]}; give the model that "
            "it was cut from"
        )
    if student.config.is_encoder_decoder:
        raise UserError(
            f"embeddings are those of an encoder or a decoder, and '{student.config.model_type}' has both; heal it "
            "with another method"
        )
    if not any(parameter.requires_grad for parameter in student.base_model.parameters()):
        raise UserError("everything that embeddings come from is frozen, so there is nothing to train; freeze less")


def taught_states(
    teacher: "PreTrainedModel", data: TrainingData, folder: Path, *, precision: str = "float32", read_once: bool = True
) -> tuple[TaughtStates, str]:
    """Return a function to the teacher's last hidden states, and how it comes to know them.

    Args:
        teacher: in evaluation mode, without gradients.
        data: the rows; they are numbered from 0.
        folder: temporary; states that are read more than once are kept there (`teaching.outputs`).
        precision: in which states that are kept are computed; others are in that of the training.
        read_once: the training goes through the rows at most once.

    Raises:
        UserError: the disk has not enough room.
    """
    if read_once:
        return lambda rows_B, batch: last_states(teacher, batch), "computed for each batch, since each is read once"
    wanted = Wanted((-1,), every_token=True, precision=precision, logits=False)
    outputs, how = outputs_of(teacher, data, wanted, folder)

    def states_BTD(rows_B: Tensor | None, batch: Mapping[str, Tensor]) -> Tensor:
        assert rows_B is not None, "the rows are numbered"
        said = outputs(rows_B, batch).states_SND
        assert said is not None, "it is wanted"
        real_BT = batch["attention_mask"].bool()
        filled_BTD = said.new_zeros(*real_BT.shape, said.shape[-1])
        filled_BTD[real_BT] = said[0]
        return filled_BTD

    return states_BTD, how


def embedding_loss(
    taught: TaughtStates,
    *,
    pooled: float = 1.0,
    states: float = 1.0,
    dropout: bool = False,
    pooling: tuple[str, ...] = MEAN,
) -> Callable[["nn.Module", dict[str, Tensor]], Tensor]:
    """Return the loss of a batch for `healing.training.train`: a weighted sum of two distances.

    Args:
        taught: the teacher's last hidden states.
        pooled: weight of one minus the cosine of the pooled embeddings.
        states: weight of the relative squared error of the last hidden states.
        dropout: leave the student's dropout on.
        pooling: how one vector is made of a sequence (`tasks.pooling.read_pooling`).
    """

    def loss(model: "nn.Module", batch: dict[str, Tensor]) -> Tensor:
        inputs = {name: values for name, values in batch.items() if name not in (ROW, LABELS)}
        mask_BT = inputs["attention_mask"]
        if not dropout:
            model.eval()  # for this step; gradients are as in training
        with torch.no_grad():
            taught_BTD = taught(batch.get(ROW), inputs).float()
        learned_BTD = last_states(model, inputs).float()
        total = learned_BTD.new_zeros(())
        if pooled:
            one_BD, other_BD = (pooled_BD(states_BTD, mask_BT, pooling) for states_BTD in (learned_BTD, taught_BTD))
            total = total + pooled * (1 - functional.cosine_similarity(one_BD, other_BD, dim=-1)).mean()
        if states:
            total = total + states * relative_error(learned_BTD, taught_BTD, mask_BT)
        return total

    return loss


def last_states(model: "nn.Module", inputs: Mapping[str, Any]) -> Tensor:
    """Return what leaves the last layer [B, T, D] of a model with or without a head, wrapped or not."""
    output = model(**inputs, output_hidden_states=True)
    states = getattr(output, "last_hidden_state", None)
    return output.hidden_states[-1] if states is None else states


def relative_error(learned_BTD: Tensor, taught_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the squared error over the squared norm of what was to be learned; padding does not count.

    >>> taught = torch.tensor([[[3.0, 4.0], [1.0, 1.0]]])
    >>> relative_error(torch.zeros(1, 2, 2), taught, torch.tensor([[1, 0]])).item()
    1.0
    """
    mask_BT1 = mask_BT.unsqueeze(-1).to(taught_BTD.dtype)
    error = ((learned_BTD - taught_BTD).square() * mask_BT1).sum()
    return error / (taught_BTD.square() * mask_BT1).sum()
