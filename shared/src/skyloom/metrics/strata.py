"""Recall where it is hard: by flux ratio, Einstein radius, redshift, seeing, survey; always with the counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.errors import DataError
from skyloom.metrics.bootstrap import Estimate
from skyloom.metrics.proportions import proportion
from skyloom.metrics.ranking import Ranking, scores_and_labels

__all__ = ["Stratum", "stratified_recall"]


@dataclass(frozen=True)
class Stratum:
    """Positives with a property in [low, high) (the last bin is closed), or of one category, against all negatives."""

    name: str
    n_positive: int
    true_positives: int
    recall: Estimate  # Wilson interval; NaN where there are no positives
    auroc: float  # these positives against all negatives
    average_precision: float  # likewise

    @property
    def fnr(self) -> float:
        """The share of these positives that the threshold misses."""
        return 1 - float(self.recall)


def _names(edges: Sequence[float]) -> list[str]:
    names = [f"[{low:g}, {high:g})" for low, high in pairwise(edges)]
    return [*names[:-1], names[-1][:-1] + "]"]


def _bins(values: NDArray[Any], edges: Sequence[float] | None) -> tuple[NDArray[np.int64], list[str]]:
    """The bin of each value, -1 for none, and the names of the bins."""
    if edges is None:
        names, index = np.unique(values.astype(str), return_inverse=True)
        return index, [str(name) for name in names]
    if len(edges) < 2 or (np.diff(edges) <= 0).any():
        raise DataError(f"edges of strata increase, and there are two at least: not {list(edges)}.")
    values = values.astype(float)
    index = np.searchsorted(edges, values, "right") - 1
    index[values == edges[-1]] = len(edges) - 2
    index[~((values >= edges[0]) & (values <= edges[-1]))] = -1  # NaN too
    return index, _names(edges)


def stratified_recall(
    scores: ArrayLike,
    labels: ArrayLike,
    by: ArrayLike,
    threshold: float,
    edges: Sequence[float] | None = None,
) -> list[Stratum]:
    """Recall at one threshold (chosen on validation) in bins of a property of the positives.

    A negative has no flux ratio and no Einstein radius: whatever `by` holds for negatives is not looked at, and every stratum
    is compared with all of them. Without `edges` the values of `by` are categories. Positives outside the edges, or whose
    property is unknown (NaN), make a last stratum "outside", if there are any, so that the counts sum to all positives and
    the recalls, weighted by them, to the global recall.

    >>> for s in stratified_recall([3, 1, 2, 0, 0], [1, 1, 1, 0, 0], [0.5, 0.05, 0.2, 0, 0], 1.5, [0, 0.1, 0.3, 1]):
    ...     print(s.name, s.true_positives, s.n_positive, float(s.recall))
    [0, 0.1) 0 1 0.0
    [0.1, 0.3) 1 1 1.0
    [0.3, 1] 1 1 1.0
    """
    s, y = scores_and_labels(scores, labels)
    values = np.asarray(by)
    if values.shape != s.shape:
        raise DataError(f"there are {len(s)} scores but {list(values.shape)} values to stratify by.")
    index, names = _bins(values[y], edges)
    if (index < 0).any():
        names, index = [*names, "outside"], np.where(index < 0, len(names), index)
    strata, positive, negative = [], s[y], s[~y]
    for number, name in enumerate(names):
        here = positive[index == number]
        flagged = int((here >= threshold).sum())
        ranking = Ranking(np.concatenate([here, negative]), np.arange(len(here) + len(negative)) < len(here))
        recall = proportion(flagged, len(here), method="wilson")
        strata.append(Stratum(name, len(here), flagged, recall, ranking.auroc, ranking.average_precision))
    return strata
