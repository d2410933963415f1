"""Thresholds and what they give: chosen on validation, applied to test, with exact intervals and no interpolation."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from skyloom.errors import DataError
from skyloom.metrics.bootstrap import Estimate
from skyloom.metrics.proportions import clopper_pearson, proportion
from skyloom.metrics.ranking import Ranking

__all__ = [
    "OperatingPoint",
    "RateAtFPR",
    "best_f_beta",
    "f_beta",
    "operating_point",
    "threshold_for_precision",
    "threshold_for_recall",
    "tpr_at_fpr",
    "tpr_before",
    "youden",
]

RESOLVED = 10  # negatives that must lie beyond a threshold before its FPR is called measured


@dataclass(frozen=True)
class OperatingPoint:
    """Counts at one threshold (score >= threshold is flagged); rates are NaN where their class is absent.

    >>> p = OperatingPoint(0.5, true_positives=95, false_positives=9, n_positive=100, n_negative=100)
    >>> p.accuracy, round(p.precision, 4), float(p.tpr), round(p.f_beta(), 4), float(p.specificity), round(p.npv, 4)
    (0.93, 0.9135, 0.95, 0.9314, 0.91, 0.9479)
    """

    threshold: float  # NaN: no score flags anything
    true_positives: int
    false_positives: int
    n_positive: int
    n_negative: int

    @property
    def false_negatives(self) -> int:
        return self.n_positive - self.true_positives

    @property
    def true_negatives(self) -> int:
        return self.n_negative - self.false_positives

    @property
    def tpr(self) -> Estimate:
        """TP/P: completeness, recall, sensitivity; exact interval at this threshold."""
        return proportion(self.true_positives, self.n_positive)

    @property
    def fpr(self) -> Estimate:
        """FP/N with its exact interval."""
        return proportion(self.false_positives, self.n_negative)

    @property
    def specificity(self) -> Estimate:
        """TN/N with its exact interval."""
        return proportion(self.true_negatives, self.n_negative)

    @property
    def precision(self) -> float:
        """TP/(TP + FP) in this sample; at the prevalence of a survey see `skyloom.metrics.survey_purity`."""
        flagged = self.true_positives + self.false_positives
        return self.true_positives / flagged if flagged else math.nan

    @property
    def npv(self) -> float:
        """TN/(TN + FN): the share of unflagged rows that are negatives."""
        passed = self.true_negatives + self.false_negatives
        return self.true_negatives / passed if passed else math.nan

    @property
    def accuracy(self) -> float:
        rows = self.n_positive + self.n_negative
        return (self.true_positives + self.true_negatives) / rows if rows else math.nan

    def f_beta(self, beta2: float = 1.0) -> float:
        """`f_beta` of precision and recall in this sample."""
        return float(f_beta(self.precision, float(self.tpr), beta2))

    def to_json(self) -> dict[str, float | int | None]:
        """Plain values; a threshold that flags nothing is null."""
        return {**vars(self), "threshold": self.threshold if math.isfinite(self.threshold) else None}


def operating_point(ranking: Ranking, threshold: float) -> OperatingPoint:
    """The counts of this sample at a threshold, which was chosen elsewhere."""
    true, false = ranking.flagged(threshold)
    return OperatingPoint(float(threshold), int(true), int(false), ranking.n_positive, ranking.n_negative)


def tpr_before(ranking: Ranking, false_positives: int) -> OperatingPoint:
    """The point of `Ranking.tpr_before`: the lowest threshold with fewer than this many false positives."""
    return operating_point(ranking, ranking.threshold_before(false_positives))


@dataclass(frozen=True)
class RateAtFPR:
    """TPR at an FPR. Where it cannot be resolved, `tpr` is NaN, its bounds still hold, and `note` says what is missing."""

    fpr: float
    tpr: Estimate
    point: OperatingPoint
    resolved: bool
    note: str

    def __str__(self) -> str:
        if not self.resolved:
            return self.note
        return f"TPR {float(self.tpr):.3f} [{self.tpr.low:.3f}, {self.tpr.high:.3f}] at FPR {self.fpr:g}"


def tpr_at_fpr(ranking: Ranking, fpr: float, *, level: float = 0.95) -> RateAtFPR:
    """The largest TPR of a threshold with FP <= fpr * N, counted, not interpolated; with a distribution-free interval.

    The threshold at which the *true* FPR is `fpr` lies, with confidence 1 - a/2, between two order statistics of the
    negatives, because the number of negatives beyond it is Binomial(N, fpr); the TPRs at those two are bounded by Clopper and
    Pearson with a/4 each (Hilgers 1991, Methods Inf. Med. 30, 96). Both errors are in the interval, and it covers at least
    1 - a = `level`. Fewer than ten negatives beyond the threshold (N * fpr < 10) resolve nothing.

    >>> print(tpr_at_fpr(Ranking([0.1, 0.2, 0.8], [0, 0, 1]), 1e-4))
    FPR 0.0001 is not resolvable with 2 negatives: 100,000 are needed
    """
    if not 0 < fpr < 1:
        raise DataError(f"a false-positive rate lies in (0, 1), not at {fpr}; before the first false positive see `tpr0`.")
    n = ranking.n_negative
    allowed = math.floor(n * fpr * (1 + 1e-9))
    point = tpr_before(ranking, allowed + 1)
    tail = (1 - level) / 4
    few, many = int(binom.ppf(tail, n, fpr)) if n else 0, int(binom.ppf(1 - tail, n, fpr)) if n else 0
    strict = int(ranking.flagged(ranking.negatives[n - few])[0]) if few else 0
    loose = int(ranking.flagged(ranking.negatives[n - many - 1], strictly=True)[0]) if many < n else ranking.n_positive
    bound = 1 - 2 * tail
    low, high = clopper_pearson(strict, ranking.n_positive, bound)[0], clopper_pearson(loose, ranking.n_positive, bound)[1]
    resolved = bool(n * fpr * (1 + 1e-9) >= RESOLVED and ranking.n_positive)
    value = point.true_positives / point.n_positive if resolved else math.nan
    need = math.ceil(RESOLVED / fpr * (1 - 1e-9))
    note = "" if resolved else f"FPR {fpr:g} is not resolvable with {n:,} negatives: {need:,} are needed"
    if not ranking.n_positive:
        note = "there are no positives"
    return RateAtFPR(fpr, Estimate(value, float(low), float(high)), point, resolved, note)


def f_beta(precision: float | np.ndarray, recall: float | np.ndarray, beta2: float = 1.0) -> np.ndarray:
    """F_beta = (1 + b^2) P R / (b^2 P + R), given b^2 (van Rijsbergen 1979); 0 where nothing is found.

    The second lens-finding challenge weighs purity a thousand times: b^2 = 0.001.

    >>> round(float(f_beta(0.5, 1.0)), 4), round(float(f_beta(0.5, 1.0, 0.001)), 4)
    (0.6667, 0.5002)
    """
    p, r = np.nan_to_num(np.asarray(precision, float)), np.nan_to_num(np.asarray(recall, float))
    below = beta2 * p + r
    return np.where(below > 0, (1 + beta2) * p * r / np.where(below > 0, below, 1), 0.0)


def best_f_beta(ranking: Ranking, beta2: float = 0.001, *, prevalence: float | None = None) -> tuple[float, OperatingPoint]:
    """The largest F_beta over thresholds, and where it lies; precision in this sample, or at the `prevalence` of a survey."""
    if ranking.one_class:
        return math.nan, operating_point(ranking, math.nan)
    precision, recall, threshold = ranking.precision_recall(prevalence)
    values = f_beta(precision, recall, beta2)
    best = int(np.argmax(values))
    return float(values[best]), operating_point(ranking, threshold[best])


def threshold_for_recall(ranking: Ranking, recall: float) -> OperatingPoint:
    """The highest threshold whose recall reaches `recall`; the returned recall is never below it."""
    if not ranking.n_positive:
        return operating_point(ranking, math.nan)
    needed = max(1, math.ceil(recall * ranking.n_positive * (1 - 1e-12)))
    if needed > ranking.n_positive:
        return operating_point(ranking, math.nan)
    return operating_point(ranking, float(ranking.positives[-needed]))


def threshold_for_precision(ranking: Ranking, precision: float, *, prevalence: float | None = None) -> OperatingPoint:
    """The threshold of largest recall whose precision reaches `precision`; a NaN threshold if none does.

    Precision in this sample, or at the `prevalence` of a survey.
    """
    if ranking.one_class:
        return operating_point(ranking, math.nan)
    reached, _, threshold = ranking.precision_recall(prevalence)
    good = np.flatnonzero(reached >= precision)
    return operating_point(ranking, threshold[good[-1]] if len(good) else math.nan)


def youden(ranking: Ranking) -> OperatingPoint:
    """The threshold of largest TPR - FPR (Youden 1950): a score of a positive, never infinite."""
    if ranking.one_class:
        return operating_point(ranking, math.nan)
    _, recall, threshold = ranking.precision_recall()
    _, false = ranking.flagged(threshold)
    return operating_point(ranking, threshold[int(np.argmax(recall - false / ranking.n_negative))])
