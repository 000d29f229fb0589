"""Least squares from running sums, so that no states are kept.

Shapes: N tokens of a batch, D hidden size. Sums are float64, where the model is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from depthprune.errors import UserError
from depthprune.healing.repair.states import refuse_infinite


@dataclass(frozen=True)
class Fit:
    """A linear map x · matrix + offset.

    Args:
        matrix: float64 [D, D].
        offset: float64 [D]; None without one.
        before: squared error of doing nothing, relative to the squared length of what is wanted.
        after: that of the map.
    """

    matrix: Tensor
    offset: Tensor | None
    before: float
    after: float


class LeastSquares:
    """Finds the map of x whose result, added to the rest of a sum, comes closest to what is wanted."""

    def __init__(self, size: int, device: torch.device):
        made = {"dtype": torch.float64, "device": device}
        self._xx, self._xr = torch.zeros(size, size, **made), torch.zeros(size, size, **made)
        self._x, self._r = (torch.zeros(size, **made) for _ in range(2))
        self._rr, self._pp, self._weight = (torch.zeros((), **made) for _ in range(3))

    def add(self, x_ND: Tensor, total_ND: Tensor, wanted_ND: Tensor, weight_N: Tensor) -> None:
        """Add tokens.

        Args:
            x_ND: the term that is to be mapped.
            total_ND: the sum with that term in it as it is.
            wanted_ND: what the sum is to be.
            weight_N: of each token.
        """
        missing_ND, weight_N1 = wanted_ND - total_ND, weight_N[:, None]
        weighted_ND = weight_N1 * x_ND
        self._xx += weighted_ND.T @ x_ND
        self._xr += weighted_ND.T @ missing_ND
        self._x += weighted_ND.sum(0)
        self._r += (weight_N1 * missing_ND).sum(0)
        self._rr += (weight_N1 * missing_ND**2).sum()
        self._pp += (weight_N1 * wanted_ND**2).sum()
        self._weight += weight_N.sum()

    def solve(self, *, ridge: float, offset: bool) -> Fit:
        """Return the map, drawn towards the identity.

        Args:
            ridge: weight of the squared distance from the identity, relative to the mean square of x.
            offset: whether it has one.

        Raises:
            UserError: the states are not finite, or too few for the number of dimensions.
        """
        refuse_infinite(torch.isfinite(self._rr + self._xx.sum()))
        xx, xr, rr = self._xx, self._xr, self._rr
        if offset:
            xx = xx - torch.outer(self._x, self._x) / self._weight
            xr = xr - torch.outer(self._x, self._r) / self._weight
            rr = rr - self._r.square().sum() / self._weight
        size = len(self._x)
        identity = torch.eye(size, dtype=xx.dtype, device=xx.device)
        factor, failed = torch.linalg.cholesky_ex(xx + ridge * xx.trace() / size * identity)
        pivots = factor.diagonal()
        if int(failed) or bool(pivots.min() <= 1e-7 * pivots.max()):  # their squares are of the size of the matrix
            raise UserError(
                f"the calibration rows do not determine a map of {size} dimensions; give more examples, or ridge above "
                "0"
            )
        change = torch.cholesky_solve(xr, factor)
        left = rr - 2 * (change * xr).sum() + (change * (xx @ change)).sum()
        shift = (self._r - self._x @ change) / self._weight if offset else None
        return Fit(identity + change, shift, float(self._rr / self._pp), float(left / self._pp))
