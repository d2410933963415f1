"""From one modality to another: is an object's spectrum found among all spectra by its image?"""

import numpy as np

from embeddings.comparing.subspaces import leading
from embeddings.vectors.rows import Rows

__all__ = ["mapped", "ranks", "recall"]


def ranks(queries: np.ndarray, references: np.ndarray, chunk: int = 1024) -> np.ndarray:
    """[n]: how many references are nearer to each query, by cosine about the mean, than its own: 0 is found first."""
    a, b = (_unit(v - v.mean(axis=0)) for v in (queries, references))
    found = np.empty(len(a), dtype=np.int64)
    for start in range(0, len(a), chunk):
        cosine = a[start : start + chunk] @ b.T
        own = np.take_along_axis(cosine, np.arange(start, start + len(cosine))[:, None], axis=1)
        found[start : start + chunk] = (cosine > own).sum(axis=1)
    return found


def recall(rank: np.ndarray, k: int) -> float:
    """Share of queries whose own object is among the k nearest; k / n by chance."""
    return float((rank < k).mean())


def mapped(x: Rows, y: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Held-out linear prediction from x [n, D] of y's leading coordinates, and those: for encoders that are not aligned."""
    from embeddings.probes.ridge import cross_validated_ridge

    target = leading(np.asarray(y, dtype=np.float64))
    return cross_validated_ridge(x, target, fold).predictions, target


def _unit(x: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(size > 0, size, 1.0)
