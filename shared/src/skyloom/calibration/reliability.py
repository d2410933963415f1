"""Do probabilities mean what they say? Tables with intervals, calibration errors, the Brier score and its parts.

Probabilities are of the positive class [n], or of every class [n, classes] where a function says so; labels are 0 or 1, or
0 ... classes - 1. Bins are (low, high], the first one closed, so that p = 0 has a bin. At a prevalence of 1e-3 the error of
equal-width bins is that of the first bin alone, and a constant forecast of the base rate has none: read the skill score, the
slope and the error at the top beside it (`calibration_scores`).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from scipy.stats import norm

from skyloom.calibration.logistic import fit_logistic
from skyloom.errors import ConfigError, DataError, nearest
from skyloom.metrics.bootstrap import Estimate
from skyloom.metrics.proportions import wilson

__all__ = [
    "Bins",
    "BrierParts",
    "ReliabilityTable",
    "adaptive_error",
    "brier_parts",
    "brier_score",
    "calibration_error",
    "calibration_scores",
    "classwise_error",
    "debiased_error",
    "error_at_the_top",
    "maximum_error",
    "negative_log_likelihood",
    "reliability_table",
    "slope_and_intercept",
    "top_label_error",
]

Array = NDArray[np.float64]
Bins = Literal["equal_width", "equal_mass"]


def forecasts(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    """Checked: p in [0, 1] and y in {0, 1}, both [n]."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    if p.ndim != 1 or p.shape != y.shape or not len(p):
        raise DataError(f"probabilities and labels must both be [n], not {list(p.shape)} and {list(y.shape)}.")
    if not ((p >= 0) & (p <= 1)).all():
        bad = np.flatnonzero(~((p >= 0) & (p <= 1)))[0]
        raise DataError(f"probabilities lie in [0, 1]; row {bad} has {p[bad]}. Logits go through a sigmoid first.")
    if not np.isin(y, (0, 1)).all():
        raise DataError(f"labels are 0 or 1, not {y[~np.isin(y, (0, 1))][0]:g}.")
    return p, y


def classes(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Array, NDArray[np.int64]]:
    """Checked: rows [n, classes] that sum to one, and labels 0 ... classes - 1."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels)
    if p.ndim != 2 or y.shape != p.shape[:1] or not len(p):
        raise DataError(f"probabilities are [n, classes] and labels [n], not {list(p.shape)} and {list(y.shape)}.")
    if not ((p >= 0).all() and np.allclose(p.sum(axis=1), 1, atol=1e-5)):
        raise DataError("the probabilities of a row are not negative and sum to one.")
    if not np.isin(y, np.arange(p.shape[1])).all():
        raise DataError(f"labels are 0 ... {p.shape[1] - 1}.")
    return p, y.astype(np.int64)


def _edges(p: Array, bins: int, scheme: Bins) -> Array:
    if scheme == "equal_width":
        return np.linspace(0, 1, bins + 1)
    if scheme == "equal_mass":
        return np.quantile(p, np.linspace(0, 1, bins + 1))
    raise ConfigError(f"there are no bins {scheme!r}.{nearest(str(scheme), ('equal_width', 'equal_mass'))}")


@dataclass(frozen=True)
class ReliabilityTable:
    """Of each bin: edges, rows, mean forecast, share of positives, and its Wilson interval; NaN where a bin is empty."""

    low: Array
    high: Array
    n: NDArray[np.int64]
    forecast: Array
    frequency: Array
    frequency_low: Array
    frequency_high: Array

    @property
    def gap(self) -> Array:
        return self.frequency - self.forecast


def _binned(p: Array, y: Array, edges: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], Array, Array]:
    """The bin of each row, and rows, sum of p and sum of y of each bin."""
    index = np.searchsorted(edges[1:-1], p, "left").astype(np.int64)
    size = len(edges) - 1
    counts = np.bincount(index, minlength=size).astype(np.int64)
    return index, counts, np.bincount(index, p, size).astype(np.float64), np.bincount(index, y, size).astype(np.float64)


def reliability_table(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 15, scheme: Bins = "equal_width", *, level: float = 0.95
) -> ReliabilityTable:
    """Forecast against frequency in bins of equal width or of equal mass (equal forecasts are never parted).

    >>> t = reliability_table([0.0, 0.2, 0.9, 0.9], [0, 0, 1, 0], bins=2)
    >>> t.n.tolist(), t.forecast.tolist(), t.frequency.tolist()
    ([2, 2], [0.1, 0.9], [0.0, 0.5])
    """
    p, y = forecasts(probabilities, labels)
    edges = _edges(p, bins, scheme)
    _, n, total, positive = _binned(p, y, edges)
    with np.errstate(invalid="ignore"):
        forecast, frequency = total / n, positive / n
    return ReliabilityTable(edges[:-1], edges[1:], n, forecast, frequency, *wilson(positive, n, level))


def calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15, scheme: Bins = "equal_width") -> float:
    """ECE = sum over bins of n_b/N |mean y - mean p| (Naeini, Cooper and Hauskrecht 2015), of the positive class.

    It is biased upwards, by about sqrt(bins / N): see `debiased_error`.

    >>> round(calibration_error([0.9] * 10, [1] * 5 + [0] * 5), 12)
    0.4
    """
    p, y = forecasts(probabilities, labels)
    _, _, total, positive = _binned(p, y, _edges(p, bins, scheme))
    return float(np.abs(positive - total).sum() / len(p))


def maximum_error(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 15, scheme: Bins = "equal_width", *, at_least: int = 1
) -> float:
    """MCE = the largest gap of a bin that holds `at_least` rows; NaN if none does. With few rows a bin it is noise."""
    p, y = forecasts(probabilities, labels)
    _, n, total, positive = _binned(p, y, _edges(p, bins, scheme))
    enough = n >= max(at_least, 1)
    return float((np.abs(positive - total)[enough] / n[enough]).max(initial=-math.inf)) if enough.any() else math.nan


def debiased_error(
    probabilities: ArrayLike,
    labels: ArrayLike,
    rng: np.random.Generator,
    bins: int = 15,
    scheme: Bins = "equal_mass",
    *,
    resamples: int = 200,
) -> float:
    """ECE less the ECE that labels drawn from the forecasts themselves would have, on average: near 0, and of either sign, for
    calibrated forecasts (Broecker 2012; Ferro and Fricker 2012)."""
    p, y = forecasts(probabilities, labels)
    index, _, total, positive = _binned(p, y, _edges(p, bins, scheme))
    null = [
        np.abs(np.bincount(index[rng.random(len(p)) < p], minlength=len(total)) - total).sum() / len(p)
        for _ in range(resamples)
    ]
    return float(np.abs(positive - total).sum() / len(p) - np.mean(null))


def top_label_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15, scheme: Bins = "equal_width") -> float:
    """ECE of the largest probability of each row [n, classes] against whether that class is the right one (Guo et al. 2017)."""
    p, y = classes(probabilities, labels)
    return calibration_error(np.minimum(p.max(axis=1), 1.0), p.argmax(axis=1) == y, bins, scheme)


def classwise_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15, scheme: Bins = "equal_width") -> float:
    """The mean over classes of the ECE of that class's probability (Kull et al. 2019, arXiv:1910.12656)."""
    p, y = classes(probabilities, labels)
    return float(np.mean([calibration_error(np.minimum(p[:, k], 1.0), y == k, bins, scheme) for k in range(p.shape[1])]))


def adaptive_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """ACE: the mean over classes and over bins of equal mass of |mean y - mean p| (Nixon et al. 2019, arXiv:1904.01685).

    Probabilities [n] of two classes count for both, whose errors are the same.
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim == 1:
        table = reliability_table(p, labels, bins, "equal_mass")
        return float(np.nanmean(np.abs(table.gap)))
    q, y = classes(p, labels)
    return float(np.mean([adaptive_error(np.minimum(q[:, k], 1.0), y == k, bins) for k in range(q.shape[1])]))


def error_at_the_top(probabilities: ArrayLike, labels: ArrayLike, fraction: float = 0.01, bins: int = 5) -> float:
    """ECE in bins of equal mass among the `fraction` of rows of largest forecast (ties included), where candidates are."""
    p, y = forecasts(probabilities, labels)
    cut = np.partition(p, -max(1, math.ceil(fraction * len(p))))[-max(1, math.ceil(fraction * len(p)))]
    return calibration_error(p[p >= cut], y[p >= cut], bins, "equal_mass")


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """mean (p - y)^2 (Brier 1950)."""
    p, y = forecasts(probabilities, labels)
    return float(np.mean((p - y) ** 2))


@dataclass(frozen=True)
class BrierParts:
    """score = reliability - resolution + uncertainty + within, exactly; `within` is 0 where forecasts are constant in a bin."""

    score: float
    reliability: float  # sum n_b/N (mean p - mean y)^2: small is good
    resolution: float  # sum n_b/N (mean y - base rate)^2: large is good
    uncertainty: float  # base rate (1 - base rate)
    within: float  # variance of p within bins less twice its covariance with y

    @property
    def skill(self) -> float:
        """1 - score/uncertainty: 0 for a constant forecast of the base rate, NaN with one class."""
        return 1 - self.score / self.uncertainty if self.uncertainty > 0 else math.nan


def brier_parts(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15, scheme: Bins = "equal_width") -> BrierParts:
    """The decomposition of Murphy (1973), with the two terms within bins that make it exact (Stephenson, Coelho and Jolliffe
    2008, Weather Forecast. 23, 752).

    >>> b = brier_parts([0.2, 0.2, 0.8, 0.8], [0, 0, 1, 0])
    >>> abs(b.reliability - b.resolution + b.uncertainty - b.score) < 1e-15
    True
    """
    p, y = forecasts(probabilities, labels)
    index, n, total, positive = _binned(p, y, _edges(p, bins, scheme))
    full = n > 0
    share, forecast, frequency = n[full] / len(p), total[full] / n[full], positive[full] / n[full]
    base = y.mean()
    spread_p = p - (total / np.maximum(n, 1))[index]
    spread_y = y - (positive / np.maximum(n, 1))[index]
    within = float(np.mean(spread_p**2) - 2 * np.mean(spread_p * spread_y))
    return BrierParts(
        float(np.mean((p - y) ** 2)),
        float(share @ (forecast - frequency) ** 2),
        float(share @ (frequency - base) ** 2),
        float(base * (1 - base)),
        within,
    )


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
    """mean of softplus(z) - y z, the cross-entropy of logits, finite at any of them."""
    z, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    if z.ndim != 1 or z.shape != y.shape:
        raise DataError(f"logits and labels must both be [n], not {list(z.shape)} and {list(y.shape)}.")
    return float(np.mean(np.logaddexp(0, z) - y * z))


def slope_and_intercept(logits: ArrayLike, labels: ArrayLike, *, level: float = 0.95) -> tuple[Estimate, Estimate]:
    """Slope and intercept of logit P(y) = a z + b by maximum likelihood, with Wald intervals (Cox 1958): (1, 0) is calibrated.

    A slope below 1 is overconfidence; an intercept off 0 at slope 1 is a wrong prevalence. NaN with one class.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    if len(np.unique(y)) < 2 or np.ptp(z) == 0:
        return Estimate(math.nan), Estimate(math.nan)
    scale = z.std()
    w, hessian = fit_logistic(np.column_stack([z / scale, np.ones(len(z))]), y)
    reach = norm.ppf((1 + level) / 2) * np.sqrt(np.diag(np.linalg.pinv(hessian * len(z))))
    a, b = (Estimate(v, v - r, v + r) for v, r in zip(w, reach, strict=True))
    return Estimate(a / scale, a.low / scale, a.high / scale), b


def calibration_scores(logits: ArrayLike, labels: ArrayLike, bins: int = 15) -> dict[str, float]:
    """What a task reports of calibration, from logits [n]: proper scores, errors, and what a constant forecast cannot game.

    `expected_over_found` is sum p / sum y (calibration in the large), `brier_skill` is 0 for a constant base rate.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    p = expit(z)
    slope, intercept = slope_and_intercept(z, y)
    parts = brier_parts(p, y, bins, "equal_mass")
    return {
        "nll": negative_log_likelihood(z, y),
        "brier": parts.score,
        "brier_skill": parts.skill,
        "ece": calibration_error(p, y, bins),
        "ece_equal_mass": calibration_error(p, y, bins, "equal_mass"),
        "ece_top_percent": error_at_the_top(p, y),
        "mce": maximum_error(p, y, bins, at_least=10),
        "slope": float(slope),
        "intercept": float(intercept),
        "expected_over_found": float(p.sum() / y.sum()) if y.any() else math.nan,
    }
