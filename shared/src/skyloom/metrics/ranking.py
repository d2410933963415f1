"""How well a score ranks positives above negatives: sorted once, read many times, ties as they are.

A threshold t flags the rows with score >= t. All of the metrics are of counts, TP(t) and FP(t), at the scores that occur; two
rows with the same score are never told apart, so that no metric depends on the order of the rows.
"""

from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.errors import DataError

__all__ = ["Ranking"]

Array = NDArray[np.float64]
Counts = NDArray[np.int64]


def scores_and_labels(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Both as arrays [n]: scores finite or infinite but not NaN, labels 0 or 1; anything else is refused by name."""
    s, y = np.asarray(scores), np.asarray(labels)
    if s.ndim != 1 or s.shape != y.shape:
        raise DataError(f"scores and labels must both be [n], not {list(s.shape)} and {list(y.shape)}: flatten them first.")
    if not np.issubdtype(s.dtype, np.floating) or s.dtype == np.float16:
        s = s.astype(np.float64)
    if len(bad := np.flatnonzero(np.isnan(s))):
        raise DataError(f"{len(bad)} of {len(s)} scores are NaN, the first in row {bad[0]}: leave them out, or mend them.")
    if y.dtype != np.bool_:
        if not np.isin(y, (0, 1)).all():
            raise DataError(f"labels are 0 or 1, not {y[~np.isin(y, (0, 1))][0]}.")
        y = y.astype(np.bool_)
    return s, y


class Ranking:
    """Scores of positives and of negatives, each sorted: 8 bytes a row are all that is kept.

    >>> r = Ranking([0.1, 0.2, 0.3, 0.7, 0.99], [0, 0, 1, 1, 0])
    >>> r.tpr0, round(r.auroc, 4), round(r.average_precision, 4)
    (0.0, 0.6667, 0.5833)
    """

    positives: NDArray[np.floating]  # ascending
    negatives: NDArray[np.floating]  # ascending

    def __init__(self, scores: ArrayLike, labels: ArrayLike):
        s, y = scores_and_labels(scores, labels)
        self.positives, self.negatives = s[y], s[~y]
        self.positives.sort()
        self.negatives.sort()

    @property
    def n_positive(self) -> int:
        return len(self.positives)

    @property
    def n_negative(self) -> int:
        return len(self.negatives)

    @property
    def one_class(self) -> bool:
        """Whether a class is absent, so that areas and curves are undefined."""
        return not (self.n_positive and self.n_negative)

    def flagged(self, thresholds: ArrayLike, *, strictly: bool = False) -> tuple[Counts, Counts]:
        """TP and FP: rows of each class at or above each threshold (above it, if `strictly`). A NaN threshold flags nothing."""
        t = np.asarray(thresholds)
        side: Literal["left", "right"] = "right" if strictly else "left"
        counts = [np.where(np.isnan(t), 0, len(v) - np.searchsorted(v, t, side)) for v in (self.positives, self.negatives)]
        return counts[0], counts[1]

    @cached_property
    def auroc(self) -> float:
        """P(s+ > s-) + P(s+ = s-)/2, the Mann-Whitney statistic; NaN with one class (Hanley and McNeil 1982)."""
        if self.one_class:
            return float("nan")
        few, many = sorted((self.positives, self.negatives), key=len)
        wins = int(np.searchsorted(many, few, "left").sum()) + int(np.searchsorted(many, few, "right").sum())
        share = wins / (2 * len(few) * len(many))
        return share if few is self.positives else 1 - share

    @cached_property
    def average_precision(self) -> float:
        """Sum of (R_n - R_(n-1)) P_n over the distinct scores, from the top, without interpolation; NaN with no positive.

        Its value for a random score is the share of positives: quote it with `n_positive` and `n_negative`.
        """
        if not self.n_positive:
            return float("nan")
        true, false, _ = self._at_positives()
        return float(np.sum(np.diff(true, prepend=0) * (true / (true + false))) / self.n_positive)

    def average_precision_at(self, prevalence: float) -> float:
        """The average precision that the same scores have where the share of positives is `prevalence`:
        P_n = pi R_n / (pi R_n + (1 - pi) F_n)."""
        if self.one_class:
            return float("nan")
        true, false, _ = self._at_positives()
        recall, fpr = true / self.n_positive, false / self.n_negative
        precision = prevalence * recall / (prevalence * recall + (1 - prevalence) * fpr)
        return float(np.sum(np.diff(recall, prepend=0) * precision))

    def _at_positives(self) -> tuple[Counts, Counts, NDArray[np.floating]]:
        """TP, FP and threshold at each distinct score of a positive, from the top: where recall changes."""
        first = np.flatnonzero(np.concatenate([[True], self.positives[1:] != self.positives[:-1]])[: self.n_positive])
        levels = self.positives[first][::-1]
        return self.n_positive - first[::-1], self.n_negative - np.searchsorted(self.negatives, levels, "left"), levels

    def roc(self) -> tuple[Array, Array, Array]:
        """FPR, TPR and threshold at (0, 0) and at every distinct score; no vertex is dropped. NaN rates of an absent class.

        A straight line between two vertices is what ties mean: nothing can be chosen between them.
        """
        levels = np.unique(np.concatenate([self.positives, self.negatives]))[::-1]
        true, false = self.flagged(levels)
        with np.errstate(invalid="ignore", divide="ignore"):
            tpr = np.concatenate([[0], true]) / np.float64(self.n_positive)
            fpr = np.concatenate([[0], false]) / np.float64(self.n_negative)
        return fpr, tpr, np.concatenate([[np.inf], levels]).astype(np.float64)

    def precision_recall(self, prevalence: float | None = None) -> tuple[Array, Array, Array]:
        """Precision, recall and threshold at every distinct score of a positive, from the top.

        Precision is of this sample, or at a `prevalence` of the field: pi R / (pi R + (1 - pi) FPR).
        """
        true, false, levels = self._at_positives()
        recall = true / max(self.n_positive, 1)
        if prevalence is None:
            precision = true / (true + false)
        else:
            with np.errstate(invalid="ignore"):
                precision = prevalence * recall / (prevalence * recall + (1 - prevalence) * false / np.float64(self.n_negative))
        return precision, recall, levels.astype(np.float64)

    def partial_auc(self, max_fpr: float, *, standardised: bool = True) -> float:
        """The area under the ROC curve left of `max_fpr`, A; standardised as (1 + (A - lo)/(hi - lo))/2 with lo = max_fpr^2/2
        and hi = max_fpr, so that 0.5 is chance and 1 is perfect (McClish 1989); NaN with one class."""
        if not 0 < max_fpr <= 1:
            raise ValueError(f"max_fpr lies in (0, 1], not at {max_fpr}.")
        if self.one_class:
            return float("nan")
        fpr, tpr, _ = self.roc()
        stop = int(np.searchsorted(fpr, max_fpr, "right"))
        x, y = np.append(fpr[:stop], max_fpr), np.append(tpr[:stop], np.interp(max_fpr, fpr, tpr))
        area = float(np.trapezoid(y, x))
        low = max_fpr**2 / 2
        return (1 + (area - low) / (max_fpr - low)) / 2 if standardised else area

    def threshold_before(self, false_positives: int) -> float:
        """The lowest score of a positive with fewer than this many false positives at or above it; NaN if there is none."""
        if false_positives < 1:
            raise ValueError(f"there are never fewer than {false_positives} false positives: give 1 or more.")
        above = 0
        if false_positives <= self.n_negative:
            above = int(np.searchsorted(self.positives, self.negatives[-false_positives], "right"))
        return float(self.positives[above]) if above < self.n_positive else float("nan")

    def tpr_before(self, false_positives: int) -> float:
        """The largest TPR with fewer than this many false positives: the share of positives strictly above the k-th highest
        negative. NaN without positives. A count: it says nothing without `n_negative`."""
        if not self.n_positive:
            return float("nan")
        return float(self.flagged(self.threshold_before(false_positives))[0]) / self.n_positive

    @property
    def tpr0(self) -> float:
        """TPR_0 of the lens-finding challenge: before the first false positive (Metcalf et al. 2019, A&A 625, A119)."""
        return self.tpr_before(1)

    @property
    def tpr10(self) -> float:
        """TPR_10 of the lens-finding challenge: with fewer than ten false positives, which is not an FPR of 0.1."""
        return self.tpr_before(10)
