r"""Two embeddings as subspaces: how far their leading directions agree, and how far a rotation brings them together.

Dimensions of two models differ, so both are brought to their leading principal components first: as many as hold 99 percent of
the variance, at most 50 (Raghu et al. 2017, arXiv:1706.05806, call canonical correlations of those SVCCA).
"""

import numpy as np

from embeddings.probes.ridge import cross_validated_ridge
from embeddings.vectors.rows import Rows
from embeddings.vectors.sets import BLOCK

__all__ = ["canonical_correlation", "leading", "linear_map", "rotation_fit"]


def leading(x: np.ndarray, share: float = 0.99, most: int = 50) -> np.ndarray:
    """[N, k] coordinates along the principal components that hold `share` of the variance."""
    a = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(a.T @ a)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    enough = int(np.searchsorted(np.cumsum(values) / values.sum(), share - 1e-12)) + 1
    k = min(enough, most, int((values > 1e-12 * values[0]).sum()))
    return a @ vectors[:, :k]


def canonical_correlation(u: np.ndarray, v: np.ndarray) -> float:
    """Mean canonical correlation of two orthonormal frames [N, k] and [N, l]: 1 where one lies in the other."""
    return float(np.linalg.svd(u.T @ v, compute_uv=False).mean())


def rotation_fit(a: np.ndarray, b: np.ndarray) -> float:
    r"""Share of the variance that agrees after the best rotation and scaling: :math:`(\|A^T B\|_* / (\|A\| \|B\|))^2`.

    >>> x = np.random.default_rng(0).normal(size=(50, 3)); x = x - x.mean(axis=0)
    >>> turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    >>> round(rotation_fit(x, 2.0 * x @ turn), 6)
    1.0
    """
    nuclear = np.linalg.svd(a.T @ b, compute_uv=False).sum()
    return float(nuclear**2 / ((a**2).sum() * (b**2).sum()))


def linear_map(x: Rows, target: np.ndarray, fold: np.ndarray, present: np.ndarray) -> tuple[float, np.ndarray]:
    """Held-out share of the variance of `target` [N, k] (an embedding's coordinates) that a linear map of `x` explains.

    Also the residuals [N]: per object, the squared distance to its prediction over the mean squared distance from the mean:
    what one modality cannot tell of the other.
    """
    predictions = np.full(target.shape, np.nan)
    predictions[present] = cross_validated_ridge(x, np.where(present[:, None], target, np.nan), fold, present).predictions[
        present
    ]
    left, total = np.full(len(target), np.nan), 0.0
    rows = np.flatnonzero(present)
    mean = target[rows].mean(axis=0)
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        left[part] = ((target[part] - predictions[part]) ** 2).sum(axis=1)
        total += ((target[part] - mean) ** 2).sum()
    return float(1 - np.nansum(left) / total), left / (total / len(rows))
