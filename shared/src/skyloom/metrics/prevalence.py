"""What a threshold gives in a survey, where positives are rare: purity, candidates, finds, with unknowns propagated."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from skyloom.errors import ConfigError
from skyloom.metrics.bootstrap import Estimate
from skyloom.metrics.operating_points import OperatingPoint
from skyloom.metrics.ranking import Ranking

__all__ = ["BudgetCurve", "Prevalence", "budget_curve", "expected_candidates", "purity", "survey_candidates", "survey_purity"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prevalence:
    """The share of positives in a named population, with a 95 per cent interval where one is known.

    It is a property of a selection, not of the sky: `population` says of which. Uncertainty is log-normal on either side.

    >>> Prevalence(1e-3, 5e-4, 3e-3, population="DESI clusters").draw(np.random.default_rng(0), 3).round(5)
    array([0.00107, 0.00095, 0.00143])
    """

    value: float
    low: float | None = None
    high: float | None = None
    population: str = ""

    def __post_init__(self) -> None:
        low, high = (self.value if bound is None else bound for bound in (self.low, self.high))
        if not 0 < low <= self.value <= high < 1:
            raise ConfigError(f"a prevalence is 0 < low <= value <= high < 1, not {low}, {self.value}, {high}.")
        if not self.population:
            raise ConfigError("a prevalence belongs to a population: name the selection, as population='DESI clusters'.")

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        """n draws: exp of a split normal in ln pi with median `value` whose 2.5 and 97.5 per cent points are `low`, `high`."""
        z, reach = rng.standard_normal(n), norm.ppf(0.975)
        down = math.log(self.value / (self.low or self.value)) / reach
        up = math.log((self.high or self.value) / self.value) / reach
        return np.minimum(self.value * np.exp(z * np.where(z < 0, down, up)), 1 - 1e-12)


def purity(tpr: ArrayLike, fpr: ArrayLike, prevalence: ArrayLike) -> Array:
    """pi TPR / (pi TPR + (1 - pi) FPR), Bayes' rule for a flagged row; NaN where nothing is flagged.

    >>> purity(0.9, 0.1, 1e-3).round(4), purity(0.6, 1e-5, [1e-3, 1e-4]).round(3)
    (np.float64(0.0089), array([0.984, 0.857]))
    """
    t, f, pi = (np.asarray(v, float) for v in (tpr, fpr, prevalence))
    flagged = pi * t + (1 - pi) * f
    return np.where(flagged > 0, pi * t / np.where(flagged > 0, flagged, 1), np.nan)


def expected_candidates(tpr: ArrayLike, fpr: ArrayLike, prevalence: ArrayLike, rows: float = 1e6) -> Array:
    """Flagged rows among `rows`: rows * (pi TPR + (1 - pi) FPR).

    >>> float(expected_candidates(0.95, 0.05, 1e-3))
    50900.0
    """
    t, f, pi = (np.asarray(v, float) for v in (tpr, fpr, prevalence))
    return rows * (pi * t + (1 - pi) * f)


def rate_draws(
    true: ArrayLike, positive: int, false: ArrayLike, negative: int, rng: np.random.Generator, draws: int
) -> tuple[Array, Array]:
    """TPR and FPR [draws, points] given counts: Beta(k + 1/2, n - k + 1/2), the Jeffreys posterior of a share.

    The same uniform quantile is used at all points of a draw, so that a curve of draws is as monotone as its counts are.
    """
    from scipy.special import betaincinv

    rates = []
    for k, n in ((np.atleast_1d(true), positive), (np.atleast_1d(false), negative)):
        quantile = rng.random((draws, 1))
        rates.append(betaincinv(k + 0.5, n - k + 0.5, quantile))
    return rates[0], rates[1]


def _prevalence_draws(prevalence: float | Prevalence, rng: np.random.Generator, draws: int) -> tuple[float, Array]:
    if isinstance(prevalence, Prevalence):
        return prevalence.value, prevalence.draw(rng, draws)
    if not 0 < prevalence < 1:
        raise ConfigError(f"a prevalence lies in (0, 1), not at {prevalence}.")
    return float(prevalence), np.full(draws, float(prevalence))


def survey_purity(
    point: OperatingPoint, prevalence: float | Prevalence, rng: np.random.Generator, *, draws: int = 4000, level: float = 0.95
) -> Estimate:
    """Purity at a survey's prevalence: the plug-in value of the counts, and an interval from the posteriors of TPR and FPR and
    the uncertainty of the prevalence. With no false positive the value is 1 and the interval says what that is worth."""
    value, pi = _prevalence_draws(prevalence, rng, draws)
    t, f = rate_draws(point.true_positives, point.n_positive, point.false_positives, point.n_negative, rng, draws)
    low, high = np.quantile(purity(t[:, 0], f[:, 0], pi), [(1 - level) / 2, (1 + level) / 2])
    centre = float(purity(float(point.tpr), float(point.fpr), value))
    return Estimate(centre, min(float(low), centre), max(float(high), centre))


def survey_candidates(
    point: OperatingPoint,
    prevalence: float | Prevalence,
    rows: float,
    rng: np.random.Generator,
    *,
    draws: int = 4000,
    level: float = 0.95,
) -> Estimate:
    """How many of `rows` (objects of a survey, or per square degree) are flagged, with the same propagation."""
    value, pi = _prevalence_draws(prevalence, rng, draws)
    t, f = rate_draws(point.true_positives, point.n_positive, point.false_positives, point.n_negative, rng, draws)
    low, high = np.quantile(expected_candidates(t[:, 0], f[:, 0], pi, rows), [(1 - level) / 2, (1 + level) / 2])
    centre = float(expected_candidates(float(point.tpr), float(point.fpr), value, rows))
    return Estimate(centre, min(float(low), centre), max(float(high), centre))


@dataclass(frozen=True)
class BudgetCurve:
    """What a survey gets at thresholds from the top; `..._low` and `..._high` bound it; per square degree where it says so."""

    threshold: Array
    candidates: Array  # per square degree
    found: Array  # true positives per square degree
    completeness: Array
    completeness_low: Array
    completeness_high: Array
    purity: Array
    purity_low: Array
    purity_high: Array
    false_positives: NDArray[np.int64]  # of the test sample behind each row: fewer than ten measure little

    def at_budget(self, per_square_degree: float) -> int:
        """The row of the lowest threshold that flags at most this many per square degree; -1 if none does."""
        affordable = np.flatnonzero(self.candidates <= per_square_degree)
        return int(affordable[-1]) if len(affordable) else -1


def budget_curve(
    ranking: Ranking,
    density: float,
    prevalence: float | Prevalence,
    rng: np.random.Generator,
    *,
    points: int = 200,
    draws: int = 1000,
    level: float = 0.95,
) -> BudgetCurve:
    """Purity, completeness and finds against candidates per square degree, the currency of visual inspection.

    `density` is the number of objects that are scored per square degree, `prevalence` the share of positives among them:
    candidates = density (pi TPR + (1 - pi) FPR), finds = density pi TPR. Up to `points` thresholds, evenly in the logarithm
    of candidates, all of them scores of positives. Completeness has its exact interval; that of purity
    propagates TPR, FPR and pi.
    """
    if ranking.one_class:
        raise ConfigError("a budget curve needs scores of positives and of negatives.")
    _, _, levels = ranking.precision_recall()
    true, false = ranking.flagged(levels)
    value, pi = _prevalence_draws(prevalence, rng, draws)
    expected = expected_candidates(true / ranking.n_positive, false / ranking.n_negative, value, density)
    if len(levels) > points:
        wanted = np.geomspace(expected[0], expected[-1], points)
        keep = np.unique(np.searchsorted(expected, wanted).clip(0, len(levels) - 1))
        levels, true, false, expected = levels[keep], true[keep], false[keep], expected[keep]
    from skyloom.metrics.proportions import clopper_pearson

    tail = [(1 - level) / 2, (1 + level) / 2]
    t, f = rate_draws(true, ranking.n_positive, false, ranking.n_negative, rng, draws)
    low, high = np.quantile(purity(t, f, pi[:, None]), tail, axis=0)
    completeness = true / ranking.n_positive
    pure = purity(completeness, false / ranking.n_negative, value)
    return BudgetCurve(
        levels,
        expected,
        density * value * completeness,
        completeness,
        *clopper_pearson(true, ranking.n_positive, level),
        pure,
        np.minimum(low, pure),
        np.maximum(high, pure),
        false,
    )
