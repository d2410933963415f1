"""Tails that can be learned: a layer that turns a Gaussian's into exponential or power-law ones, each side on its own.

    y = mu + sigma s / lambda_s (erfc(|z| / sqrt 2)^(-lambda_s) - 1),    s = sign(z)

has `P(|y| > t) ~ t^(-1 / lambda_s)` for a normal `z`: lambda 1/2 is like a Student-T of two degrees of freedom, 1 like Cauchy's
distribution, and lambda -> 0 is `-s ln erfc(|z| / sqrt 2)`, an exponential tail. With `L = -ln erfc(|z| / sqrt 2)` and the
hazard `h = dL/d|z| = sqrt(2/pi) / erfcx(|z| / sqrt 2)`,

    y = mu + sigma s expm1(lambda_s L) / lambda_s,    ln dy/dz = ln sigma + lambda_s L + ln h

Reference: Hickling and Prangle 2024 (arXiv 2406.16971).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from skyloom.errors import DataError
from skyloom.flows.bound import Given, Step

__all__ = ["TailTransform", "hill"]

FARTHEST = 60.0  # lambda L beyond which a draw is held: e^60 deviations


class TailTransform(Step):
    """Learnable tails, the first layer from the data's side.

    Best before splines, which leave what lies far out as it is: an affine layer that stretches the latent by `s` multiplies the
    index by `s^2`. Start it near the truth, from `hill` of the training split: few rows speak of a tail, so it is learned
    slowly.

    Arguments:
        features: Dimensions D.
        shape: Initial `lambda`, one number or one for each coordinate (see `hill`): the inverse of the tail index.
        learned: Whether they are learned (as everything about them is: location and scale too).
        least: Smallest `lambda`.

    >>> tails = TailTransform(1, shape=0.5)
    >>> z = torch.tensor([[-3.0, 0.0, 3.0]])
    >>> tails.inverse(z, None)[0]
    tensor([[-36.4915,   0.0000,  36.4915]], grad_fn=<AddBackward0>)
    """

    largest = 1e30  # a logarithm takes whatever comes

    def __init__(self, features: int, shape: Any = 0.25, learned: bool = True, least: float = 1e-3) -> None:
        super().__init__()
        start = torch.as_tensor(shape, dtype=torch.float64).expand(2, features).clamp(min=2 * least)
        self.least = least
        self.raw = nn.Parameter(torch.log(torch.expm1(start - least)).to(torch.get_default_dtype()), requires_grad=learned)
        self.location = nn.Parameter(torch.zeros(features), requires_grad=learned)
        self.log_scale = nn.Parameter(torch.zeros(features), requires_grad=learned)

    @property
    def shape(self) -> Tensor:
        """`lambda` `[2, D]`: of the lower tails, of the upper ones."""
        return self.least + softplus(self.raw)

    def _settings(self, like: Tensor) -> tuple[Tensor, ...]:
        ones = [1] * (like.dim() - 1)
        lower, upper = (each.view(-1, *ones).to(like.dtype) for each in self.shape)
        location = self.location.view(-1, *ones).to(like.dtype)
        log_scale = self.log_scale.clamp(-15, 15).view(-1, *ones).to(like.dtype)
        return lower, upper, location, log_scale

    def forward(self, y: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        lower, upper, location, log_scale = self._settings(y)
        u = (y - location) * torch.exp(-log_scale)
        shape = torch.where(u < 0, lower, upper)
        level = torch.log1p(shape * u.abs().clamp(max=1e30)) / shape  # L
        size = half_normal_quantile(level)
        return torch.copysign(size, u), -(log_scale + shape * level + log_hazard(size))

    def inverse(self, z: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        lower, upper, location, log_scale = self._settings(z)
        shape = torch.where(z < 0, lower, upper)
        size = z.abs().clamp(max=1e3)
        grown = (shape * log_inverse_survival(size)).clamp(max=FARTHEST)
        y = location + torch.copysign(torch.exp(log_scale) * torch.expm1(grown) / shape, z)
        return y, -(log_scale + grown + log_hazard(size))


def log_inverse_survival(size: Tensor) -> Tensor:
    """`L = -ln erfc(size / sqrt 2)` for `size >= 0`, without underflow."""
    x = size * 0.7071067811865476  # / sqrt 2: literals, for a compiler takes a module's numbers for inputs
    return x.square() - torch.log(torch.special.erfcx(x))


def log_hazard(size: Tensor) -> Tensor:
    """`ln dL/dsize`, of which `ln sqrt(2 / pi)` comes first."""
    return -0.22579135264472744 - torch.log(torch.special.erfcx(size * 0.7071067811865476))


class _HalfNormalQuantile(torch.autograd.Function):
    """Newton's method, with the exact derivative `1 / h` instead of that of the iterations."""

    @staticmethod
    def forward(ctx: Any, level: Tensor) -> Tensor:
        exact = level.double()
        size = torch.where(exact < 1, exact * 1.2533141373155001, torch.sqrt(2 * exact))
        for _ in range(8):  # quadratic: from the worst start (level near 1) six steps reach 1e-15
            size = (size - (log_inverse_survival(size) - exact) * torch.exp(-log_hazard(size))).clamp(min=0)
        size = size.to(level.dtype)
        ctx.save_for_backward(size)
        return size

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (size,) = ctx.saved_tensors
        return grad * torch.exp(-log_hazard(size))


def half_normal_quantile(level: Tensor) -> Tensor:
    """The `size >= 0` whose `-ln erfc(size / sqrt 2)` is `level`."""
    return _HalfNormalQuantile.apply(level)


def hill(sample: Tensor, share: float = 0.05) -> Tensor:
    """Hill's estimate of `lambda` `[2, D]` of the lower and the upper tail of each column of `sample` `[N, D]`.

    The mean of `ln(x / threshold)` over the `share` of values farthest from the median on that side, the threshold being the
    least of them. Exact for a power law; for an exponential tail it is small, and falls with the share.
    """
    centred = sample.double() - sample.double().median(0).values
    k = int(share * len(centred))
    if k < 5:
        raise DataError(f"{share:.0%} of {len(centred)} rows are too few for the index of a tail: 5 are needed.")
    out = []
    for side in (-centred, centred):
        least = torch.stack([column.kthvalue(len(column) - k).values for column in side.unbind(1)])
        if bool((least <= 0).any()):
            raise DataError("a column has too few values on one side of its median for the index of that tail.")
        out.append(torch.log((side / least).clamp(min=1)).sum(0) / k)
    return torch.stack(out)
