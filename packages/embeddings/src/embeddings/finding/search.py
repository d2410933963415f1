"""Objects that are like a given one: nearest by cosine about the mean vector, exactly or through an index."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from embeddings.machine.memory import neighbour_bytes, require
from embeddings.vectors.neighbours import nearest_rows
from embeddings.vectors.rows import Linear, Rows, Some, Unit, mean_and_variance
from embeddings.vectors.sets import BLOCK
from skyloom.errors import ConfigError
from skyloom.run.seeds import numpy_generator

__all__ = ["APPROXIMATE_ABOVE", "Index", "rows_of"]

APPROXIMATE_ABOVE = 1_000_000
IN_MEMORY = 2e9  # bytes of unit vectors that are kept; larger ones are made anew a block at a time


@dataclass(frozen=True)
class Found:
    rows: np.ndarray
    """[Q, k] nearest first."""
    cosines: np.ndarray
    """[Q, k]."""


class Index:
    """Search among the objects `present` of x [N, D].

    Arguments:
        approximate: Through faiss' inverted lists; where None above a million objects. Otherwise exact, a block at a time.
        probes: Lists that an approximate search looks into; more find more.

    >>> x = np.random.default_rng(0).normal(size=(100, 8)); x[7] = 2 * x[3]
    >>> x = np.vstack([x, -x])  # so that the mean is zero
    >>> Index(x).like(np.array([3]), 1).rows.tolist()
    [[7]]
    """

    def __init__(
        self, x: Rows, present: np.ndarray | None = None, approximate: bool | None = None, probes: int = 32, seed: int = 0
    ):
        self.places = np.arange(len(x)) if present is None else np.flatnonzero(present)
        self.approximate = len(self.places) > APPROXIMATE_ABOVE if approximate is None else approximate
        require(neighbour_bytes(len(self.places), x.shape[1], 10), "the search")
        mean, _ = mean_and_variance(x, self.places)
        self.unit: Rows = Unit(Linear(x, mean))
        if 4 * len(x) * x.shape[1] < IN_MEMORY:
            self.unit = _in_memory(self.unit, self.places)
        self._faiss = _inverted_lists(Some(self.unit, self.places), probes, seed) if self.approximate else None

    def recall(self, queries: int = 200, k: int = 10, seed: int = 0) -> float:
        """Share of the exact neighbours that an approximate search finds, on some objects; 1 for an exact one."""
        if self._faiss is None:
            return 1.0
        some = np.sort(numpy_generator(seed, "recall").choice(self.places, min(queries, len(self.places)), replace=False))
        found = self.like(some, k).rows
        own = np.searchsorted(self.places, some)
        exact = self.places[nearest_rows(Some(self.unit, some), Some(self.unit, self.places), k, itself=own)[0]]
        return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))

    def like(self, objects: np.ndarray, k: int) -> Found:
        """The k objects nearest to each of `objects` (rows of x), themselves left out."""
        own = np.searchsorted(self.places, objects)
        own = np.where(self.places[np.minimum(own, len(self.places) - 1)] == objects, own, -1)
        if self._faiss is None:
            near, distance = nearest_rows(Some(self.unit, objects), Some(self.unit, self.places), k, itself=own)
            return Found(self.places[near], 1 - distance**2 / 2)
        score, near = self._faiss.search(np.asarray(self.unit[objects], dtype=np.float32), k + 1)
        order = np.argsort(near == own[:, None], axis=1, kind="stable")[:, :k]  # itself goes last, and is cut off
        return Found(self.places[np.take_along_axis(near, order, axis=1)], np.take_along_axis(score, order, axis=1))


def _in_memory(x: Rows, places: np.ndarray) -> np.ndarray:
    out = np.full(x.shape, np.nan, dtype=np.float32)
    for start in range(0, len(places), BLOCK):
        out[places[start : start + BLOCK]] = x[places[start : start + BLOCK]]
    return out


def _inverted_lists(x: Rows, probes: int, seed: int) -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            "searching more than a million objects goes through faiss: pip install 'skyloom-embeddings[search]', or say "
            "approximate=false."
        ) from error
    lists = max(int(4 * np.sqrt(len(x))), 1)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(x.shape[1]), x.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.min_points_per_centroid = seed + 1, 5
    index.nprobe = min(probes, lists)
    sample = np.linspace(0, len(x) - 1, min(len(x), 40 * lists)).astype(np.int64)
    index.train(np.asarray(x[sample], dtype=np.float32))
    for start in range(0, len(x), BLOCK):
        index.add(np.asarray(x[np.arange(start, min(start + BLOCK, len(x)))], dtype=np.float32))
    return index


def rows_of(wanted: Iterable[str | int], ids: dict[str, np.ndarray]) -> np.ndarray:
    """Rows of the objects with these identifiers, of any kind; unknown ones warn and are left out."""
    found, unknown = [], []
    for one in wanted:
        at = next((int(hit[0]) for v in ids.values() if len(hit := np.flatnonzero(v.astype(str) == str(one)))), None)
        found.append(at) if at is not None else unknown.append(str(one))
    if unknown:
        warnings.warn(f"no object is called {', '.join(unknown)}: left out.", stacklevel=2)
    return np.array(found, dtype=np.int64)
