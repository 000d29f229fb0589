"""The losses of distillation.

Shapes: B sequences, T tokens, H heads, C outputs of the head, S pairs of states, N vectors (one a sequence, or one a
real token), D hidden size. Every loss is a scalar.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def labels_loss(student_BC: Tensor, labels_B: Tensor, labelled_B: Tensor) -> Tensor:
    """Return the loss of the labels of a batch in which not every row has one.

    It is the mean over the labelled rows times their share of the batch: their sum over B, so that each labelled row
    counts as much as in a batch whose rows all have a label, and parts of a batch add up. Of classes the cross-entropy,
    of a regression the squared error, as the models of transformers compute it.

    Args:
        student_BC: its logits.
        labels_B: class numbers, or amounts; of rows without a label anything.
        labelled_B: true for rows with a label; 0 is returned where there is none.
    """
    said_NC, labels_N = student_BC.float()[labelled_B], labels_B[labelled_B]
    if student_BC.shape[-1] == 1:
        total = F.mse_loss(said_NC.squeeze(-1), labels_N.float(), reduction="sum")
    else:
        total = F.cross_entropy(said_NC, labels_N, reduction="sum")
    return total / len(labels_B)


def logits_loss(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """Return how far the student's answers are from the teacher's (Hinton et al., 2015).

    Of classes, the Kullback-Leibler divergence of the distributions at a temperature, summed over classes, times the
    square of the temperature, which keeps its gradients as large as those of the labels. Of a regression, the squared
    error.
    """
    if student_BC.shape[-1] == 1:
        return F.mse_loss(student_BC.float(), teacher_BC.float())
    student_BC, teacher_BC = student_BC.float() / temperature, teacher_BC.float() / temperature
    divergence = F.kl_div(
        student_BC.log_softmax(-1), teacher_BC.log_softmax(-1), reduction="batchmean", log_target=True
    )
    return divergence * temperature**2


def states_loss(student_SND: Tensor, teacher_SND: Tensor, *, normalise: bool) -> Tensor:
    """Return the squared error of hidden states, the mean over states, vectors and dimensions.

    Args:
        normalise: of vectors of length 1 (Sun et al., 2019, equation 7, as their code computes it).
    """
    student_SND, teacher_SND = student_SND.float(), teacher_SND.float()
    if normalise:
        student_SND, teacher_SND = F.normalize(student_SND, dim=-1), F.normalize(teacher_SND, dim=-1)
    return F.mse_loss(student_SND, teacher_SND)


def attention_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], real_BT: Tensor) -> Tensor:
    """Return the squared error of attention, the mean over layers, heads and pairs of real tokens (Jiao et al., 2020).

    Args:
        student: attention probabilities of each layer, [B, H, T, T].
        teacher: of the layers that these are to match.
        real_BT: true for real tokens.
    """
    pairs_B1TT = (real_BT[:, None, :, None] & real_BT[:, None, None, :]).float()
    errors = [
        ((mine.float() - theirs.float()).square() * pairs_B1TT).sum() / (pairs_B1TT.sum() * mine.shape[1])
        for mine, theirs in zip(student, teacher, strict=True)
    ]
    return torch.stack(errors).mean()
