"""Principal components of an embedding, with signs that do not depend on the linear algebra library."""

from dataclasses import dataclass

import numpy as np

from embeddings.vectors.rows import Rows
from embeddings.vectors.sets import BLOCK

__all__ = ["Components", "principal_components"]


@dataclass(frozen=True)
class Components:
    coordinates: np.ndarray
    """[N, k], NaN where the object has no vector."""
    axes: np.ndarray
    """[D, k], orthonormal; the largest entry of each is positive."""
    explained: np.ndarray
    """[k]: share of the total variance."""
    mean: np.ndarray
    """[D]."""
    variance: float
    """The total: the sum over dimensions."""


def principal_components(x: Rows, present: np.ndarray | None = None, k: int = 2, coordinates: bool = True) -> Components:
    """The first k principal components, from sums over blocks of rows; without `coordinates` only their axes."""
    rows = np.arange(len(x)) if present is None else np.flatnonzero(present)
    parts = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    mean = np.sum([np.asarray(x[part], dtype=np.float64).sum(axis=0) for part in parts], axis=0) / len(rows)
    covariance = np.zeros((x.shape[1], x.shape[1]))
    for part in parts:
        deviation = np.asarray(x[part], dtype=np.float64) - mean
        covariance += deviation.T @ deviation
    values, vectors = np.linalg.eigh(covariance / len(rows))
    axes = vectors[:, ::-1][:, :k]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    placed = np.full((len(x) if coordinates else 0, axes.shape[1]), np.nan)
    for part in parts if coordinates else []:
        placed[part] = (np.asarray(x[part], dtype=np.float64) - mean) @ axes
    total = values.sum()
    return Components(placed, axes, values[::-1][:k] / (total if total > 0 else 1.0), mean, float(total))
