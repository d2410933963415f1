"""The best weighted sum of members' logits, learned out of fold and judged by nested cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit
from sklearn.base import clone
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from skyloom.calibration.calibrator import Calibrator, fit_rows
from skyloom.calibration.logistic import fit_logistic
from skyloom.calibration.reliability import negative_log_likelihood
from skyloom.errors import DataError
from skyloom.uncertainty.members import member_logits

__all__ = ["Stack", "nested_stack", "out_of_fold_logits"]

Array = NDArray[np.float64]
PENALTIES = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)


def folds(labels: ArrayLike, groups: ArrayLike | None, rng: np.random.Generator, n: int) -> list[tuple[NDArray, NDArray]]:
    """n splits into training and held-out rows, stratified by label; rows of one group are never on both sides."""
    y, seed = np.asarray(labels), int(rng.integers(2**31))
    if np.bincount(y.astype(int)).min() < n:
        raise DataError(f"{n} folds need {n} rows of each class; there are {np.bincount(y.astype(int)).min()}.")
    if groups is None:
        return list(StratifiedKFold(n, shuffle=True, random_state=seed).split(y, y))
    return list(StratifiedGroupKFold(n, shuffle=True, random_state=seed).split(y, y, np.asarray(groups)))


def out_of_fold_logits(
    estimators: Sequence[Any],
    features: ArrayLike,
    labels: ArrayLike,
    rng: np.random.Generator,
    *,
    groups: ArrayLike | None = None,
    n: int = 5,
) -> Array:
    """Logits [members, rows] of scikit-learn classifiers, each row from a fit that saw neither it nor its group.

    All members share the folds. What has no `decision_function` gives logit of its probability, cut at 1e-6.
    """
    x, y = np.asarray(features), np.asarray(labels).astype(int)
    out = np.full((len(estimators), len(y)), np.nan)
    for train, test in folds(y, groups, rng, n):
        for k, estimator in enumerate(estimators):
            fitted = clone(estimator).fit(x[train], y[train])
            if hasattr(fitted, "decision_function"):
                out[k, test] = fitted.decision_function(x[test])
            else:
                out[k, test] = logit(np.clip(fitted.predict_proba(x[test])[:, 1], 1e-6, 1 - 1e-6))
    return out


def _solve(z: Array, y: NDArray, w: Array, penalty: float) -> tuple[Array, float]:
    """a >= 0 and b of least NLL + penalty s^2 |a - 1/M|^2/2, s the spread of all logits: drawn to their mean, not to zero."""
    m, scale = len(z), z.std() or 1.0
    design = np.column_stack([z.T / scale, np.ones(z.shape[1])])
    found, _ = fit_logistic(
        design, y, weights=w, lower=[*[0.0] * m, -np.inf], l2=[*[penalty] * m, 0.0], centre=[*[scale / m] * m, 0.0]
    )
    return found[:m] / scale, float(found[m])


def _choose(z: Array, y: NDArray, w: Array, splits: list[tuple[NDArray, NDArray]], penalties: Sequence[float]) -> float:
    """The penalty of least held-out NLL."""
    losses = []
    for penalty in penalties:
        held = np.empty(len(y))
        for train, test in splits:
            a, b = _solve(z[:, train], y[train], w[train], penalty)
            held[test] = a @ z[:, test] + b
        losses.append(np.average(np.logaddexp(0, held) - y * held, weights=w))
    return float(penalties[int(np.argmin(losses))])


@dataclass(frozen=True)
class Stack(Calibrator):
    """z = b + sum_m a_m z_m with a_m >= 0 (Wolpert 1992; Breiman 1996): weights and calibrates at once.

    Fitted on out-of-fold logits [members, n] by logistic loss, with an L2 penalty towards the mean logit whose size is chosen
    by cross-validation in which groups stay together. A useless member gets weight 0. How good it is, `nested_stack` says.
    """

    weights: tuple[float, ...]
    intercept: float
    penalty: float
    kind: ClassVar[str] = "stack"

    @classmethod
    def fit(
        cls,
        logits: ArrayLike,
        labels: ArrayLike,
        rng: np.random.Generator,
        *,
        groups: ArrayLike | None = None,
        n: int = 5,
        penalties: Sequence[float] = PENALTIES,
        **rows: Any,
    ) -> "Stack":
        z = member_logits(logits)
        _, y, w, record = fit_rows(z.mean(0), labels, **rows)
        penalty = _choose(z, y, w, folds(y, groups, rng, n), penalties)
        a, b = _solve(z, y, w, penalty)
        return cls(tuple(map(float, a)), b, penalty, fitted_on=record)

    def __call__(self, logits: ArrayLike) -> Array:
        """Logits [n] of member logits [members, n]."""
        z = member_logits(logits)
        if len(z) != len(self.weights):
            raise DataError(f"this stack has {len(self.weights)} members, not {len(z)}.")
        return np.asarray(self.weights) @ z + self.intercept


def nested_stack(
    logits: ArrayLike, labels: ArrayLike, rng: np.random.Generator, *, groups: ArrayLike | None = None, n: int = 5
) -> tuple[Array, float]:
    """Logits [n_rows] of stacks that saw neither a row nor its group, penalty included, and their NLL: what a stack is worth.

    Outer folds hold rows out; within each, inner folds choose the penalty (Varma and Simon 2006).
    """
    z, y = member_logits(logits), np.asarray(labels).astype(int)
    held = np.full(len(y), np.nan)
    for train, test in folds(y, groups, rng, n):
        inner = None if groups is None else np.asarray(groups)[train]
        held[test] = Stack.fit(z[:, train], y[train], rng, groups=inner, n=n)(z[:, test])
    return held, negative_log_likelihood(held, y)
