"""Guarantees without a model of the errors: prediction sets, miss rates and false discoveries, from exchangeability alone.

Everything here holds for new rows that are drawn as the calibration rows were. A survey with other seeing breaks it: calibrate
per survey (groups), and report the coverage there (`set_coverage`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax
from scipy.stats import beta

from skyloom.calibration.calibrator import Array, Calibrator, FittedOn, fit_rows
from skyloom.errors import ConfigError, DataError
from skyloom.metrics.bootstrap import Estimate
from skyloom.metrics.prevalence import purity
from skyloom.metrics.proportions import clopper_pearson, proportion
from skyloom.metrics.ranking import Ranking

__all__ = [
    "Conformal",
    "FalseDiscoveryRule",
    "conformal_p_values",
    "control_false_discoveries",
    "recall_threshold",
    "set_coverage",
]


def _quantile(scores: Array, miss_rate: float) -> float:
    """The ceil((n + 1)(1 - a))-th smallest nonconformity; infinite (all labels stay) where there are too few for a."""
    rank = math.ceil((len(scores) + 1) * (1 - miss_rate) * (1 - 1e-12))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


def _probabilities(logits: ArrayLike) -> Array:
    z = np.asarray(logits, np.float64)
    return np.column_stack([expit(-z), expit(z)]) if z.ndim == 1 else softmax(z, axis=1)


@dataclass(frozen=True)
class Conformal:
    """Prediction sets that hold the true label with probability 1 - `miss_rate` or more.

    Split conformal prediction (Vovk, Gammerman and Shafer 2005; Sadinle, Lei and Wasserman 2019): a label y is kept where
    1 - p_y(x) <= q, with q the ceil((n + 1)(1 - a))-th smallest of 1 - p_y over the calibration rows. Mondrian sets hold it
    within each category: each label (so that lenses, however rare, are missed at most a of the time) and each group (survey,
    field). A category with fewer than 1/a - 1 rows keeps all its labels: it cannot promise more.
    """

    miss_rate: float
    by_label: bool
    categories: tuple[str, ...]  # of groups; one empty name where there are none
    thresholds: tuple[tuple[float, ...], ...]  # [category][label]
    fitted_on: FittedOn
    kind: ClassVar[str] = "conformal"

    def __post_init__(self) -> None:
        mended = tuple(tuple(math.inf if q is None else float(q) for q in row) for row in self.thresholds)
        object.__setattr__(self, "thresholds", mended)

    @classmethod
    def fit(
        cls,
        logits: ArrayLike,
        labels: ArrayLike,
        miss_rate: float,
        *,
        by_label: bool = False,
        groups: ArrayLike | None = None,
        ids: ArrayLike | None = None,
        trained_on: ArrayLike | None = None,
    ) -> "Conformal":
        if not 0 < miss_rate < 1:
            raise ConfigError(f"a miss rate lies in (0, 1), not at {miss_rate}.")
        z, y, _, record = fit_rows(logits, labels, ids=ids, trained_on=trained_on)
        nonconformity = 1 - _probabilities(z)[np.arange(len(y)), y]
        group = np.full(len(y), "") if groups is None else np.asarray(groups).astype(str)
        if group.shape != y.shape:
            raise DataError(f"there are {len(y)} rows but groups of shape {list(group.shape)}.")
        names, classes = np.unique(group), len(record.counts)
        thresholds = []
        for name in names:
            here = [(group == name) & (y == k) if by_label else group == name for k in range(classes)]
            thresholds.append(tuple(_quantile(nonconformity[rows], miss_rate) for rows in here))
        return cls(miss_rate, by_label, tuple(map(str, names)), tuple(thresholds), record)

    def sets(self, logits: ArrayLike, groups: ArrayLike | None = None) -> NDArray[np.bool_]:
        """Which labels each row keeps [n, classes]; none (unlike anything seen), one, or several (undecided)."""
        p = _probabilities(logits)
        if (groups is None) != (self.categories == ("",)):
            raise DataError("give groups where the sets were fitted with groups, and only there.")
        group = np.full(len(p), "") if groups is None else np.asarray(groups).astype(str)
        if len(unknown := np.setdiff1d(group, self.categories)):
            raise DataError(
                f"no calibration rows are of group {unknown[0]!r}: nothing is promised there. Known: {self.categories}."
            )
        return 1 - p <= np.asarray(self.thresholds)[np.searchsorted(self.categories, group)]

    def to_json(self) -> dict[str, Any]:
        return Calibrator.to_json(self)  # type: ignore[arg-type]  # it has the same fields, but maps no logits


def set_coverage(sets: NDArray[np.bool_], labels: ArrayLike, groups: ArrayLike | None = None) -> dict[str, Estimate]:
    """The share of rows whose set holds their label, in all, for each label, and for each group, with exact intervals."""
    y = np.asarray(labels).astype(np.int64)
    held = sets[np.arange(len(y)), y]
    parts = {"all": np.full(len(y), True)} | {f"label {k}": y == k for k in range(sets.shape[1])}
    if groups is not None:
        parts |= {f"group {name}": np.asarray(groups) == name for name in np.unique(groups)}
    return {name: proportion(int(held[rows].sum()), int(rows.sum())) for name, rows in parts.items()}


def recall_threshold(positive_scores: ArrayLike, miss_rate: float) -> float:
    """The threshold below which a new positive falls with probability at most `miss_rate`: the k-th smallest score of n
    calibration positives, k = floor(a (n + 1)). It needs n >= 1/a - 1 (9, 19, 99 for 0.1, 0.05, 0.01), and is refused below.

    >>> recall_threshold([0.3, 0.9, 0.8, 0.7, 0.95, 0.6, 0.5, 0.99, 0.4], 0.1)
    0.3
    """
    scores = np.sort(np.asarray(positive_scores, np.float64))
    k = math.floor(miss_rate * (len(scores) + 1) * (1 + 1e-12))
    if k < 1:
        need = math.ceil(1 / miss_rate * (1 - 1e-12)) - 1
        raise DataError(f"a miss rate of {miss_rate:g} needs {need} calibration positives or more; there are {len(scores)}.")
    return float(scores[k - 1])


def conformal_p_values(reference: ArrayLike, scores: ArrayLike) -> Array:
    """(1 + #{reference >= score})/(n + 1): not below uniform for a score drawn as the reference was; an anomaly's is small.

    >>> [float(p) for p in conformal_p_values(np.arange(99), [98.5, 89.5, -1])]
    [0.01, 0.1, 1.0]
    """
    known = np.sort(np.asarray(reference, np.float64))
    above = len(known) - np.searchsorted(known, np.asarray(scores, np.float64), "left")
    return (1 + above) / (len(known) + 1)


@dataclass(frozen=True)
class FalseDiscoveryRule:
    """Flag score > threshold: with probability `confidence` (over calibration samples) the false-discovery rate at
    `prevalence` is at most `bound`, which is at most the target."""

    threshold: float
    target: float
    prevalence: float
    confidence: float
    bound: float
    completeness: Estimate  # with its lower bound at the same confidence
    false_positive_rate_bound: float


def control_false_discoveries(
    scores: ArrayLike,
    labels: ArrayLike,
    target: float,
    prevalence: float,
    *,
    confidence: float = 0.95,
    ranks: Sequence[int] | None = None,
) -> FalseDiscoveryRule:
    """The lowest threshold whose FDR = (1 - pi) F/(pi T + (1 - pi) F) is bounded by `target` at a survey's prevalence pi.

    Candidates are the k-th highest negatives for k = 1, 2, 3, 4, 6, 8, 12, ... (`ranks`), a list that does not look at the
    data. The FPR above the k-th of n is Beta(k, n - k + 1) whatever the distribution, so it is bounded by that quantile;
    the TPR above it by Clopper and Pearson, since positives are independent of negatives. Each bound of J candidates gets
    (1 - confidence)/2J, so all hold together and the best may be chosen (Bonferroni; Learn then test, Angelopoulos et al.
    2021, arXiv:2110.01052). Refused, with the number of negatives that would do, where no candidate meets the target.
    """
    if not 0 < target < 1 or not 0 < prevalence < 1 or not 0 < confidence < 1:
        raise ConfigError("target, prevalence and confidence lie in (0, 1).")
    r = Ranking(scores, labels)
    if r.one_class:
        raise DataError("false discoveries are controlled with scores of both classes.")
    n = r.n_negative
    steps = ranks or sorted({k for e in range(40) for k in (2**e, 3 * 2**e // 2)} - {0})
    k = np.array([rank for rank in steps if rank <= n])
    tail = (1 - confidence) / (2 * len(k))
    thresholds = r.negatives[n - k].astype(np.float64)
    found, _ = r.flagged(thresholds, strictly=True)
    worst_fpr = beta.ppf(1 - tail, k, n - k + 1)
    least_tpr = clopper_pearson(found, r.n_positive, 1 - 2 * tail)[0]
    bounds = 1 - purity(least_tpr, worst_fpr, prevalence)
    met = np.flatnonzero(bounds <= target)
    if not len(met):
        raise DataError(_shortfall(r, target, prevalence, tail, float(np.nanmin(bounds))))
    best = met[np.argmax(least_tpr[met])]
    completeness = Estimate(found[best] / r.n_positive, float(least_tpr[best]), 1.0)
    return FalseDiscoveryRule(
        float(thresholds[best]), target, prevalence, confidence, float(bounds[best]), completeness, float(worst_fpr[best])
    )


def _shortfall(r: Ranking, target: float, prevalence: float, tail: float, reached: float) -> str:
    """Why the target is out of reach: with a perfect ranking the FPR is bounded by -ln(tail)/n only."""
    need = math.ceil(-math.log(tail) * (1 - target) * (1 - prevalence) / (target * prevalence))
    return (
        f"no threshold has a false-discovery rate of {target:g} or less at a prevalence of {prevalence:g}: the best bound of "
        f"{r.n_negative:,} negatives and {r.n_positive:,} positives is {reached:.3f}. Even a perfect ranking needs about "
        f"{need:,} negatives."
    )
