"""Elkan and Noto (2008, doi:10.1145/1401890.1401920): from "is it labelled" to "is it positive", around any classifier.

If labels are given to positives at random (SCAR), g(x) = P(s = 1 | x) = c f(x), with f(x) = P(y = 1 | x) and the label
frequency c = P(s = 1 | y = 1). That c is not the class prior, and dividing by the prior is wrong by their ratio. g must be
out-of-fold: a classifier's scores of its own training rows put c far too high (a random forest: 0.74 where it is 0.30).

Estimates of c, for rows with labels s:

| name | formula | right when |
|---|---|---|
| e1 | mean of g over the labelled | every labelled row has f = 1: separable classes; else too low, and the prior too high |
| e2 | sum of g over the labelled / sum of g over all | the same |
| e3 | max g | g is exact; its largest noise else |
| top rank | k / (rank of the k-th labelled row by g) | among the top rows f is about 1; needs a hundred such positives |
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from skyloom.calibration.calibrator import shift_prevalence
from skyloom.errors import ConfigError, DataError
from skyloom.pu.settings import prior_of_unlabeled
from skyloom.pu.tails import clopper_pearson

__all__ = [
    "ElkanNoto",
    "LabelFrequency",
    "duplicated",
    "label_frequencies",
    "label_frequency",
    "out_of_fold",
    "unlabeled_weight",
]

Method = Literal["top", "e1", "e2", "e3"]


def out_of_fold(
    estimator: Any, x: np.ndarray, s: np.ndarray, folds: int = 5, groups: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """P(s = 1 | x) of every row from a clone that has not seen its fold, and the fold of every row. Groups stay together.

    `estimator` has fit(x, s) and predict_proba(x): any of scikit-learn, LightGBM, XGBoost.
    """
    s = np.asarray(s).astype(int)
    if not 0 < s.sum() < len(s):
        raise DataError(f"{int(s.sum())} of {len(s)} rows are labelled: both labelled and unlabeled rows are needed.")
    if s.sum() < folds:
        raise DataError(f"{int(s.sum())} labelled rows cannot be shared out to {folds} folds.")
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    g, fold = np.empty(len(s)), np.empty(len(s), dtype=int)
    for k, (train, held) in enumerate(kind(folds, shuffle=True, random_state=seed).split(x, s, groups)):
        g[held] = clone(estimator).fit(x[train], s[train]).predict_proba(x[held])[:, 1]
        fold[held] = k
    return g, fold


def label_frequencies(g: np.ndarray, s: np.ndarray, k: int = 100) -> dict[str, float]:
    """c by e1, e2, e3 and top rank, for out-of-fold g.

    >>> g, s = np.array([0.5, 0.5, 0.5, 0.5, 0.0, 0.0]), np.array([1, 1, 0, 0, 0, 0])
    >>> label_frequencies(g, s, k=2)
    {'e1': 0.5, 'e2': 0.5, 'e3': 0.5, 'top': 0.5}
    """
    g, s = np.asarray(g, dtype=np.float64), np.asarray(s) > 0.5
    return {
        "e1": float(g[s].mean()),
        "e2": float(g[s].sum() / max(g.sum(), 1e-300)),
        "e3": float(g.max()),
        "top": _top_rank(g, s, k)[0],
    }


def _top_rank(g: np.ndarray, s: np.ndarray, k: int) -> tuple[float, int, int]:
    """c = labelled / rows among those that score at least as the k-th labelled row (ties count whole)."""
    k = min(k, int(s.sum()))
    threshold = np.sort(g[s])[::-1][k - 1]
    top = g >= threshold
    return float(s[top].mean()), int(s[top].sum()), int(top.sum())


@dataclass(frozen=True)
class LabelFrequency:
    """c with a 95% interval, how it varies from fold to fold, all four estimates, and a reason where it is refused."""

    value: float
    low: float
    high: float
    method: str
    variation: float
    estimates: dict[str, float]
    refused: str = ""

    def __float__(self) -> float:
        if self.refused:
            raise DataError(f"the label frequency c by {self.method} is refused: {self.refused}.")
        return self.value


def label_frequency(
    g: np.ndarray, s: np.ndarray, fold: np.ndarray, method: Method = "top", k: int = 100, most: float = 0.2
) -> LabelFrequency:
    """c from out-of-fold g; refused where its coefficient of variation over folds exceeds `most`.

    Per fold the top rank is taken with k / folds; from its variation that of counting so few rows, (1 - c) folds / k, is taken
    off. It is refused as well if its interval spans a factor of two. Interval: exact binomial for the top rank; for the others
    two deviations of the mean over folds, which know nothing of their bias.
    """
    g, s, fold = np.asarray(g, dtype=np.float64), np.asarray(s) > 0.5, np.asarray(fold)
    estimates = label_frequencies(g, s, k)
    if method not in estimates:
        raise ConfigError(f"there is no label frequency by {method!r}. Valid: {', '.join(estimates)}.")
    names = np.unique(fold)
    each = [label_frequencies(g[fold == f], s[fold == f], max(k // len(names), 1))[method] for f in names if s[fold == f].any()]
    variation = float(np.std(each, ddof=1) / np.mean(each)) if len(each) > 1 else float("nan")
    value = estimates[method]
    if method == "top":  # so many labelled rows a fold vary by themselves
        variation = float(np.sqrt(max(variation**2 - (1 - value) / max(min(k, s.sum()) // len(names), 1), 0.0)))
    if method == "top":
        _, labelled, rows = _top_rank(g, s, k)
        low, high = (float(v) for v in clopper_pearson(labelled, rows, 0.975))
    else:
        half = 2 * float(np.std(each, ddof=1)) / np.sqrt(len(each)) if len(each) > 1 else value
        low, high = max(value - half, 0.0), min(value + half, 1.0)
    reason = ""
    if not 0 < value <= 1:
        reason = f"{value:.3g} is no share"
    elif not variation <= most:
        reason = f"it varies by {variation:.0%} from fold to fold, more than {most:.0%}: too few labelled rows stand out"
    elif method == "top" and high > 2 * low:
        reason = f"its interval [{low:.2g}, {high:.2g}] spans more than a factor of two"
    return LabelFrequency(value, low, high, method, variation, estimates, reason)


def unlabeled_weight(g: np.ndarray, c: float) -> np.ndarray:
    """P(y = 1 | x, s = 0) = (1 - c)/c g/(1 - g), within [0, 1].

    >>> unlabeled_weight(np.array([0.0, 0.15, 0.3]), 0.3).round(4).tolist()
    [0.0, 0.4118, 1.0]
    """
    g = np.clip(g, 0.0, 1 - 1e-9)
    return np.clip((1 - c) / c * g / (1 - g), 0.0, 1.0)


def duplicated(x: np.ndarray, s: np.ndarray, g: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, classes and weights of the weighted problem whose solution is f itself: nothing is divided by c afterwards.

    A labelled row is positive with weight 1; an unlabeled one enters twice, as positive with weight w(x) and as negative with
    1 - w(x), w = `unlabeled_weight`. Weights are real numbers.
    """
    labelled = np.asarray(s) > 0.5
    w = unlabeled_weight(np.asarray(g, dtype=np.float64)[~labelled], c)
    rest = x[~labelled]
    rows = np.concatenate([x[labelled], rest, rest])
    y = np.concatenate([np.ones(labelled.sum() + len(rest), dtype=int), np.zeros(len(rest), dtype=int)])
    weights = np.concatenate([np.ones(labelled.sum()), w, 1 - w])
    kept = weights > 0
    return rows[kept], y[kept], weights[kept]


class ElkanNoto(ClassifierMixin, BaseEstimator):
    """A classifier of "positive" around any classifier that takes sample weights, by out-of-fold g and duplicated weighting.

    Args:
        estimator: has fit(x, y, sample_weight) and predict_proba(x)
        method: estimate of c: top (of the top rank), e1, e2, e3; or a number, c itself
        how: duplicated weighting, or scaled: f = min(g / c, 1) with g refitted on all rows
        setting: one_sample: predicts for the population that P and U make up together; two_samples: for that of U alone
        k: labelled rows of the top rank
        folds, seed: of the out-of-fold predictions

    After fit: `c_` (LabelFrequency), `prior_` (of the population predicted for), `shift_` (log odds added in two_samples).

    >>> from sklearn.linear_model import LogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> y = rng.random(4000) < 0.3
    >>> x = rng.normal(4.0 * y)[:, None]
    >>> s = y & (rng.random(4000) < 0.3)
    >>> model = ElkanNoto(LogisticRegression()).fit(x, s)
    >>> bool(abs(model.predict_proba(x)[:, 1].mean() - 0.3) < 0.05)
    True
    """

    def __init__(
        self,
        estimator: Any,
        method: Method | float = "top",
        how: Literal["duplicated", "scaled"] = "duplicated",
        setting: Literal["one_sample", "two_samples"] = "one_sample",
        k: int = 100,
        folds: int = 5,
        seed: int = 0,
    ):
        self.estimator, self.method, self.how, self.setting = estimator, method, how, setting
        self.k, self.folds, self.seed = k, folds, seed

    def fit(self, x: np.ndarray, s: np.ndarray, groups: np.ndarray | None = None) -> "ElkanNoto":
        if self.how not in ("duplicated", "scaled") or self.setting not in ("one_sample", "two_samples"):
            raise ConfigError(f"how={self.how!r}, setting={self.setting!r}: duplicated or scaled; one_sample or two_samples.")
        x, s = np.asarray(x), np.asarray(s) > 0.5
        g, fold = out_of_fold(self.estimator, x, s, self.folds, groups, self.seed)
        if isinstance(self.method, str):
            self.c_ = label_frequency(g, s, fold, self.method, self.k)
        else:
            self.c_ = LabelFrequency(float(self.method), np.nan, np.nan, "given", 0.0, label_frequencies(g, s, self.k))
        c = float(self.c_)
        prior = min(float(s.mean()) / c, 1 - 1e-9)
        of_u = prior_of_unlabeled(prior, float(s.mean())) if c < 1 else 1e-9
        self.shift_ = float(shift_prevalence(0.0, prior, of_u)) if self.setting == "two_samples" else 0.0
        self.prior_ = of_u if self.setting == "two_samples" else prior
        if self.how == "duplicated":
            rows, y, weights = duplicated(x, s, g, c)
            self.model_ = clone(self.estimator).fit(rows, y, sample_weight=weights)
        else:
            self.model_ = clone(self.estimator).fit(x, s.astype(int))
        self.classes_ = np.array([0, 1])
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        """log odds of being positive, in the population of `setting`."""
        p = self.model_.predict_proba(np.asarray(x))[:, 1].astype(np.float64)
        if self.how == "scaled":
            p = p / self.c_.value
        p = np.clip(p, 1e-12, 1 - 1e-12)
        return np.log(p) - np.log1p(-p) + self.shift_

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-self.decision_function(x)))
        return np.stack([1 - p, p], axis=1)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return (self.decision_function(x) > 0).astype(int)
