"""The loss of a student that imitates its teacher's embeddings and hidden states.

Shapes: B sequences, T tokens, D hidden size.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from depthprune.errors import UserError
from depthprune.tasks.pooling import MEAN, pooled_BD

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class EmbeddingLoss:
    """Weighs two distances between a student and its teacher; called with the student and a padded batch.

    Args:
        teacher: in evaluation mode, where the student is.
        student: what will be trained; only its configuration is looked at.
        pooled: weight of one minus the cosine of the pooled embeddings.
        states: weight of the relative squared error of the last hidden states.
        dropout: leave the student's dropout on.
        pooling: how one vector is made of a sequence (`tasks.pooling.read_pooling`).

    Raises:
        UserError: the two cannot be compared.
    """

    def __init__(
        self,
        teacher: "PreTrainedModel",
        student: "PreTrainedModel",
        *,
        pooled: float = 1.0,
        states: float = 1.0,
        dropout: bool = False,
        pooling: tuple[str, ...] = MEAN,
    ):
        sizes = [getattr(model.config.get_text_config(), "hidden_size", None) for model in (student, teacher)]
        if sizes[0] != sizes[1]:
            raise UserError(
                f"the teacher's hidden states have {sizes[1]} numbers a token and the model's {sizes[0]}; "
                "give the model that it was cut from"
            )
        if student.config.is_encoder_decoder:
            raise UserError(
                f"embeddings are those of an encoder or a decoder, and '{student.config.model_type}' has both; "
                "heal it with another method"
            )
        if not any(parameter.requires_grad for parameter in student.base_model.parameters()):
            raise UserError("everything that embeddings come from is frozen, so there is nothing to train; freeze less")
        self._teacher, self._pooling = teacher, pooling
        self._pooled, self._states, self._dropout = pooled, states, dropout

    def __call__(self, model: "nn.Module", batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss of a batch, a scalar."""
        inputs = {name: values for name, values in batch.items() if name != "labels"}
        mask_BT = inputs["attention_mask"]
        if not self._dropout:
            model.eval()  # for this step; gradients are as in training
        with torch.no_grad():
            taught_BTD = last_states(self._teacher, inputs).float()
        learned_BTD = last_states(model, inputs).float()
        loss = learned_BTD.new_zeros(())
        if self._pooled:
            one_BD, other_BD = (pooled_BD(states, mask_BT, self._pooling) for states in (learned_BTD, taught_BTD))
            loss = loss + self._pooled * (1 - functional.cosine_similarity(one_BD, other_BD, dim=-1)).mean()
        if self._states:
            loss = loss + self._states * relative_error(learned_BTD, taught_BTD, mask_BT)
        return loss


def last_states(model: "nn.Module", inputs: dict[str, Any]) -> Tensor:
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
