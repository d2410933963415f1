"""Maps of one coordinate whose parameters a network gives: rational-quadratic splines, and affine maps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skyloom.flows.spline_gradient import trained_spline
from skyloom.flows.splines import knots, spline, spline_inverse

__all__ = ["AffineMap", "SplineMap"]


class SplineMap:
    """Rational-quadratic spline of `bins` bins on `[-bound, bound]`, the identity outside; `3 bins - 1` parameters."""

    def __init__(self, bins: int = 8, bound: float = 5.0) -> None:
        if bins < 2 or bound <= 0:
            raise ValueError(f"a spline needs bins >= 2 and bound > 0, found bins={bins} and bound={bound}")
        self.bins, self.bound, self.parameters = bins, bound, 3 * bins - 1

    def forward(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return trained_spline(y, raw, self.bound)
        return spline(y, knots(raw, self.bound), self.bound)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return spline_inverse(z, knots(raw, self.bound), self.bound)


class AffineMap:
    """`z = exp(a) y + b`, `|a|` softly clipped at `most`."""

    parameters = 2

    def __init__(self, most: float = -math.log(1e-3)) -> None:
        self.most = most

    def _parts(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        shift, a = raw.unbind(1)
        return shift, a / (1 + a.abs() / self.most)

    def forward(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        shift, a = self._parts(raw)
        return y * a.exp() + shift, a

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        shift, a = self._parts(raw)
        return (z - shift) * (-a).exp(), a
