"""The running sums of one forward pass, from which all similarity scores are computed.

Each batch is added and discarded, so that memory does not grow with the data. Sums are float64; every token counts
once, so that the batch size does not matter.

Shapes: B sequences, T tokens, D hidden size, L layers.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from depthprune.errors import UserError


@dataclass
class SimilaritySums:
    """Sums over tokens and sequences.

    Args:
        depth: L.
        cosine_L: over real tokens, of the cosine of a layer's input and output.
        magnitude_L: over real tokens, of ‖output − input‖ / ‖input‖.
        tokens: number of real tokens.
        pair_cosine: [L + 1, L + 1], over sequences, of the cosine, at the chosen token or of the mean of the tokens,
            between the inputs of layer i and layer j (L: the output of the last layer).
        pair_angle: the same, of arccos(cosine) / π.
        sequences: number of sequences.
    """

    depth: int
    tokens: int = 0
    sequences: int = 0
    cosine_L: Tensor = field(init=False)
    magnitude_L: Tensor = field(init=False)
    pair_cosine: Tensor = field(init=False)
    pair_angle: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.cosine_L = torch.zeros(self.depth, dtype=torch.float64)
        self.magnitude_L = torch.zeros(self.depth, dtype=torch.float64)
        self.pair_cosine = torch.zeros(self.depth + 1, self.depth + 1, dtype=torch.float64)
        self.pair_angle = torch.zeros_like(self.pair_cosine)

    def add_layer(self, layer: int, input_BTD: Tensor, output_BTD: Tensor, mask_BT: Tensor, *, batch: int) -> None:
        """Add a layer's inputs and outputs for a batch; padding does not count.

        Raises:
            UserError: if a hidden state is not finite; the message names the layer and the batch.
        """
        before, after = input_BTD.float(), output_BTD.float()
        dot_BT = torch.linalg.vecdot(before, after)
        before_BT, after_BT = torch.linalg.vector_norm(before, dim=-1), torch.linalg.vector_norm(after, dim=-1)
        change_BT = torch.linalg.vector_norm(after - before, dim=-1)
        tiny = torch.finfo(torch.float32).tiny
        cosine = (dot_BT / (before_BT * after_BT).clamp_min(tiny))[mask_BT].clamp(-1, 1).double().sum()
        magnitude = (change_BT / before_BT.clamp_min(tiny))[mask_BT].double().sum()
        if not torch.isfinite(cosine + magnitude):
            raise not_finite(layer, batch)
        self.cosine_L[layer] += cosine.cpu()
        self.magnitude_L[layer] += magnitude.cpu()

    def add_tokens(self, pooled: list[Tensor], mask_BT: Tensor) -> None:
        """Add what stands for each sequence, one token or the mean of its tokens, between all layers.

        Args:
            pooled: L + 1 tensors [B, D].
            mask_BT: true for real tokens.
        """
        states_BLD = torch.stack(pooled, dim=1).double()
        states_BLD = states_BLD / torch.linalg.vector_norm(states_BLD, dim=-1, keepdim=True).clamp_min(1e-300)
        cosine = (states_BLD @ states_BLD.transpose(1, 2)).clamp(-1, 1)
        self.pair_cosine += cosine.sum(0).cpu()
        self.pair_angle += (torch.arccos(cosine) / torch.pi).sum(0).cpu()
        self.sequences += len(states_BLD)
        self.tokens += int(mask_BT.sum())

    def windows(self, values: Tensor) -> dict[int, tuple[float, ...]]:
        """Return, for every length n, the entry of `values` [L + 1, L + 1] of each window [start, start + n)."""
        return {n: tuple(torch.diagonal(values, n).tolist()) for n in range(1, self.depth + 1)}


def not_finite(layer: int, batch: int) -> UserError:
    """Return the error for a state with NaN or infinity in it."""
    return UserError(
        f"layer {layer} returns hidden states that are not finite (batch {batch}); "
        "give --dtype float32, or look for a broken checkpoint"
    )


def token_of(mask_BT: Tensor, token: str) -> Tensor:
    """Return the position of the first or the last real token of each sequence, on either side of the padding.

    >>> token_of(torch.tensor([[0, 1, 1], [1, 1, 0]]).bool(), "last").tolist()
    [2, 1]

    Raises:
        UserError: if a sequence has only padding.
    """
    _check_no_empty(mask_BT)
    if token == "first":
        return mask_BT.int().argmax(-1)
    return mask_BT.shape[1] - 1 - mask_BT.int().flip(-1).argmax(-1)


def pooled(states_BTD: Tensor, mask_BT: Tensor, token: str) -> Tensor:
    """Return what stands for each sequence [B, D], in float32.

    Args:
        mask_BT: true for real tokens.
        token: one of `scores.base.TOKENS`: the state of the first or the last real token, or the mean over all of them.

    >>> pooled(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]), "mean")
    tensor([[2.]])

    Raises:
        UserError: if a sequence has only padding.
    """
    if token != "mean":
        position_B = token_of(mask_BT, token)
        return states_BTD[torch.arange(len(states_BTD), device=states_BTD.device), position_B].float()
    _check_no_empty(mask_BT)
    mask_BT1 = mask_BT.unsqueeze(-1)
    return states_BTD.float().masked_fill(~mask_BT1, 0.0).sum(1) / mask_BT1.sum(1)


def _check_no_empty(mask_BT: Tensor) -> None:
    if not bool(mask_BT.any(-1).all()):
        raise UserError("the calibration data has an empty sequence; remove empty texts")
