"""What a flow must beat: a Gaussian population, a linear-Gaussian regression, and the lookback time alone.

All are fitted on the training split, in the scaled units of the flow, so that their likelihoods are comparable with its own:

    population:       z ~ N(mean, covariance)                     knows nothing of the cluster
    linear Gaussian:  z ~ N(coefficients^T w + intercept, covariance)    the best straight line with constant scatter
    lookback only:    T = intercept + slope * lookback            most of T is the epoch at which one looks
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["gaussian_population", "linear_gaussian", "straight_line"]

Array = NDArray[np.float64]


def linear_gaussian(context: Array, target: Array) -> dict[str, Any]:
    """Least squares of `target` `[N, D]` on `context` `[N, C]`, and the covariance of the residuals."""
    design = np.column_stack([context, np.ones(len(context))])
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    residual = target - design @ solution
    freedom = max(len(target) - design.shape[1], 1)
    return {
        "coefficients": solution[:-1].tolist(),
        "intercept": solution[-1].tolist(),
        "covariance": (residual.T @ residual / freedom).tolist(),
    }


def gaussian_population(context: Array, target: Array) -> dict[str, Any]:
    """The same shape of answer with no slope: mean and covariance of the targets, whatever the context."""
    return {
        "coefficients": np.zeros((context.shape[1], target.shape[1])).tolist(),
        "intercept": target.mean(0).tolist(),
        "covariance": np.cov(target, rowvar=False).tolist(),
    }


def straight_line(x: Array, y: Array) -> dict[str, float]:
    """Least-squares `y = intercept + slope x`.

    >>> line = straight_line(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0]))
    >>> round(line["slope"], 6), round(line["intercept"], 6)
    (2.0, 1.0)
    """
    slope, intercept = np.polyfit(x, y, 1)
    return {"slope": float(slope), "intercept": float(intercept)}
