"""Principal components of an embedding, with signs that do not depend on the linear algebra library."""

from dataclasses import dataclass

import numpy as np

from embeddings.ridge import Rows
from embeddings.sets import BLOCK

__all__ = ["Components", "principal_components"]


@dataclass(frozen=True)
class Components:
    coordinates: np.ndarray
    """[N, k], NaN where the object has no vector."""
    axes: np.ndarray
    """[D, k], orthonormal; the largest entry of each is positive."""
    explained: np.ndarray
    """[k]: share of the total variance."""


def principal_components(x: Rows, present: np.ndarray | None = None, k: int = 2) -> Components:
    """The first k principal components, from sums over blocks of rows."""
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
    coordinates = np.full((len(x), axes.shape[1]), np.nan)
    for part in parts:
        coordinates[part] = (np.asarray(x[part], dtype=np.float64) - mean) @ axes
    total = values.sum()
    return Components(coordinates, axes, values[::-1][:k] / (total if total > 0 else 1.0))
