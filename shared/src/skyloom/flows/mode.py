"""The most probable point of a posterior: of the joint density itself, not of a histogram of each coordinate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["highest"]


def highest(
    distribution: Any, draws: int = 1000, steps: int = 50, generator: torch.Generator | None = None, rate: float = 0.1
) -> Tensor:
    """`argmax_y p(y | c)` `[*batch, D]`: the likeliest of `draws` draws, then `steps` steps of Adam on `ln p`.

    The climb moves in units of each coordinate's spread among the draws, and in the coordinates that the flow models where the
    distribution has others (so that it never leaves the support); its rate falls to nothing along the way. The best point met
    on the way is returned, so that the answer is never less probable than the best draw. The maximum of a density depends on
    the coordinates: that of `p(y)` in the units in which `log_prob` is given.
    """
    draws = max(draws, 2)
    frozen = distribution.frozen()
    inner = getattr(frozen, "scaled", frozen)
    outward = getattr(frozen, "from_scaled", _as_it_is)
    with torch.no_grad():
        points = inner.sample((draws,), generator)
        density = _log_prob_at(frozen, points, outward)
        best, index = density.max(0)
        start = torch.take_along_dim(points, index[None, ..., None], 0).squeeze(0)
        spread = points.std(0).clamp(min=1e-6)
    best_point, offset = start.clone(), torch.zeros_like(start, requires_grad=True)
    climb = torch.optim.Adam([offset], lr=rate, betas=(0.9, 0.95))
    for k in range(steps + 1):
        with torch.enable_grad():
            value = _log_prob_at(frozen, start + spread * offset, outward)
            cost = -value.clamp(min=-1e30).sum()
        with torch.no_grad():
            better = value > best
            best = torch.where(better, value, best)
            best_point = torch.where(better.unsqueeze(-1), start + spread * offset, best_point)
        if k == steps:
            break
        (slope,) = torch.autograd.grad(cost, offset)
        offset.grad = torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0)
        climb.param_groups[0]["lr"] = rate * (1 - k / steps)
        climb.step()
    with torch.no_grad():
        return outward(best_point)


def _log_prob_at(distribution: Any, points: Tensor, outward: Any) -> Tensor:
    at = getattr(distribution, "log_prob_at_scaled", None)
    return at(points) if at is not None else distribution.log_prob(outward(points))


def _as_it_is(points: Tensor) -> Tensor:
    return points
