r"""Cross-validated ridge regression of many properties on one embedding, from sums over folds.

For centred vectors `x`, penalty :math:`\lambda` (in units of the mean variance of a dimension) and n rows,

.. math:: w = \arg\min_w \frac1n \sum (y - w \cdot x)^2 + \lambda \bar v |w|^2,
          \qquad \bar v = \frac1D \operatorname{tr} \operatorname{Cov}(x).

Everything that a fit needs is additive over rows: X'X, X'y, y'y and the means. They are summed once per fold; a training set is
the sum of the others. One eigendecomposition of its covariance then serves all properties and all penalties, and
the squared error on a held-out fold follows from that fold's sums. Choosing the penalty by folds inside folds needs one
decomposition per *pair* of folds: leaving out {i, j} scores i's candidates on j and j's on i.

The penalty does not depend on the axes: a rotated or rescaled embedding gives the same predictions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embeddings.vectors.rows import Rows
from embeddings.vectors.sets import BLOCK
from skyloom.errors import DataError

__all__ = ["PENALTIES", "RidgeFit", "cross_validated_ridge"]

PENALTIES = np.logspace(-5, 4, 19)  # in units of the mean variance of a dimension


@dataclass(frozen=True)
class RidgeFit:
    """What cross-validation gave for T properties."""

    predictions: np.ndarray
    """[N, T] by the model that has not seen the row's fold; NaN where the row has no vector."""
    weights: np.ndarray
    """[D, T] of the fit to all rows."""
    intercepts: np.ndarray
    """[T]: a prediction is `x @ weights + intercepts`."""
    penalties: np.ndarray
    """[T] of the fit to all rows."""


@dataclass
class _Sums:
    """Of one or several folds: n, sum of x [D], of y [T], of xx' [D, D], xy' [D, T], y^2 [T]."""

    n: float
    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray
    yy: np.ndarray

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def about(self, mean_x: np.ndarray, mean_y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """xx', xy' and y^2 of the deviations from given means."""
        xx = self.xx - np.outer(self.x, mean_x) - np.outer(mean_x, self.x) + self.n * np.outer(mean_x, mean_x)
        xy = self.xy - np.outer(self.x, mean_y) - np.outer(mean_x, self.y) + self.n * np.outer(mean_x, mean_y)
        return xx, xy, self.yy - 2 * mean_y * self.y + self.n * mean_y**2


def cross_validated_ridge(
    x: Rows,
    y: np.ndarray,
    fold: np.ndarray,
    present: np.ndarray | None = None,
    penalties: np.ndarray = PENALTIES,
    standardise: bool = False,
) -> RidgeFit:
    """Held-out predictions of every column of `y`.

    Arguments:
        x: [N, D] vectors; read a block of rows at a time.
        y: [N, T] properties, NaN where unknown. Columns with the same gaps share their decompositions.
        fold: [N] integers 0 ... K-1 with K >= 3; rows of one group must share a fold (`grouped_folds`).
        present: [N] rows whose vector may be used.
        penalties: Candidates, relative to the mean variance of a dimension.
        standardise: Give every dimension unit variance (of the training rows) first: for quantities with units of their own.
    """
    present = np.ones(len(x), dtype=bool) if present is None else present
    targets = y.shape[1]
    gaps: dict[bytes, list[int]] = {}
    for t in range(targets):
        gaps.setdefault(np.isfinite(y[:, t]).tobytes(), []).append(t)
    predictions = np.full(y.shape, np.nan)
    weights, intercepts, chosen = np.empty((x.shape[1], targets)), np.empty(targets), np.empty(targets)
    for columns in gaps.values():
        known = present & np.isfinite(y[:, columns[0]])
        rows = np.flatnonzero(known)
        fit = _Folded(x, y[:, columns], fold, rows, penalties, standardise)
        models = fit.held_out_models()
        for k, (w, b) in enumerate(models):
            for part in _parts(np.flatnonzero(present & (fold == k))):
                predictions[np.ix_(part, np.array(columns))] = np.asarray(x[part], dtype=np.float64) @ w + b
        weights[:, columns], intercepts[columns], chosen[columns] = fit.final_model()
    return RidgeFit(predictions, weights, intercepts, chosen)


class _Folded:
    """The sums of every fold over `rows`, where all columns of `y` are known."""

    def __init__(self, x: Rows, y: np.ndarray, fold: np.ndarray, rows: np.ndarray, penalties: np.ndarray, scale: bool):
        self.penalties, self.scale, self.folds = penalties, scale, int(fold.max()) + 1
        counts = np.bincount(fold[rows], minlength=self.folds)
        if self.folds < 3 or counts.min() < 2:
            raise DataError(f"a fold has {counts.min()} objects with a known value; at least 2 are needed in each of 3 folds.")
        self.shift = _mean(x, rows)  # moves the numbers near zero, so that sums of squares keep their digits
        self.sums = [_sums(x, y, rows[fold[rows] == k], self.shift) for k in range(self.folds)]
        self.error = np.zeros((self.folds, self.folds, len(penalties), y.shape[1]))
        """[i, j]: squared error on fold j of the fit to all but i and j; [i, i]: on i of the fit to all but i."""

    def _path(self, *held_out: int) -> "_Path":
        """The fit to all folds but these. Adding up the others, not subtracting, keeps every digit of what is held out away."""
        kept = [s for k, s in enumerate(self.sums) if k not in held_out]
        total = kept[0]
        for s in kept[1:]:
            total = total + s
        return _Path(total, self.scale, self.shift)

    def held_out_models(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each fold, weights and intercepts of the fit to the others, with the penalty they choose among themselves."""
        for i in range(self.folds):
            for j in range(i):
                path = self._path(i, j)
                self.error[i, j], self.error[j, i] = (path.error(self.sums[k], self.penalties) for k in (j, i))
        models = []
        for i in range(self.folds):
            path = self._path(i)
            self.error[i, i] = path.error(self.sums[i], self.penalties)
            inner = self.error[i].sum(axis=0) - self.error[i, i]
            models.append(self._unshifted(*path.at(self.penalties[inner.argmin(axis=0)])))
        return models

    def final_model(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        best = self.penalties[sum(self.error[i, i] for i in range(self.folds)).argmin(axis=0)]
        return *self._unshifted(*self._path().at(best)), best

    def _unshifted(self, w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return w, b - self.shift @ w


class _Path:
    """All ridge fits to one training set: one eigendecomposition of its covariance."""

    def __init__(self, s: _Sums, scale: bool, magnitude: np.ndarray):
        self.mean_x, self.mean_y = s.x / s.n, s.y / s.n
        xx, xy, _ = s.about(self.mean_x, self.mean_y)
        variance = np.maximum(np.diag(xx) / s.n, 0.0)
        mean_variance = variance.mean() if variance.mean() > 0 else 1.0
        floor = (1e-9 * magnitude) ** 2  # a dimension that is constant but for round-off says nothing and stays out
        self.unit = np.sqrt(np.where(variance > floor, variance, np.inf) if scale else np.full_like(variance, mean_variance))
        values, self.axes = np.linalg.eigh(xx / s.n / np.outer(self.unit, self.unit))
        self.values = np.maximum(values, 0.0)
        self.along = self.axes.T @ (xy / s.n / self.unit[:, None])

    def at(self, penalty: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights [D, T] and intercepts [T] for one penalty per property [T]."""
        w = self.axes @ (self.along / (self.values[:, None] + penalty[None, :])) / self.unit[:, None]
        return w, self.mean_y - self.mean_x @ w

    def error(self, held_out: _Sums, penalties: np.ndarray) -> np.ndarray:
        """[L, T]: sum of squared residuals over the rows that `held_out` sums up, for every penalty."""
        xx, xy, yy = held_out.about(self.mean_x, self.mean_y)
        xx = self.axes.T @ (xx / np.outer(self.unit, self.unit)) @ self.axes
        xy = self.axes.T @ (xy / self.unit[:, None])
        out = np.empty((len(penalties), xy.shape[1]))
        for k, penalty in enumerate(penalties):
            w = self.along / (self.values[:, None] + penalty)
            out[k] = yy - 2 * (w * xy).sum(axis=0) + (w * (xx @ w)).sum(axis=0)
        return out


def _sums(x: Rows, y: np.ndarray, rows: np.ndarray, shift: np.ndarray) -> _Sums:
    d, t = x.shape[1], y.shape[1]
    s = _Sums(float(len(rows)), np.zeros(d), np.zeros(t), np.zeros((d, d)), np.zeros((d, t)), np.zeros(t))
    for part in _parts(rows):
        a, b = np.asarray(x[part], dtype=np.float64) - shift, y[part]
        s.x += a.sum(axis=0)
        s.y += b.sum(axis=0)
        s.xx += a.T @ a
        s.xy += a.T @ b
        s.yy += (b**2).sum(axis=0)
    return s


def _mean(x: Rows, rows: np.ndarray) -> np.ndarray:
    return np.sum([np.asarray(x[part], dtype=np.float64).sum(axis=0) for part in _parts(rows)], axis=0) / len(rows)


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]
