"""What a linear readout of vectors explains of numbers, on clusters that it was not fitted to."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["held_out_r2"]


def held_out_r2(vectors: Tensor, targets: Tensor, clusters: Tensor, folds: int = 5, ridge: float = 0.03) -> Tensor:
    """Share of the variance of each of `targets` `[N, T]` that a ridge regression on `vectors` `[N, D]` explains, each fifth of
    the clusters by a fit to the others; 0 for vectors that say nothing (a little below, by overfitting), 1 for all.

    Arguments:
        ridge: Penalty, in units of the mean variance of the vectors times the number of rows.

    >>> g = torch.Generator().manual_seed(0)
    >>> x = torch.randn(500, 3, generator=g)
    >>> y = torch.stack([x.sum(1), torch.randn(500, generator=g)], 1)
    >>> r2 = held_out_r2(x, y, torch.arange(500), ridge=1e-6)
    >>> bool(r2[0] > 0.999), bool(r2[1].abs() < 0.05)
    (True, True)
    """
    x, y = vectors.double(), targets.double()
    label = torch.unique(clusters, return_inverse=True)[1]
    residual = torch.empty_like(y)
    for fold in range(folds):
        held = label % folds == fold
        centre, middle = x[~held].mean(0), y[~held].mean(0)
        z = x[~held] - centre
        gram = z.T @ z
        gram.diagonal().add_(ridge * gram.diagonal().mean() + 1e-12)
        weights = torch.linalg.solve(gram, z.T @ (y[~held] - middle))
        residual[held] = y[held] - middle - (x[held] - centre) @ weights
    return 1 - residual.square().sum(0) / (y - y.mean(0)).square().sum(0)
