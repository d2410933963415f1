"""From the quantiles of a column to those of a normal: the marginal becomes Gaussian, and a flow learns what is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from skyloom.errors import DataError
from skyloom.flows.transforms import DataTransform

__all__ = ["Quantile"]


class Quantile(DataTransform):
    """A smooth increasing map through knots `(y_k, z_k)`, with straight lines beyond the outermost: a bijection of the real
    line.

    Between knots it is a rational quadratic whose slopes are the harmonic means of the neighbouring secants, so that it is
    continuously differentiable and never turns. For one column (use `PerColumn` for several).

    Reference: Gregory and Delbourgo 1982 (doi:10.1093/imanum/2.2.123).
    """

    kind = "quantile"
    y: Tensor
    z: Tensor
    slope: Tensor

    def __init__(self, y: Any, z: Any, slope: Any) -> None:
        super().__init__()
        for name, value in (("y", y), ("z", z), ("slope", slope)):
            self._constant(name, value)
        rising = (self.y.diff() > 0).all() & (self.z.diff() > 0).all() & (self.slope > 0).all()
        if len(self.y) < 2 or not bool(rising):
            raise ValueError("a quantile map needs two or more knots that rise, with positive slopes")

    @classmethod
    def fit(cls, column: Tensor, knots: int = 256, tail: float = 0.01) -> Quantile:
        """Through `knots` quantiles of a column `[N]` or `[N, 1]`, equally spaced in normal score.

        Beyond the outermost knot the slope is that of the line from the quantile `tail` away from the end to that knot. Equal
        values (a column of few distinct numbers) share a knot.
        """
        from scipy.stats import norm

        values = np.sort(column.double().cpu().numpy().ravel())
        n = len(values)
        if n < 20 or not np.isfinite(values).all():
            raise DataError(f"a quantile map needs 20 finite values or more, found {n} ({np.isfinite(values).sum()} finite).")
        edge = norm.isf(max(2 / n, 1e-5))
        z = np.linspace(-edge, edge, knots)
        y = np.quantile(values, norm.cdf(z))
        scale = max(float(y[-1] - y[0]), 1e-300)
        keep = np.concatenate([[True], np.diff(y) > 1e-7 * scale])
        y, z = y[keep], z[keep]
        if len(y) < 2:
            raise DataError("a column that does not vary has no quantile map.")
        secant = np.diff(z) / np.diff(y)
        inner = 2 * secant[1:] * secant[:-1] / (secant[1:] + secant[:-1])
        low, high = np.quantile(values, [tail, 1 - tail])
        ends = [
            (norm.ppf(tail) - z[0]) / (low - y[0]) if low > y[0] and norm.ppf(tail) > z[0] else secant[0],
            (z[-1] - norm.isf(tail)) / (y[-1] - high) if y[-1] > high and z[-1] > norm.isf(tail) else secant[-1],
        ]
        return cls(y, z, np.concatenate([ends[:1], inner, ends[1:]]))

    def _bin(self, value: Tensor, edges: Tensor) -> tuple[Tensor, ...]:
        y, z, slope = (each.to(value.device) for each in (self.y, self.z, self.slope))
        k = torch.bucketize(value.contiguous(), edges.to(value.device)[1:-1].contiguous(), right=True)
        return y[k], y[k + 1], z[k], z[k + 1], slope[k], slope[k + 1]

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        wide = y.double()  # a few numbers per row: the last digits cost little, and knots may lie close
        inside = wide.clamp(self.y[0], self.y[-1])
        y0, y1, z0, z1, d0, d1 = self._bin(inside, self.y)
        s, t = (z1 - z0) / (y1 - y0), (inside - y0) / (y1 - y0)
        mixed = t * (1 - t)
        below = s + (d0 + d1 - 2 * s) * mixed
        z = z0 + (z1 - z0) * (s * t.square() + d0 * mixed) / below
        ladj = 2 * (s / below).log() + (d1 * t.square() + 2 * s * mixed + d0 * (1 - t).square()).log()
        slope = torch.where(wide < self.y[0], self.slope[0], self.slope[-1])
        beyond = wide - inside
        out = beyond != 0
        return (z + beyond * slope).to(y.dtype), torch.where(out, slope.log(), ladj).to(y.dtype)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        wide = z.double()
        inside = wide.clamp(self.z[0], self.z[-1])
        y0, y1, z0, z1, d0, d1 = self._bin(inside, self.z)
        s, r = (z1 - z0) / (y1 - y0), (inside - z0) / (z1 - z0)
        bend = d0 + d1 - 2 * s
        a, b = s - d0 + r * bend, d0 - r * bend
        root = (b.square() + 4 * a * s * r).clamp(min=1e-300).sqrt()
        t = (2 * s * r / (b + root).clamp(min=1e-300)).clamp(0, 1)
        slope = torch.where(wide < self.z[0], self.slope[0], self.slope[-1])
        return (y0 + t * (y1 - y0) + (wide - inside) / slope).to(z.dtype)
