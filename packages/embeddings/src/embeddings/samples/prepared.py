"""An embedding made ready once for everything that follows: its mean, its leading components, all in units of one size."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embeddings.samples.sample import Embedding, Sample
from embeddings.vectors.projection import principal_components
from embeddings.vectors.rows import Linear, Rows, mean_and_variance

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    embedding: Embedding
    vectors: Rows
    """[N, D] as it is, or standardised where its dimensions are quantities with units of their own."""
    reduced: Rows
    """[N, k] leading principal components, about the mean, divided by one number so that the mean variance of all D is one."""
    explained: np.ndarray
    """[k] shares of the variance."""

    @property
    def name(self) -> str:
        return self.embedding.name

    @property
    def present(self) -> np.ndarray:
        return self.embedding.present

    def coordinates(self, k: int = 2) -> np.ndarray:
        """[N, k] first components, NaN where the object has no vector, or there are fewer."""
        out = np.full((len(self.present), k), np.nan)
        rows = np.flatnonzero(self.present)
        found = self.matrix(rows)[:, :k]
        out[np.ix_(rows, np.arange(found.shape[1]))] = found
        if found.shape[1] < k:
            out[np.ix_(rows, np.arange(found.shape[1], k))] = 0.0
        return out

    def matrix(self, rows: np.ndarray) -> np.ndarray:
        """[len(rows), k] in memory, a block at a time."""
        out = np.empty((len(rows), self.reduced.shape[1]))
        for start in range(0, len(rows), 8192):
            out[start : start + 8192] = self.reduced[rows[start : start + 8192]]
        return out


def prepare(data: Sample, components: int) -> Mapping[str, Prepared]:
    """Every embedding of the sample, by name, reduced to at most so many components."""
    found = {}
    for e in data.embeddings:
        rows = np.flatnonzero(e.present)
        vectors: Rows = e
        if e.standardise:
            mean, variance = mean_and_variance(e, rows)
            vectors = Linear(e, mean, None, np.sqrt(np.where(variance > 0, variance, 1.0)))
        pc = principal_components(vectors, e.present, min(components, e.shape[1]), coordinates=False)
        size = np.sqrt(pc.variance / e.shape[1]) or 1.0
        found[e.name] = Prepared(e, vectors, Linear(vectors, pc.mean, pc.axes, size), pc.explained)
    return found
