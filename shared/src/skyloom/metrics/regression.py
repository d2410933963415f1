"""Errors of point estimates, for each column, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from skyloom.metrics.bootstrap import Estimate, bootstrap

__all__ = ["explained_variance", "nmad", "regression_scores"]


def explained_variance(truth: Tensor, estimate: Tensor) -> Tensor:
    """R2 `= 1 - sum (y - estimate)^2 / sum (y - mean y)^2` per column `[D]`; NaN where the truth does not vary.

    >>> y = torch.tensor([[1.0], [2.0], [3.0]])
    >>> explained_variance(y, y).item(), explained_variance(y, torch.full_like(y, 2.0)).item()
    (1.0, 0.0)
    """
    residual = (truth - estimate).square().sum(0)
    total = (truth - truth.mean(0)).square().sum(0)
    return torch.where(total > 0, 1 - residual / total, torch.full_like(total, torch.nan))


def nmad(error: Tensor) -> Tensor:
    """`1.4826 median |e - median e|` per column `[D]`: the deviation of a Gaussian, untouched by outliers."""
    return 1.4826 * (error - error.median(0).values).abs().median(0).values


def regression_scores(
    truth: Tensor,
    estimate: Tensor,
    names: Sequence[str],
    outlier: float | None = None,
    groups: Tensor | None = None,
    rng: np.random.Generator | None = None,
    resamples: int = 200,
) -> dict[str, Estimate]:
    """Of estimates `[B, D]`: `r2_*`, `bias_*`, `mae_*`, `rmse_*`, `nmad_*`, and with `outlier` the share beyond it,
    `outliers_*`.

    All in the units of the column, with 95 percent intervals over objects (or whole `groups`).
    """

    def score(of: Mapping[str, Tensor]) -> dict[str, float]:
        y, e = of["truth"], of["estimate"] - of["truth"]
        each = {
            "r2": explained_variance(y, of["estimate"]),
            "bias": e.mean(0),
            "mae": e.abs().mean(0),
            "rmse": e.square().mean(0).sqrt(),
            "nmad": nmad(e),
        }
        if outlier is not None:
            each["outliers"] = (e.abs() > outlier).to(e.dtype).mean(0)
        return {f"{key}_{name}": float(values[d]) for key, values in each.items() for d, name in enumerate(names)}

    columns = {"truth": truth.detach().cpu(), "estimate": estimate.detach().cpu()}
    return bootstrap(score, columns, groups, rng or np.random.default_rng(0), resamples)
