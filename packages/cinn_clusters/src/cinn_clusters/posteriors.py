"""What a set of posterior draws says of one object: pure functions on `draws` `[B, S, D]` and `truth` `[B, D]`."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["QUANTILES", "interval_coverage", "kde_modes", "marginal_density", "summary"]

Array = NDArray[np.float64]

QUANTILES = (0.025, 0.16, 0.5, 0.84, 0.975)
"""Levels kept of each marginal posterior: the median, and the ends of the central 68 and 95 percent intervals."""


def summary(draws: Tensor) -> dict[str, Tensor]:
    """Quantiles `[B, D, 5]` at `QUANTILES`, mean and standard deviation `[B, D]` of each marginal."""
    levels = torch.tensor(QUANTILES, dtype=draws.dtype, device=draws.device)
    return {
        "quantiles": torch.quantile(draws, levels, dim=1).permute(1, 2, 0),
        "mean": draws.mean(1),
        "sd": draws.std(1, correction=0),
    }


def interval_coverage(ranks: Tensor, level: float) -> Tensor:
    """Share of objects whose truth lies in the central interval of probability `level`, per column `[D]`."""
    return ((ranks - 0.5).abs() <= level / 2).to(ranks.dtype).mean(0)


def kde_modes(draws: Tensor, bandwidth: float | None = None, points: int = 64) -> Tensor:
    """Mode of each marginal `[B, D]`, the peak of its kernel density on `points` points between the 1st and 99th percentile.

    The width is Silverman's, or one fixed `bandwidth` for all columns whatever their units, as in the literature of this
    method (0.5): it exceeds the whole spread of four of the six targets, whose "mode" then is the mean. Neither is the maximum
    of the joint density; that is `map_estimate` of the posterior.
    """
    ends = torch.quantile(draws, torch.tensor([0.01, 0.25, 0.75, 0.99], dtype=draws.dtype), dim=1)  # [4, B, D]
    sd = draws.std(1)
    silverman = 0.9 * torch.minimum(sd, (ends[2] - ends[1]) / 1.34) * draws.shape[1] ** -0.2
    width = silverman.clamp(min=1e-9) if bandwidth is None else torch.full_like(sd, bandwidth)
    grid = ends[0] + torch.linspace(0, 1, points, dtype=draws.dtype)[:, None, None] * (ends[3] - ends[0])
    density = torch.stack([(-0.5 * ((g[:, None] - draws) / width[:, None]) ** 2).exp().sum(1) for g in grid])
    return torch.take_along_dim(grid, density.argmax(0, keepdim=True), 0).squeeze(0)


def marginal_density(sample: Array, grid: Array, low: float = -math.inf, high: float = math.inf) -> Array:
    """Gaussian kernel density of a one-dimensional `sample` on `grid`, reflected at its bounds and zero beyond them.

    The width is Silverman's, `0.9 min(sd, IQR / 1.34) n^(-1/5)`: it follows the column's own spread, as one number for
    columns of different units could not.
    """
    sample, grid = np.asarray(sample, dtype=np.float64), np.asarray(grid, dtype=np.float64)
    quartile = float(np.subtract(*np.percentile(sample, [75, 25]))) / 1.34
    width = max(0.9 * min(float(sample.std()), quartile) * len(sample) ** -0.2, 1e-3 * float(np.ptp(grid)))
    mirrored = np.concatenate([sample, *(2 * edge - sample for edge in (low, high) if math.isfinite(edge))])
    kernel = np.exp(-0.5 * ((grid[:, None] - mirrored) / width) ** 2).sum(1)
    return np.where((grid < low) | (grid > high), 0.0, kernel / (len(sample) * width * math.sqrt(2 * math.pi)))
