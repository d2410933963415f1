"""Shares with exact or good intervals: k successes of n."""

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, norm

from skyloom.errors import ConfigError, nearest
from skyloom.metrics.bootstrap import Estimate

__all__ = ["clopper_pearson", "proportion", "wilson"]

Array = NDArray[np.float64]


def clopper_pearson(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
    """The exact interval of a share (Clopper and Pearson 1934): never covers less often than `level`.

    low = Beta^-1(a/2; k, n - k + 1), high = Beta^-1(1 - a/2; k + 1, n - k), a = 1 - level; 0 and 1 at the ends.
    NaN where there are no trials.

    >>> low, high = clopper_pearson(0, 100)
    >>> float(low), round(float(high), 4)  # the "rule of three"
    (0.0, 0.0362)
    """
    k, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(trials, float))
    tail = (1 - level) / 2
    with np.errstate(invalid="ignore"):
        low = np.where(k > 0, beta.ppf(tail, k, n - k + 1), 0.0)
        high = np.where(k < n, beta.ppf(1 - tail, k + 1, n - k), 1.0)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def wilson(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
    """The score interval (Wilson 1927): covers `level` on average, and stays within [0, 1].

    (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n), p = k/n. NaN where there are no trials.

    >>> low, high = wilson(8, 10)
    >>> round(float(low), 4), round(float(high), 4)
    (0.4902, 0.9433)
    """
    k, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(trials, float))
    z = norm.ppf((1 + level) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / n
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return np.where(n > 0, np.maximum(centre - half, 0.0), np.nan), np.where(n > 0, np.minimum(centre + half, 1.0), np.nan)


def proportion(successes: int, trials: int, *, level: float = 0.95, method: Literal["exact", "wilson"] = "exact") -> Estimate:
    """k/n with its interval; NaN without trials.

    >>> round(proportion(45, 50).low, 4), proportion(0, 0)
    (0.7819, nan)
    """
    methods = {"exact": clopper_pearson, "wilson": wilson}
    if method not in methods:
        raise ConfigError(f"there is no interval {method!r}.{nearest(method, methods)}")
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials cannot be.")
    low, high = methods[method](successes, trials, level)
    return Estimate(successes / trials if trials else math.nan, float(low), float(high))
