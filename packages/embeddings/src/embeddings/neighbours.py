"""Nearest neighbours by exact distances, a block of rows at a time, and regression on them."""

import numpy as np

from embeddings.ridge import Rows

__all__ = ["knn_predictions", "nearest_rows"]

QUERIES = 1024  # rows whose distances to all others are held at once


def nearest_rows(
    queries: np.ndarray, references: np.ndarray, k: int, itself: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of `references` [M, D] to each of `queries` [Q, D]: rows [Q, k], nearest first, and distances [Q, k].

    `itself` [Q] gives for each query the reference that is the same object, which is left out; -1 where there is none.
    Memory: QUERIES x M distances. Squares are expanded, |a - b|^2 = |a|^2 + |b|^2 - 2 ab, about the references' mean, and
    the distances of the k chosen are then taken from the differences themselves.
    """
    if k > len(references) - (itself is not None):
        raise ValueError(f"k={k} neighbours of {len(references)} rows do not exist.")
    centre = references.mean(axis=0, dtype=np.float64)
    refs = (references - centre).astype(np.float32)
    squared = np.einsum("nd,nd->n", refs, refs)
    rows = np.empty((len(queries), k), dtype=np.int64)
    distances = np.empty((len(queries), k))
    for start in range(0, len(queries), QUERIES):
        block = (queries[start : start + QUERIES] - centre).astype(np.float32)
        gap = squared - 2 * (block @ refs.T)  # |a|^2 is the same for all candidates of a query
        if itself is not None:
            same = itself[start : start + QUERIES]
            known = np.flatnonzero(same >= 0)
            gap[known, same[known]] = np.inf
        near = np.argpartition(gap, k - 1, axis=1)[:, :k] if k < gap.shape[1] else np.argsort(gap, axis=1)[:, :k]
        squares = [((q - refs[n]) ** 2).sum(axis=1, dtype=np.float64) for q, n in zip(block, near, strict=True)]
        exact = np.sqrt(squares)
        order = np.lexsort((near, exact), axis=1)  # equal distances: by row, so that the answer is one
        rows[start : start + QUERIES] = np.take_along_axis(near, order, axis=1)
        distances[start : start + QUERIES] = np.take_along_axis(exact, order, axis=1)
    return rows, distances


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
