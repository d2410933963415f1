"""One forecast from several: pools of probabilities and logits, and weights by inverse variance that notice contradiction.

Members first: logits z and their variances v, both [members, n]. Weights by variance presume that variances of different
members are comparable: calibrate the members (`fit_trust`) and scale their variances (`fit_variance_scale`) on held-out rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logsumexp
from scipy.stats import norm

from skyloom.calibration import Temperature
from skyloom.calibration.calibrator import fit_rows
from skyloom.errors import DataError
from skyloom.uncertainty.members import member_logits

__all__ = [
    "Fused",
    "fit_trust",
    "fit_variance_scale",
    "fixed_effects",
    "linear_pool",
    "log_pool",
    "logit_interval",
    "logit_normal_mean",
    "mixture_variance",
    "random_effects",
    "vote_share",
]

Array = NDArray[np.float64]


def _shares(weights: ArrayLike | None, members: int) -> Array:
    """Weights that are not negative and sum to one; equal ones by default."""
    w = np.ones(members) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (members,) or (w < 0).any() or not w.sum() > 0:
        raise DataError(f"there are {members} members: as many weights, none negative, not {w.tolist()}.")
    return w / w.sum()


def _binary(logits: ArrayLike) -> Array:
    z = member_logits(logits)
    if z.ndim != 2:
        raise DataError(f"pools are of two classes: logits [members, n], not {list(z.shape)}.")
    return z


def linear_pool(logits: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Logit of sum_m w_m sigma(z_m), the mixture of forecasts (Stone 1961): the safe way to average a deep ensemble.

    >>> z = np.log([[0.25], [4.0]])
    >>> expit(linear_pool(z)).round(3), expit(linear_pool(z, [3, 1])).round(3)
    (array([0.5]), array([0.35]))
    """
    z = _binary(logits)
    w = _shares(weights, len(z))[:, None]
    up, down = (logsumexp(-np.logaddexp(0, -side), axis=0, b=w) for side in (z, -z))
    return np.asarray(up - down)


def log_pool(logits: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """sum_m w_m z_m: sharper than the linear pool, and to be calibrated again (Genest and Zidek 1986)."""
    z = _binary(logits)
    return _shares(weights, len(z)) @ z


def vote_share(logits: ArrayLike, thresholds: ArrayLike = 0.0) -> Array:
    """The share of members whose logit reaches their threshold: for audits, not a probability."""
    z = _binary(logits)
    return (z >= np.broadcast_to(np.asarray(thresholds, np.float64), len(z))[:, None]).mean(axis=0)


@dataclass(frozen=True)
class Fused:
    """The fused logit [n], its variance, the members' weights [members, n], and the variance between members, tau^2 [n]."""

    logit: Array
    variance: Array
    weights: Array
    between: Array

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Bounds of the probability, made in logit space."""
        return logit_interval(self.logit, self.variance, level)

    def probability(self) -> Array:
        """The mean of sigma over the fused logit's normal."""
        return logit_normal_mean(self.logit, self.variance)


def _checked(logits: ArrayLike, variances: ArrayLike, floor: float) -> tuple[Array, Array]:
    z, v = member_logits(logits), np.asarray(variances, np.float64)
    if z.ndim != 2 or v.shape != z.shape or not ((v >= 0) & np.isfinite(v)).all():
        raise DataError(
            f"logits and variances are both [members, n], variances finite and not negative: {list(z.shape)}, {list(v.shape)}."
        )
    return z, np.maximum(v, floor)


def fixed_effects(logits: ArrayLike, variances: ArrayLike, *, floor: float = 1e-3, max_ratio: float = np.inf) -> Fused:
    """w_m = (1/v_m)/sum 1/v, V = 1/sum 1/v: right only if members err independently around one truth.

    Members that contradict each other leave V as it is; see `random_effects`. With `max_ratio` no member weighs more than
    that many times another; V is then that of the weights used, sum w_m^2 v_m.

    >>> f = fixed_effects([[5.0], [-5.0]], [[0.1], [0.1]])
    >>> float(f.logit[0]), round(float(f.variance[0]), 6)
    (0.0, 0.05)
    """
    z, v = _checked(logits, variances, floor)
    w = 1 / v
    w = np.maximum(w, w.max(axis=0) / max_ratio)
    w /= w.sum(axis=0)
    return Fused((w * z).sum(0), (w**2 * v).sum(0), w, np.zeros(z.shape[1]))


def random_effects(logits: ArrayLike, variances: ArrayLike, *, floor: float = 1e-3) -> Fused:
    """Members scatter around the truth by tau^2 beyond their variances (DerSimonian and Laird 1986):

    a_m = 1/v_m, Q = sum a_m (z_m - zbar)^2, tau^2 = max(0, (Q - (M - 1))/(sum a - sum a^2/sum a)),
    w_m ~ 1/(v_m + tau^2), V = 1/sum 1/(v_m + tau^2). With tau^2 = 0 it is `fixed_effects`.

    >>> f = random_effects([[5.0], [-5.0]], [[0.1], [0.1]])
    >>> round(float(f.between[0]), 1), round(float(f.variance[0]), 1)
    (49.9, 25.0)
    """
    z, v = _checked(logits, variances, floor)
    a = 1 / v
    total = a.sum(0)
    centre = (a * z).sum(0) / total
    q = (a * (z - centre) ** 2).sum(0)
    spare = total - (a**2).sum(0) / total
    between = np.where(spare > 0, np.maximum(0.0, q - (len(z) - 1)) / np.where(spare > 0, spare, 1), 0.0)
    w = 1 / (v + between)
    variance = 1 / w.sum(0)
    w *= variance
    return Fused((w * z).sum(0), variance, w, between)


def mixture_variance(logits: ArrayLike, variances: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """sum_m w_m (v_m + (z_m - zbar)^2), the variance of a draw from a randomly chosen member: the spread of predictions [n]."""
    z, v = _checked(logits, variances, 0.0)
    w = _shares(weights, len(z))[:, None] if weights is None or np.ndim(weights) == 1 else np.asarray(weights, np.float64)
    return (w * (v + (z - (w * z).sum(0)) ** 2)).sum(0)


def logit_interval(logits: ArrayLike, variance: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
    """sigma(z -+ k sqrt V): bounds are made in logit space and then transformed, so they lie in (0, 1) around sigma(z).

    >>> low, high = logit_interval(2.0, 0.5)
    >>> round(float(high - low), 3)
    0.318
    """
    z, reach = np.asarray(logits, np.float64), norm.ppf((1 + level) / 2) * np.sqrt(np.asarray(variance, np.float64))
    return expit(z - reach), expit(z + reach)


def logit_normal_mean(logits: ArrayLike, variance: ArrayLike) -> Array:
    """E sigma(z) for z ~ N(mu, v), as sigma(mu/sqrt(1 + pi v/8)) (MacKay 1992).

    >>> round(float(logit_normal_mean(2.0, 0.5)), 4)
    0.8616
    """
    return expit(np.asarray(logits, np.float64) / np.sqrt(1 + np.pi * np.asarray(variance, np.float64) / 8))


def fit_trust(logits: ArrayLike, labels: ArrayLike, **rows: Any) -> tuple[Temperature, ...]:
    """A temperature for each member on held-out rows: divide its logits by T and their variances by T^2 before fusing.

    It is positive by construction, and a member made twice as sharp gets twice the temperature, not more weight.
    """
    return tuple(Temperature.fit(z, labels, **rows) for z in member_logits(logits))


def fit_variance_scale(logits: ArrayLike, variances: ArrayLike, labels: ArrayLike, **rows: Any) -> float:
    """The factor s >= 0 that makes one member's variances mean what they say: of largest likelihood of the labels under
    sigma(z/sqrt(1 + pi s v/8)). Dropout rates set the scale of v, not knowledge; 0 says that v tells nothing."""
    z, y, w, _ = fit_rows(logits, labels, **rows)
    v = np.asarray(variances, np.float64)
    if v.shape != z.shape or not (v >= 0).all():
        raise DataError("one variance, not negative, for each logit.")

    def loss(log_scale: float) -> float:
        u = z / np.sqrt(1 + np.pi * np.exp(log_scale) * v / 8)
        return float(np.average(np.logaddexp(0, u) - y * u, weights=w))

    found = minimize_scalar(loss, bounds=(-12.0, 12.0), method="bounded", options={"xatol": 1e-6})
    return 0.0 if loss(-np.inf) <= found.fun else float(np.exp(found.x))
