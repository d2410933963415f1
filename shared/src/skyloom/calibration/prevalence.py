"""The share of positives in a field, from calibrated scores of unlabeled rows."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from skyloom.calibration.calibrator import shift_prevalence
from skyloom.errors import DataError
from skyloom.metrics.bootstrap import Estimate

__all__ = ["estimate_prevalence"]


def estimate_prevalence(
    logits: ArrayLike, source: float, rng: np.random.Generator | None = None, *, resamples: int = 100, level: float = 0.95
) -> Estimate:
    """The prevalence pi of unlabeled rows whose logits are calibrated at `source`, by maximum likelihood.

    pi <- mean over rows of p(x) shifted from `source` to pi, repeated: the EM of Saerens, Latinne and Decaestecker (2002); the
    likelihood is concave in pi, and its fixed point mean(p' - pi) = 0 is found by bisection in logit pi. It is only as good as
    the calibration: at small pi a small miscalibration of negatives outweighs all positives. With `rng`, a bootstrap interval.

    >>> rng = np.random.default_rng(0)
    >>> y = rng.random(20_000) < 0.02
    >>> z = rng.normal(np.where(y, 2.0, -2.0), 2.0)  # logits z, calibrated at one half
    >>> round(estimate_prevalence(z, 0.5), 2)
    0.02
    """
    z = np.asarray(logits, np.float64)
    if z.ndim != 1 or not len(z) or not np.isfinite(z).all():
        raise DataError("a prevalence is estimated from finite logits [n].")
    value = _solve(z, source)
    if rng is None:
        return Estimate(value)
    draws = [_solve(rng.choice(z, len(z)), source) for _ in range(resamples)]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high))


def _solve(z: np.ndarray, source: float) -> float:
    """d log-likelihood / d pi = 0. With r = p/(1 - p) (1 - s)/s, the likelihood ratio, it is mean[(r - 1)/(1 + pi (r - 1))]."""
    low, high = -40.0, 40.0
    for _ in range(100):
        middle = (low + high) / 2
        pi = 1 / (1 + math.exp(-middle))
        if float(np.mean(expit(shift_prevalence(z, source, min(max(pi, 1e-17), 1 - 1e-16))) - pi)) > 0:
            low = middle
        else:
            high = middle
    return 1 / (1 + math.exp(-(low + high) / 2))
