"""Monotonic rational-quadratic splines that are finite everywhere, both ways, in values and in gradients.

On bin k, between knots `(x0, y0)` and `(x1, y1)` of slopes `d0`, `d1`, with `s = (y1 - y0) / (x1 - x0)` and `t = (x - x0) / (x1
- x0)`,

    y = y0 + (y1 - y0) (s t^2 + d0 t (1 - t)) / (s + (d0 + d1 - 2 s) t (1 - t))

and the identity outside `[-bound, bound]`. Inputs are clipped to the box BEFORE the arithmetic, and the identity is chosen
afterwards: choosing alone lets the branch that was not chosen send NaN into the gradient. The discriminant of the inverse is
kept positive.

References: Gregory and Delbourgo 1982 (doi:10.1093/imanum/2.2.123); Durkan et al. 2019 (arXiv 1906.04032). Parameters mean what
they mean in zuko's `MonotonicRQSTransform`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["Knots", "knots", "spline", "spline_inverse"]


class Knots(NamedTuple):
    """Positions `x`, values `y` and slopes of `K + 1` knots, along axis 1 of `[D, K + 1, ...]`."""

    x: Tensor
    y: Tensor
    slope: Tensor


def knots(raw: Tensor, bound: float, least: float = 1e-3) -> Knots:
    """From `3 K - 1` unconstrained numbers along axis 1: widths, heights, inner slopes; all zero is the identity.

    A soft clip keeps slopes within `[least, 1 / least]`, and widths and heights within the same ratio of each other.
    """
    bins = (raw.shape[1] + 1) // 3
    widths, heights, slopes = raw.split([bins, bins, bins - 1], dim=1)
    reach = -math.log(least)
    ends = [0] * (2 * (raw.dim() - 2))
    slopes = pad(torch.exp(slopes / (1 + slopes.abs() / reach)), (*ends, 1, 1), value=1.0)
    return Knots(_positions(widths, bound, reach, ends), _positions(heights, bound, reach, ends), slopes)


def _positions(raw: Tensor, bound: float, reach: float, ends: list[int]) -> Tensor:
    shares = torch.softmax(raw / (1 + 2 * raw.abs() / reach), dim=1)
    inner = bound * (2 * torch.cumsum(shares[:, :-1], dim=1) - 1)
    return pad(pad(inner, (*ends, 1, 0), value=-bound), (*ends, 0, 1), value=bound)


def spline(x: Tensor, k: Knots, bound: float) -> tuple[Tensor, Tensor]:
    """`y` and `ln dy/dx` per element, for `x` `[D, ...]`."""
    inside = x.clamp(-bound, bound)
    x0, x1, y0, y1, d0, d1 = _bin(inside, k.x, k)
    t = ((inside - x0) / (x1 - x0)).clamp(0, 1)
    s = (y1 - y0) / (x1 - x0)
    mixed = t * (1 - t)
    below = s + (d0 + d1 - 2 * s) * mixed
    y = y0 + (y1 - y0) * (s * t.square() + d0 * mixed) / below
    out = x.abs() > bound
    return torch.where(out, x, y), torch.where(out, torch.zeros_like(x), _log_slope(t, s, d0, d1, mixed, below))


def spline_inverse(y: Tensor, k: Knots, bound: float) -> tuple[Tensor, Tensor]:
    """`x` with `spline(x) = y`, and `ln dy/dx` there."""
    inside = y.clamp(-bound, bound)
    x0, x1, y0, y1, d0, d1 = _bin(inside, k.y, k)
    s = (y1 - y0) / (x1 - x0)
    r = ((inside - y0) / (y1 - y0)).clamp(0, 1)
    bend = d0 + d1 - 2 * s
    a, b = s - d0 + r * bend, d0 - r * bend
    root = (b.square() + 4 * a * s * r).clamp(min=1e-12).sqrt()
    t = (2 * s * r / (b + root).clamp(min=1e-12)).clamp(0, 1)
    x = x0 + t * (x1 - x0)
    mixed = t * (1 - t)
    out = y.abs() > bound
    ladj = _log_slope(t, s, d0, d1, mixed, s + bend * mixed)
    return torch.where(out, y, x), torch.where(out, torch.zeros_like(y), ladj)


def _log_slope(t: Tensor, s: Tensor, d0: Tensor, d1: Tensor, mixed: Tensor, below: Tensor) -> Tensor:
    rise = d1 * t.square() + 2 * s * mixed + d0 * (1 - t).square()
    return 2 * (s / below).log() + rise.log()


def _bin(value: Tensor, edges: Tensor, k: Knots) -> tuple[Tensor, ...]:
    """`x0, x1, y0, y1, d0, d1` of the bin of each element, found among the inner edges: every value has a bin."""
    index = (value.unsqueeze(1) >= edges[:, 1:-1]).sum(1, keepdim=True)
    pair = [torch.cat([index, index + 1], 1).expand(-1, -1, *value.shape[1:])] * 3
    found = [torch.gather(each, 1, where) for each, where in zip(k, pair, strict=True)]
    return tuple(part for each in found for part in each.unbind(1))
