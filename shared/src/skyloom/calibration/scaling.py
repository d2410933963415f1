"""Parametric calibration in logit space: temperature, Platt, beta, vector scaling; each solved to its optimum."""

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, softmax

from skyloom.calibration.calibrator import Array, Calibrator, fit_rows
from skyloom.calibration.logistic import fit_logistic

__all__ = ["BetaCalibration", "Platt", "Temperature", "VectorScaling"]

RANGE = (1e-4, 1e4)  # of 1/T


def _temperature_slope(beta: float, z: Array, y: NDArray[np.int64], w: Array) -> float:
    """d NLL / d beta at logits beta z: mean of sum_k z_k p_k - z_y; increasing in beta."""
    if z.ndim == 1:
        return float(np.average(z * (expit(beta * z) - y), weights=w))
    expected = (z * softmax(beta * z, axis=1)).sum(axis=1)
    return float(np.average(expected - z[np.arange(len(y)), y], weights=w))


@dataclass(frozen=True)
class Temperature(Calibrator):
    """z' = z/T with the T > 0 of least negative log-likelihood (Guo et al. 2017, arXiv:1706.04599), for two classes or more.

    The likelihood is convex in beta = 1/T, so its one stationary point is found by bracketing in log beta over [1e-4, 1e4],
    whatever T is. Ranking and decisions at p = 1/2 do not change; other thresholds do.

    >>> t = Temperature.fit([-3, -1, 3, 1, -3, 3], [0, 0, 1, 1, 1, 0])
    >>> bool(t.temperature > 1), [round(float(p), 3) for p in t.probability([-3.0, 3.0])]
    (True, [0.421, 0.579])
    """

    temperature: float
    kind: ClassVar[str] = "temperature"

    @classmethod
    def fit(cls, logits: ArrayLike, labels: ArrayLike, **rows: Any) -> "Temperature":
        """To the optimum; at the end of the range, with a warning, where none is finite (separable rows, or logits that rank
        no better than chance)."""
        z, y, w, record = fit_rows(logits, labels, **rows)
        low, high = RANGE
        if _temperature_slope(high, z, y, w) <= 0:
            warnings.warn(f"the rows are separated by their logits: no temperature is small enough; 1/T stops at {high:g}.")
            return cls(1 / high, fitted_on=record)
        if _temperature_slope(low, z, y, w) >= 0:
            warnings.warn(
                f"the logits say less than nothing of the labels: no temperature is large enough; 1/T stops at {low:g}."
            )
            return cls(1 / low, fitted_on=record)
        root = brentq(lambda s: _temperature_slope(math.exp(s), z, y, w), math.log(low), math.log(high), xtol=1e-13, rtol=1e-14)
        return cls(math.exp(-float(root)), fitted_on=record)

    def __call__(self, logits: ArrayLike) -> Array:
        return np.asarray(logits, np.float64) / self.temperature

    def variance(self, variance: ArrayLike) -> Array:
        """The variance of a logit divided by T is v/T^2."""
        return np.asarray(variance, np.float64) / self.temperature**2


@dataclass(frozen=True)
class Platt(Calibrator):
    """z' = a z + b by maximum likelihood on Platt's targets, (N+ + 1)/(N+ + 2) and 1/(N- + 2), which keep it finite where the
    classes are separated (Platt 1999; Lin, Lin and Weng 2007).

    >>> p = Platt.fit([-2, -1, 0, 1, 2, 3], [0, 0, 1, 0, 1, 1])
    >>> round(p.slope, 2), round(float(p.probability([-2, -1, 0, 1, 2, 3]).sum()), 6)  # the mean of the targets
    (0.54, 3.0)
    """

    slope: float
    intercept: float
    kind: ClassVar[str] = "platt"

    @classmethod
    def fit(cls, logits: ArrayLike, labels: ArrayLike, **rows: Any) -> "Platt":
        z, y, w, record = fit_rows(logits, labels, **rows)
        positive, negative = w[y == 1].sum(), w[y == 0].sum()
        targets = np.where(y == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
        scale = z.std() or 1.0
        (a, b), _ = fit_logistic(np.column_stack([z / scale, np.ones(len(z))]), targets, weights=w)
        return cls(float(a / scale), float(b), fitted_on=record)

    def __call__(self, logits: ArrayLike) -> Array:
        return self.slope * np.asarray(logits, np.float64) + self.intercept


def _log_sigmoids(z: Array) -> tuple[Array, Array]:
    """ln p and -ln(1 - p) of logits, without cancellation."""
    return -np.logaddexp(0, -z), np.logaddexp(0, z)


@dataclass(frozen=True)
class BetaCalibration(Calibrator):
    """logit p' = a ln p - b ln(1 - p) + c with a, b >= 0 (Kull, Silva Filho and Flach 2017, AISTATS): right where the scores
    of each class follow a beta distribution. a = b = 1, c = 0 is the identity, and a = b = 1/T a temperature.

    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=4000)
    >>> m = BetaCalibration.fit(z, rng.random(4000) < expit(2 * z + 1))
    >>> bool(abs(m(0.5) - 2) < 0.2)
    True
    """

    a: float
    b: float
    c: float
    kind: ClassVar[str] = "beta"

    @classmethod
    def fit(cls, logits: ArrayLike, labels: ArrayLike, **rows: Any) -> "BetaCalibration":
        z, y, w, record = fit_rows(logits, labels, **rows)
        features = np.column_stack([*_log_sigmoids(z), np.ones(len(z))])
        scale = features.std(axis=0)
        scale[scale == 0] = 1.0
        found, _ = fit_logistic(features / scale, y, weights=w, lower=[0, 0, -np.inf])
        a, b, c = found / scale
        return cls(float(a), float(b), float(c), fitted_on=record)

    def __call__(self, logits: ArrayLike) -> Array:
        up, down = _log_sigmoids(np.asarray(logits, np.float64))
        return self.a * up + self.b * down + self.c


@dataclass(frozen=True)
class VectorScaling(Calibrator):
    """z'_k = a_k z_k + b_k for several classes, by maximum likelihood (Guo et al. 2017); b sums to 0.

    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(3000, 3)) * 3
    >>> y = [rng.choice(3, p=p) for p in softmax(z / 2 + [0.5, 0, -0.5], axis=1)]
    >>> [round(a, 1) for a in VectorScaling.fit(z, y).scale]
    [0.5, 0.5, 0.5]
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    kind: ClassVar[str] = "vector"

    @classmethod
    def fit(cls, logits: ArrayLike, labels: ArrayLike, **rows: Any) -> "VectorScaling":
        """Newton's method on the 2K parameters, which is exact: the likelihood is convex."""
        z, y, w, record = fit_rows(logits, labels, **rows)
        if z.ndim != 2:
            raise ValueError("vector scaling is for logits [n, classes]; two classes with one logit have Platt's.")
        n, k = z.shape
        theta = np.concatenate([np.ones(k), np.zeros(k)])
        one_hot, share = np.eye(k)[y], w[:, None] / w.sum()

        def objective(t: Array) -> float:
            scaled = z * t[:k] + t[k:]
            return float(share[:, 0] @ (np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(n), y]))

        value = objective(theta)
        for _ in range(100):
            p = softmax(z * theta[:k] + theta[k:], axis=1)
            weighted = share * (p - one_hot)
            gradient = np.concatenate([(weighted * z).sum(0), weighted.sum(0)])
            step = np.linalg.lstsq(_vector_hessian(z, p, share), -gradient, rcond=1e-12)[0]
            if -gradient @ step < 1e-16 * max(value, 1e-3):  # twice what is left to gain
                theta = theta + step
                break
            scale = 1.0
            while (fresh := objective(theta + scale * step)) > value and scale > 1e-10:
                scale /= 2
            theta, value = theta + scale * step, min(value, fresh)
        else:
            value = 0.0
        if value < 1e-8:
            warnings.warn("vector scaling found no finite optimum: a class is separated from the others.")
        offset = theta[k:] - theta[k:].mean()
        return cls(tuple(map(float, theta[:k])), tuple(map(float, offset)), fitted_on=record)

    def __call__(self, logits: ArrayLike) -> Array:
        return np.asarray(logits, np.float64) * np.asarray(self.scale) + np.asarray(self.offset)


def _vector_hessian(z: Array, p: Array, share: Array) -> Array:
    """sum_i share_i [diag(p) - p p^T] in the features (z_k, 1) of each class."""
    k = z.shape[1]
    parts = np.hstack([p * z, p])
    hessian = -(parts * share).T @ parts
    rows, weighted = np.arange(k), share * p
    hessian[rows, rows] += (weighted * z**2).sum(0)
    hessian[rows + k, rows + k] += weighted.sum(0)
    hessian[rows, rows + k] += (weighted * z).sum(0)
    hessian[rows + k, rows] += (weighted * z).sum(0)
    return hessian
