r"""Correlations of properties with axes, as earlier work drew them, each with what chance alone gives.

They say little: axes of a map are arbitrary, and axes of an embedding are a choice of basis, which a rotation changes while
what is encoded stays the same. The largest of D correlations of pure noise is about :math:`\sqrt{2 \ln(2D) / n}`.
"""

import numpy as np

from embeddings.vectors.rows import Rows

__all__ = ["axis_correlation", "dimension_correlation", "null_level", "ranked", "rotation_free_correlation", "spearman"]


def null_level(dimensions: int, objects: int) -> float:
    """About what the largest |rho| of `dimensions` columns of noise is with `objects` values.

    >>> round(null_level(768, 15263), 3)
    0.031
    """
    return float(np.sqrt(2 * np.log(2 * dimensions) / objects)) if objects > 0 else float("nan")


def spearman(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[D] rank correlations of the columns [n, D] with the values [n], without gaps; equal entries share their rank."""
    return ranked(columns).T @ ranked(values)


def ranked(x: np.ndarray) -> np.ndarray:
    """Ranks of [n] or of every column [n, D], centred and of length one: products of them are correlations."""
    from scipy.stats import rankdata

    ranks = rankdata(x, axis=0)
    ranks = ranks - ranks.mean(axis=0)
    size = np.sqrt((ranks**2).sum(axis=0))
    return ranks / np.where(size > 0, size, np.inf)


def dimension_correlation(x: Rows, values: np.ndarray, rows: np.ndarray) -> float:
    """The largest |rho| over the dimensions of an embedding, at `rows` where both are known."""
    return float(np.abs(spearman(np.asarray(x[rows], dtype=np.float32), values[rows])).max())


def axis_correlation(xy: np.ndarray, values: np.ndarray) -> float:
    """The larger |rho| of the two axes of a map [N, 2] with the values [N], where both are known."""
    use = np.isfinite(xy).all(axis=1) & np.isfinite(values)
    return float(np.abs(spearman(xy[use], values[use])).max()) if use.sum() > 2 else float("nan")


def rotation_free_correlation(xy: np.ndarray, values: np.ndarray, angles: int = 90) -> float:
    """The largest |rho| over all directions in the map: the same however the map is turned."""
    use = np.isfinite(xy).all(axis=1) & np.isfinite(values)
    if use.sum() <= 2:
        return float("nan")
    theta = np.pi * np.arange(angles) / angles
    along = xy[use] @ np.stack([np.cos(theta), np.sin(theta)])
    return float(np.abs(spearman(along, values[use])).max())
