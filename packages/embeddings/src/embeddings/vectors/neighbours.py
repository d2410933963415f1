"""Nearest neighbours by exact distances, a block of rows at a time, and regression on them."""

import numpy as np

from embeddings.vectors.rows import Rows

__all__ = ["knn_predictions", "nearest_rows"]

QUERIES, REFERENCES = 1024, 8192  # rows of each side whose distances are held at once: 32 MB
SPARE = 8  # candidates beyond k, so that rounding cannot decide who is among the k


def nearest_rows(queries: Rows, references: Rows, k: int, itself: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of `references` [M, D] to each of `queries` [Q, D]: rows [Q, k], nearest first, and distances [Q, k].

    `itself` [Q] gives for each query the reference that is the same object, which is left out; -1 where there is none.

    References are read once, a block at a time; of each block only what beats a query's k-th best so far is looked at. Memory
    is Q (k + 8) numbers and one block of distances, whatever M is. Squares are expanded in float32 about the mean of the first
    references, |a - b|^2 = |a|^2 + |b|^2 - 2 ab; the k are then chosen among k + 8 by differences in float64, so that the
    answer depends neither on the size of blocks nor on threads.
    """
    if k > len(references) - (itself is not None):
        raise ValueError(f"k={k} neighbours of {len(references)} rows do not exist.")
    centre = _at(references, 0, REFERENCES).mean(axis=0, dtype=np.float64).astype(np.float32)
    best = _Best(len(queries), min(k + SPARE, len(references)))
    for start in range(0, len(references), REFERENCES):
        block = _about(references, start, REFERENCES, centre)
        squared = np.einsum("nd,nd->n", block, block)
        for first in range(0, len(queries), QUERIES):
            gap = (-2.0 * _about(queries, first, QUERIES, centre)) @ block.T
            gap += squared  # |a|^2 is the same for all candidates of a query
            part = slice(first, first + len(gap))
            if itself is not None:
                same = itself[part] - start
                known = np.flatnonzero((itself[part] >= 0) & (same >= 0) & (same < len(block)))
                gap[known, same[known]] = np.inf
            best.take(part, gap, start)
    return _exact(queries, references, best.row, k, itself)


class _Best:
    """For every query the nearest references so far, in no order."""

    def __init__(self, queries: int, size: int):
        self.gap = np.full((queries, size), np.inf, dtype=np.float32)
        self.row = np.full((queries, size), -1, dtype=np.int64)

    def take(self, part: slice, gap: np.ndarray, start: int) -> None:
        """Distances `gap` [q, B] of the queries `part` to references start ... start + B."""
        size = self.gap.shape[1]
        worst = self.gap[part].max(axis=1)
        if not np.isfinite(worst).all():
            near = np.argpartition(gap, size - 1, axis=1)[:, :size] if size < gap.shape[1] else _all(gap)
            self._merge(part, np.take_along_axis(gap, near, axis=1), near + start)
            return
        hits = np.flatnonzero(gap < worst[:, None])
        if not len(hits):
            return
        query, column = np.divmod(hits, gap.shape[1])
        count = np.bincount(query, minlength=len(gap))
        place = np.arange(len(hits)) - (np.cumsum(count) - count)[query]
        found = np.full((len(gap), int(count.max())), np.inf, dtype=np.float32)
        row = np.full(found.shape, -1, dtype=np.int64)
        found[query, place], row[query, place] = gap.ravel()[hits], column + start
        self._merge(part, found, row)

    def _merge(self, part: slice, gap: np.ndarray, row: np.ndarray) -> None:
        size = self.gap.shape[1]
        both, rows = np.hstack([self.gap[part], gap]), np.hstack([self.row[part], row])
        near = np.argpartition(both, size - 1, axis=1)[:, :size]
        self.gap[part], self.row[part] = np.take_along_axis(both, near, axis=1), np.take_along_axis(rows, near, axis=1)


def _exact(
    queries: Rows, references: Rows, candidates: np.ndarray, k: int, itself: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest candidates by float64 differences; equal distances are ordered by row."""
    rows, distances = np.empty((len(queries), k), dtype=np.int64), np.empty((len(queries), k))
    for start in range(0, len(queries), 64):
        part = slice(start, min(start + 64, len(queries)))
        near = candidates[part]
        vectors = np.asarray(references[np.maximum(near, 0).ravel()], dtype=np.float64).reshape(*near.shape, -1)
        vectors -= np.asarray(_at(queries, start, 64), dtype=np.float64)[:, None, :]
        apart = np.sqrt(np.einsum("qkd,qkd->qk", vectors, vectors))
        apart[near < 0] = np.inf
        if itself is not None:
            apart[near == itself[part][:, None]] = np.inf
        order = np.lexsort((near, apart), axis=1)[:, :k]
        rows[part] = np.take_along_axis(near, order, axis=1)
        distances[part] = np.take_along_axis(apart, order, axis=1)
    return rows, distances


def _all(gap: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(gap.shape[1]), gap.shape)


def _at(x: Rows, start: int, size: int) -> np.ndarray:
    """A block of rows; a plain array or memory map is not copied."""
    stop = min(start + size, len(x))
    return x[start:stop] if isinstance(x, np.ndarray) else np.asarray(x[np.arange(start, stop)])


def _about(x: Rows, start: int, size: int, centre: np.ndarray) -> np.ndarray:
    """A block less the centre; what has more digits than float32 is moved before it is rounded."""
    rows = _at(x, start, size)
    return (rows - (centre if rows.dtype == np.float32 else centre.astype(np.float64))).astype(np.float32, copy=False)


def knn_predictions(x: Rows, y: np.ndarray, fold: np.ndarray, present: np.ndarray, k: int = 64, chunk: int = 256) -> np.ndarray:
    """[N, T] held-out predictions: the mean of the k nearest objects of other folds, weighted by inverse distance.

    Distances are Euclidean in dimensions standardised on the training rows (mean and deviation of the other folds), as in
    AstroCLIP's evaluation (Parker et al. 2024, arXiv:2310.03024). A neighbour whose property is unknown does not vote.
    """
    predictions = np.full(y.shape, np.nan)
    for held_out in np.unique(fold[present]):
        train = np.flatnonzero(present & (fold != held_out))
        test = np.flatnonzero(present & (fold == held_out))
        vectors = np.asarray(x[train], dtype=np.float32)
        mean, scale = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64)
        scale[scale == 0] = 1.0
        references = ((vectors - mean) / scale).astype(np.float32)
        queries = ((x[test] - mean) / scale).astype(np.float32)
        rows, distances = nearest_rows(queries, references, min(k, len(train)))
        weight = 1.0 / np.maximum(distances, 1e-12)
        for start in range(0, len(test), chunk):
            part = slice(start, start + chunk)
            voted = y[train[rows[part]]]  # [q, k, T]
            votes = weight[part][:, :, None] * np.isfinite(voted)
            total = votes.sum(axis=1)
            mean_vote = (votes * np.nan_to_num(voted)).sum(axis=1) / np.where(total > 0, total, 1.0)
            predictions[test[part]] = np.where(total > 0, mean_vote, np.nan)
    return predictions
