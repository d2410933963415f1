"""What a set of posterior draws says of one object: pure functions on `draws` `[B, S, D]` and `truth` `[B, D]`."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["QUANTILES", "crps", "explained_variance", "interval_coverage", "marginal_density", "rank", "summary"]

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


def rank(draws: Tensor, truth: Tensor) -> Tensor:
    """Share of draws below the truth `[B, D]`, ties counting half: uniform on [0, 1] for a calibrated posterior.

    The rank statistic of simulation-based calibration (Talts et al. 2018, arXiv 1804.06788).
    """
    below = (draws < truth.unsqueeze(1)).to(draws.dtype).mean(1)
    equal = (draws == truth.unsqueeze(1)).to(draws.dtype).mean(1)
    return below + equal / 2


def crps(draws: Tensor, truth: Tensor) -> Tensor:
    """Continuous ranked probability score `E|Y - y| - E|Y - Y'| / 2` `[B, D]`, in the unit of the column; 0 is perfect.

    The second term is taken over pairs of different draws (the fair estimator of Ferro 2014, doi:10.1002/qj.2270), so that
    the score of a posterior does not depend on how many draws were taken.
    """
    n = draws.shape[1]
    ordered, _ = draws.sort(dim=1)
    weight = 2 * torch.arange(1, n + 1, dtype=draws.dtype, device=draws.device) - n - 1
    spread = (weight[:, None] * ordered).sum(1) / (n * (n - 1))
    return (draws - truth.unsqueeze(1)).abs().mean(1) - spread


def interval_coverage(ranks: Tensor, level: float) -> Tensor:
    """Share of objects whose truth lies in the central interval of probability `level`, per column `[D]`."""
    return ((ranks - 0.5).abs() <= level / 2).to(ranks.dtype).mean(0)


def explained_variance(truth: Tensor, estimate: Tensor) -> Tensor:
    """R2 `= 1 - sum (y - estimate)^2 / sum (y - mean y)^2` per column `[D]`; NaN where the truth does not vary."""
    residual = ((truth - estimate) ** 2).sum(0)
    total = ((truth - truth.mean(0)) ** 2).sum(0)
    return torch.where(total > 0, 1 - residual / total, torch.full_like(total, math.nan))


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
