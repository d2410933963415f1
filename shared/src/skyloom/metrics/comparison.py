"""Is one model better than another on the same rows: DeLong for AUROC, paired bootstrap for any metric, McNemar."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2, norm

from skyloom.errors import DataError
from skyloom.metrics.bootstrap import Estimate
from skyloom.metrics.ranking import scores_and_labels

__all__ = ["Comparison", "auroc_delong", "delong", "mcnemar", "paired_bootstrap"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """first - second with its interval, and the two-sided p-value of no difference."""

    first: float
    second: float
    difference: Estimate
    p_value: float


def _placements(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> tuple[Array, Array]:
    """For each positive the share of negatives below it, and for each negative the share of positives above; ties half."""
    p, n = scores[labels], scores[~labels]
    sorted_p, sorted_n = np.sort(p), np.sort(n)
    above = (np.searchsorted(sorted_n, p, "left") + np.searchsorted(sorted_n, p, "right")) / (2 * len(n))
    below = 1 - (np.searchsorted(sorted_p, n, "left") + np.searchsorted(sorted_p, n, "right")) / (2 * len(p))
    return above, below


def _influence(scores: ArrayLike, labels: ArrayLike) -> tuple[float, Array]:
    """AUROC, and what each row adds to its error: (V - AUROC)/m of a positive, (V - AUROC)/n of a negative."""
    s, y = scores_and_labels(scores, labels)
    if y.all() or not y.any():
        raise DataError("AUROC needs rows of both classes.")
    above, below = _placements(s, y)
    area = float(above.mean())
    influence = np.empty(len(s))
    influence[y], influence[~y] = (above - area) / y.sum(), (below - area) / (~y).sum()
    return area, influence


def _variance(influence: Array, labels: NDArray[np.bool_], groups: ArrayLike | None) -> float:
    """DeLong's variance: S10/m + S01/n. With groups the rows of one are summed first (Obuchowski 1997)."""
    if groups is None:
        parts = (influence[labels], influence[~labels])
        return float(sum(len(v) / (len(v) - 1) * np.sum(v**2) if len(v) > 1 else math.nan for v in parts))
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(index, weights=influence)
    return float(len(sums) / (len(sums) - 1) * np.sum(sums**2)) if len(sums) > 1 else math.nan


def auroc_delong(scores: ArrayLike, labels: ArrayLike, *, groups: ArrayLike | None = None, level: float = 0.95) -> Estimate:
    """AUROC with DeLong's interval (DeLong, DeLong and Clarke-Pearson 1988), on the logit scale, so within [0, 1].

    var A = S10/m + S01/n, the variances of the placements V10 (of each positive among the negatives) and V01; computed by
    sorting (Sun and Xu 2014). `groups` makes rows of one cluster count as dependent (Obuchowski 1997, Biometrics 53, 567).

    >>> e = auroc_delong([1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 1, 1])
    >>> round(e, 4), round(e.low, 3), round(e.high, 3)
    (0.8889, 0.261, 0.995)
    """
    area, influence = _influence(scores, labels)
    spread = math.sqrt(_variance(influence, np.asarray(labels) > 0, groups))
    if not 0 < area < 1 or not math.isfinite(spread):
        return Estimate(area)
    reach = norm.ppf((1 + level) / 2) * spread / (area * (1 - area))
    centre = math.log(area / (1 - area))
    return Estimate(area, 1 / (1 + math.exp(reach - centre)), 1 / (1 + math.exp(-reach - centre)))


def delong(
    first: ArrayLike, second: ArrayLike, labels: ArrayLike, *, groups: ArrayLike | None = None, level: float = 0.95
) -> Comparison:
    """Two correlated AUROCs on the same rows: z = (A1 - A2)/sqrt(var(V_1 - V_2)), with the covariance that pairing gives.

    Equal rankings give difference 0 and p-value 1.
    """
    a, influence_a = _influence(first, labels)
    b, influence_b = _influence(second, labels)
    spread = math.sqrt(_variance(influence_a - influence_b, np.asarray(labels) > 0, groups))
    reach = norm.ppf((1 + level) / 2) * spread
    p = 2 * norm.sf(abs(a - b) / spread) if spread > 0 else (1.0 if a == b else 0.0)
    if math.isnan(spread):  # one row of a class tells nothing of how it scatters
        p = math.nan
    return Comparison(a, b, Estimate(a - b, a - b - reach, a - b + reach), float(p))


def paired_bootstrap(
    metric: Callable[[Array, Array], float],
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    rng: np.random.Generator,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> Comparison:
    """metric(first, labels) - metric(second, labels), both on the same resampled rows, or groups of rows.

    Percentile interval; p-value 2 min(share of differences <= 0, share >= 0), at least 1/(resamples + 1). Without groups rows
    are drawn within their class, so that no resample lacks one.
    """
    a, b, y = np.asarray(first, float), np.asarray(second, float), np.asarray(labels)
    if not len(a) == len(b) == len(y):
        raise DataError(f"both models are judged on the same rows: {len(a)}, {len(b)} scores and {len(y)} labels.")
    draw = _by_group(np.asarray(groups), rng) if groups is not None else _by_class(y, rng)
    differences = []
    for _ in range(resamples):
        rows = draw()
        differences.append(float(metric(a[rows], y[rows])) - float(metric(b[rows], y[rows])))
    found = np.array([d for d in differences if math.isfinite(d)])
    one, other = float(metric(a, y)), float(metric(b, y))
    if len(found) < 2:
        return Comparison(one, other, Estimate(one - other), math.nan)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    p = 2 * min((found <= 0).sum() + 1, (found >= 0).sum() + 1) / (len(found) + 1)
    return Comparison(one, other, Estimate(one - other, float(low), float(high)), float(min(1.0, p)))


def _by_class(labels: NDArray, rng: np.random.Generator) -> Callable[[], NDArray]:
    members = [np.flatnonzero(labels == value) for value in np.unique(labels)]
    return lambda: np.concatenate([rng.choice(rows, len(rows)) for rows in members])


def _by_group(groups: NDArray, rng: np.random.Generator) -> Callable[[], NDArray]:
    _, index = np.unique(groups, return_inverse=True)
    order = np.argsort(index, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(index[order])) + 1)
    return lambda: np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))])


def mcnemar(first_right: ArrayLike, second_right: ArrayLike) -> tuple[float, float]:
    """chi^2 = max(0, |b - c| - 1)^2/(b + c) and its p-value, where only one model got b, only the other c rows right.

    McNemar (1947), with the continuity correction of Edwards (1948).

    >>> only_first, only_second = [1] * 10 + [0] * 2, [0] * 10 + [1] * 2
    >>> [round(v, 3) for v in mcnemar(only_first, only_second)]
    [4.083, 0.043]
    """
    one, other = np.asarray(first_right, bool), np.asarray(second_right, bool)
    b, c = int((one & ~other).sum()), int((~one & other).sum())
    if b + c == 0:
        return 0.0, 1.0
    statistic = max(0.0, abs(b - c) - 1) ** 2 / (b + c)
    return statistic, float(chi2.sf(statistic, 1))
