"""Yeo and Johnson's power transform: takes the skew out of a column of either sign, one number per column."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skyloom.flows.transforms import DataTransform

__all__ = ["YeoJohnson"]


class YeoJohnson(DataTransform):
    """`z = ((1 + y)^p - 1) / p` for `y >= 0`, `z = -((1 - y)^(2 - p) - 1) / (2 - p)` for `y < 0`, with the power `p` in [0, 2].

    `ln dz/dy = (p - 1) sign(y) ln(1 + |y|)`. Powers outside [0, 2] would map the real line onto a part of it only, and a draw
    beyond that part would have no value: they are not allowed. `y` is best standardised before.

    Reference: Yeo and Johnson 2000 (doi:10.1093/biomet/87.4.954).

    >>> YeoJohnson(1.0)(torch.tensor([-2.0, 3.0]))[0]
    tensor([-2.,  3.])
    """

    kind = "yeo_johnson"
    power: Tensor

    def __init__(self, power: Any = 1.0) -> None:
        super().__init__()
        self._constant("power", power)
        if not bool(((self.power >= 0) & (self.power <= 2)).all()):
            raise ValueError(f"a Yeo-Johnson power must lie in [0, 2] for the map to be onto, found {self.power.tolist()}")

    @classmethod
    def fit(cls, sample: Tensor) -> YeoJohnson:
        """The power of each column of `sample` `[N, D]` that makes it likeliest as a Gaussian, within [0, 2]."""
        from scipy.optimize import minimize_scalar
        from scipy.stats import yeojohnson_llf

        rows = sample.double().cpu().numpy()
        found = [
            minimize_scalar(lambda p, y=column: -yeojohnson_llf(p, y), bounds=(0.0, 2.0), method="bounded").x
            for column in rows.T
        ]
        return cls(np.clip(found, 0.0, 2.0))

    def _power_of(self, y: Tensor) -> Tensor:
        """The exponent that acts on `1 + |y|`."""
        power = self._as("power", y)
        return torch.where(y >= 0, power, 2 - power)

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, size = self._power_of(y), torch.log1p(y.abs())
        safe = q.clamp(min=1e-9)
        z = torch.where(q > 1e-9, torch.expm1(safe * size) / safe, size)
        return torch.where(y < 0, -z, z), (q - 1) * size

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        q, size = self._power_of(z), z.abs()
        safe = q.clamp(min=1e-9)
        log = torch.where(q > 1e-9, torch.log1p(safe * size) / safe, size)
        size = torch.expm1(log.clamp(max=math.log(torch.finfo(z.dtype).max) - 1))
        return torch.where(z < 0, -size, size)  # not copysign, which ONNX lacks
