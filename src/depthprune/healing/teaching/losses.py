"""The losses of distillation.

Shapes: B sequences, C outputs of the head, S pairs of states, N vectors (one a sequence, or one a real token), D hidden
size. Every loss is a scalar.
"""

import torch.nn.functional as F
from torch import Tensor


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
