"""Logistic regression of few parameters to its optimum, with bounds: what Platt, beta calibration and stacking are made of."""

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import lsq_linear
from scipy.special import expit

__all__ = ["fit_logistic"]

Array = NDArray[np.float64]


def fit_logistic(
    features: ArrayLike,
    targets: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    lower: ArrayLike | None = None,
    l2: ArrayLike = 0.0,
    centre: ArrayLike = 0.0,
    iterations: int = 200,
) -> tuple[Array, Array]:
    """argmin over w >= lower of mean_i omega_i [softplus(x_i w) - t_i x_i w] + sum_j l2_j (w_j - centre_j)^2 / 2.

    Returns w and the Hessian there (per row). Newton's method with step halving; with bounds, each step minimizes the quadratic
    model within them. The objective is convex; targets in [0, 1] may be soft. An intercept is a column of ones. Where the
    classes are separable the optimum is at infinity: it stops with a warning.

    >>> w, _ = fit_logistic([[1.0], [1.0], [1.0], [1.0]], [1, 0, 0, 0])
    >>> round(float(w[0]), 6)  # the logit of 1/4
    -1.098612
    """
    x, t = np.asarray(features, np.float64), np.asarray(targets, np.float64)
    omega = np.ones(len(t)) if weights is None else np.asarray(weights, np.float64)
    omega = omega / omega.sum()
    d = x.shape[1]
    bound = np.full(d, -np.inf) if lower is None else np.broadcast_to(np.asarray(lower, np.float64), d)
    ridge, middle = (np.broadcast_to(np.asarray(v, np.float64), d) for v in (l2, centre))

    def objective(w: Array) -> float:
        z = x @ w
        return float(omega @ (np.logaddexp(0, z) - t * z) + 0.5 * ridge @ (w - middle) ** 2)

    w = np.maximum(np.zeros(d), bound)
    value = objective(w)
    for _ in range(iterations):
        p = expit(x @ w)
        gradient = x.T @ (omega * (p - t)) + ridge * (w - middle)
        hessian = (x.T * (omega * p * (1 - p))) @ x + np.diag(ridge)
        step = _step(hessian, gradient, bound - w)
        if -gradient @ step < 1e-16 * max(value, 1e-3):  # twice what is left to gain
            return np.maximum(w + step, bound), hessian
        scale = 1.0
        while (fresh := objective(new := np.maximum(w + scale * step, bound))) > value and scale > 1e-10:
            scale /= 2
        w, value = new, fresh
        if value < 1e-8 or np.abs(x @ w).max() > 1e4:
            break
    warnings.warn("the classes are separated by the features: the logistic fit has no finite optimum.", stacklevel=3)
    return w, hessian


def _step(hessian: Array, gradient: Array, lower: Array) -> Array:
    """argmin over s >= lower of g s + s H s / 2."""
    if not np.isfinite(lower).any():
        return np.asarray(np.linalg.lstsq(hessian, -gradient, rcond=1e-14)[0], np.float64)
    size, turn = np.linalg.eigh(hessian)
    root = np.sqrt(np.maximum(size, 1e-14 * size.max()))[:, None] * turn.T  # H = root^T root
    target = -np.linalg.lstsq(root.T, gradient, rcond=None)[0]
    return np.asarray(lsq_linear(root, target, (lower, np.inf), method="bvls", tol=1e-14).x, np.float64)
