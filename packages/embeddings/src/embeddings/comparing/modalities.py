"""Modalities of one model: the cosine between an object's vectors, raw and centred, and what its reading needs.

Averaged transformer outputs share a large common part, so that raw cosines of *any* pair are near one. Centring takes it away;
a comparison with pairs of different objects says whether a value is high. Encoders that were not trained to align their
modalities need not: a low cosine does not mean that they know different things. What they know together is measured by probes.
"""

from dataclasses import dataclass

import numpy as np

from embeddings.vectors.rows import Rows
from embeddings.vectors.sets import BLOCK
from skyloom.run.seeds import numpy_generator

__all__ = ["Cosines", "modality_cosines", "row_cosines"]


@dataclass(frozen=True)
class Cosines:
    raw: np.ndarray
    """[n] of the objects that have both."""
    centred: np.ndarray
    mismatched: np.ndarray
    """[n] centred, of pairs of different objects."""

    @property
    def auc(self) -> float:
        """Chance that a matched pair has a higher centred cosine than a mismatched one: 0.5 where nothing is aligned."""
        from scipy.stats import mannwhitneyu

        return float(mannwhitneyu(self.centred, self.mismatched).statistic / (len(self.centred) * len(self.mismatched)))


def row_cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[n] cosines of the rows of two arrays [n, D].

    >>> row_cosines(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]])).round(4).tolist()
    [0.7071]
    """
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.einsum("nd,nd->n", a, b) / np.where(size > 0, size, 1.0)


def modality_cosines(a: Rows, b: Rows, rows: np.ndarray, seed: int = 0) -> Cosines | None:
    """Of the objects `rows`, which have both; None where the vectors differ in length, so that they have no cosine."""
    if a.shape[1] != b.shape[1] or len(rows) < 3:
        return None
    parts = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    means = [np.sum([np.asarray(x[part], dtype=np.float64).sum(axis=0) for part in parts], axis=0) / len(rows) for x in (a, b)]
    order = numpy_generator(seed, "mismatched").permutation(len(rows))
    other = rows[_derangement(order)]
    raw, centred, mismatched = (np.empty(len(rows)) for _ in range(3))
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        x, y, z = (np.asarray(v, dtype=np.float64) for v in (a[rows[part]], b[rows[part]], b[other[part]]))
        raw[part] = row_cosines(x, y)
        centred[part] = row_cosines(x - means[0], y - means[1])
        mismatched[part] = row_cosines(x - means[0], z - means[1])
    return Cosines(raw, centred, mismatched)


def _derangement(order: np.ndarray) -> np.ndarray:
    """Every object paired with its successor in a random circle: no one meets itself."""
    partner = np.empty(len(order), dtype=np.int64)
    partner[order] = np.roll(order, 1)
    return partner
