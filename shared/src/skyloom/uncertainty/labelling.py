"""What a labelling campaign would have gained: rules of `acquisition` played against labels that are known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit
from sklearn.base import clone

from skyloom.errors import DataError
from skyloom.uncertainty.acquisition import Pool, Rule

__all__ = ["LabellingCurve", "bootstrap_members", "labelling_curves"]

Array = NDArray[np.float64]
Members = Callable[[NDArray[Any]], Array]


@dataclass(frozen=True)
class LabellingCurve:
    """Against the number of labels: the metric on the test rows, and positives among the labelled; each [seeds, rounds]."""

    labels: NDArray[np.int64]  # [rounds]
    metric: Array
    positives: Array

    @property
    def mean(self) -> Array:
        return self.metric.mean(axis=0)

    def labels_to_reach(self, value: float) -> float:
        """The least number of labels at which the mean metric is at least `value`; infinite if it never is."""
        there = np.flatnonzero(self.mean >= value)
        return float(self.labels[there[0]]) if len(there) else float("inf")


def bootstrap_members(
    estimator: Any, members: int = 10
) -> Callable[[NDArray[Any], NDArray[Any], np.random.Generator], Members]:
    """A way to fit an ensemble: clones of a scikit-learn classifier on bootstrap resamples within each class, each
    with a random state of its own from `rng`."""

    def fit(x: NDArray[Any], y: NDArray[Any], rng: np.random.Generator) -> Members:
        fitted = []
        for _ in range(members):
            rows = np.concatenate([rng.choice(np.flatnonzero(y == c), (y == c).sum()) for c in np.unique(y)])
            member = clone(estimator)
            if "random_state" in member.get_params():
                member.set_params(random_state=int(rng.integers(2**31)))
            fitted.append(member.fit(x[rows], y[rows]))

        def logits(features: NDArray[Any]) -> Array:
            return np.stack([logit(np.clip(f.predict_proba(features)[:, 1], 1e-9, 1 - 1e-9)) for f in fitted])

        return logits

    return fit


def labelling_curves(
    rules: Mapping[str, Rule],
    fit: Callable[[NDArray[Any], NDArray[Any], np.random.Generator], Members],
    features: ArrayLike,
    labels: ArrayLike,
    metric: Callable[[Array, NDArray[Any]], float],
    *,
    test: ArrayLike,
    start: int = 20,
    batch: int = 10,
    rounds: int = 10,
    seeds: int = 3,
    seed: int = 0,
) -> dict[str, LabellingCurve]:
    """Play each rule from the same starting labels and with the same test rows, which are never offered for labelling.

    A round fits members on what is labelled, scores `metric(member logits [members, test], test labels)`, and reveals the
    labels of the `batch` rows that the rule picks. `test` marks the test rows; `start` rows are drawn with both classes.
    A rule is worth something where its curve is above that of `random_rows` by more than the spread over seeds.
    """
    x, y, held = np.asarray(features), np.asarray(labels).astype(int), np.asarray(test, bool)
    offered = np.flatnonzero(~held)
    if start + batch * (rounds - 1) > len(offered):
        raise DataError(f"{start} + {batch} x {rounds - 1} labels are more than the {len(offered)} rows that may be labelled.")
    curves = {name: (np.empty((seeds, rounds)), np.empty((seeds, rounds))) for name in rules}
    for s in range(seeds):
        first = _start(offered, y, start, np.random.default_rng([seed, s]))
        for name, rule in rules.items():
            rng, known = np.random.default_rng([seed, s, 1]), first
            for r in range(rounds):
                members = fit(x[known], y[known], rng)
                curves[name][0][s, r] = metric(members(x[held]), y[held])
                curves[name][1][s, r] = y[known].sum()
                if r < rounds - 1:
                    left = np.setdiff1d(offered, known)
                    picked = rule(Pool(members(x[left]), x[left], x[known]), batch, rng)
                    known = np.concatenate([known, left[picked]])
    counts = start + batch * np.arange(rounds)
    return {name: LabellingCurve(counts, metric, positives) for name, (metric, positives) in curves.items()}


def _start(offered: NDArray[Any], y: NDArray[Any], start: int, rng: np.random.Generator) -> NDArray[Any]:
    """`start` rows at random, of which at least two are of each class."""
    if min(np.bincount(y[offered], minlength=2)) < 2 or start < 4:
        raise DataError("a campaign starts with two rows of each class at least.")
    few = np.concatenate([rng.choice(offered[y[offered] == c], 2, replace=False) for c in (0, 1)])
    rest = rng.permutation(np.setdiff1d(offered, few))
    return np.concatenate([few, rest[: start - 4]])
