r"""What an embedding knows of a property beyond what the quality of the observation tells.

A model that has learnt the signal-to-noise ratio "predicts" everything that goes with it. With n the nuisances and
:math:`\hat y(n)` the best prediction from smooth functions of them,

.. math:: R^2_{\rm partial} = 1 - \frac{\sum (y - \hat y(n, e))^2}{\sum (y - \hat y(n))^2},

the share of what the nuisances leave unexplained. Nuisances are not penalised: they are taken out of the property and of the
embedding by least squares first (Frisch and Waugh 1933), the property's part by folds, so that the score is held out.
"""

from collections.abc import Sequence

import numpy as np

from embeddings.probes.ridge import cross_validated_ridge
from embeddings.vectors.rows import Rows
from embeddings.vectors.sets import BLOCK

__all__ = ["nothing_left", "partial_predictions", "smooth_functions"]

NOTHING_LEFT = 1e-3  # of the variance: below it a property is a function of the nuisances


def smooth_functions(nuisances: Sequence[np.ndarray], knots: int | None = None) -> np.ndarray:
    """[N, F]: a constant, and for each nuisance cubic splines in its value with knots at its quantiles; NaN where unknown.

    Nuisances with few values (flags) become one column per value. Knots: one for every 500 objects, 1 to 6, because a curve
    with more of them runs away at the ends of a small sample.
    """
    knots = int(np.clip(len(nuisances[0]) // 500, 1, 6)) if knots is None else knots
    columns = [np.ones(len(nuisances[0]))]
    for values in nuisances:
        known = np.isfinite(values)
        levels = np.unique(values[known])
        if len(levels) < 2:
            continue
        if len(levels) <= 8:
            columns += [np.where(known, (values == level).astype(float), np.nan) for level in levels[1:]]
            continue
        spread = values[known].std()
        u = (values - values[known].mean()) / spread
        columns += [u, u**2, u**3]
        inner = np.unique(np.quantile(u[known], np.linspace(0, 1, knots + 2)[1:-1]))
        columns += [np.maximum(u - knot, 0.0) ** 3 for knot in inner]
    return np.stack(columns, axis=1)


def partial_predictions(
    x: Rows, y: np.ndarray, basis: np.ndarray, fold: np.ndarray, present: np.ndarray, standardise: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """What is left of y [N, T] after the basis [N, F], by folds; and the embedding's held-out prediction of that [N, T].

    NaN where a nuisance, the property or the vector is unknown, and for properties of which nothing is left.
    """
    usable = present & np.isfinite(basis).all(axis=1)
    left = np.full(y.shape, np.nan)
    for t in range(y.shape[1]):
        known = usable & np.isfinite(y[:, t])
        for k in np.unique(fold[known]):
            train, test = known & (fold != k), known & (fold == k)
            weights = np.linalg.lstsq(basis[train], y[train, t], rcond=None)[0]
            left[test, t] = y[test, t] - basis[test] @ weights
    empty = nothing_left(left, y)
    asked = np.where(empty, np.nan, left)
    if empty.all():
        return asked, asked
    view = _Without(x, basis, np.flatnonzero(usable))
    predictions = np.full(y.shape, np.nan)
    predictions[:, ~empty] = cross_validated_ridge(view, asked[:, ~empty], fold, usable, standardise=standardise).predictions
    return asked, predictions


def nothing_left(left: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[T] bool: properties that the nuisances make up, so that a share of the rest has no meaning (and is reported as 0)."""
    use = np.isfinite(left)
    both = [(left[u, t], y[u, t]) for t, u in enumerate(use.T)]
    return np.array([len(r) < 2 or (r**2).mean() <= NOTHING_LEFT * v.var() for r, v in both])


class _Without:
    """The vectors less their best prediction from the basis."""

    def __init__(self, x: Rows, basis: np.ndarray, rows: np.ndarray):
        self.x, self.basis, self.shape = x, basis, x.shape
        shift = np.asarray(x[rows[:BLOCK]], dtype=np.float64).mean(axis=0)
        products = np.zeros((basis.shape[1], x.shape[1]))
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            products += basis[part].T @ (np.asarray(x[part], dtype=np.float64) - shift)
        self.weights = np.linalg.lstsq(basis[rows].T @ basis[rows], products, rcond=1e-12)[0]
        self.weights[0] += shift  # the basis begins with a constant

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.x[rows], dtype=np.float64) - self.basis[rows] @ self.weights
