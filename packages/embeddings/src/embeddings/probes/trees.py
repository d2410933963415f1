"""Boosted trees as a probe: what is encoded, but not along straight lines."""

import numpy as np

from embeddings.machine.threads import one_thread
from embeddings.vectors.rows import Rows

__all__ = ["tree_predictions"]


def tree_predictions(
    x: Rows,
    y: np.ndarray,
    fold: np.ndarray,
    present: np.ndarray,
    iterations: int = 60,
    leaves: int = 12,
    rate: float = 0.12,
    seed: int = 0,
) -> np.ndarray:
    """[N, T] held-out predictions of gradient-boosted trees (scikit-learn's), an ensemble per property and fold.

    Trees depend on the axes of the vectors: give principal components, as the analysis does.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    predictions = np.full(y.shape, np.nan)
    for held_out in np.unique(fold[present]):
        train, test = np.flatnonzero(present & (fold != held_out)), np.flatnonzero(present & (fold == held_out))
        a, b = np.asarray(x[train]), np.asarray(x[test])
        for t in range(y.shape[1]):
            known = np.isfinite(y[train, t])
            if known.sum() < 2 * leaves:
                continue
            model = HistGradientBoostingRegressor(
                max_iter=iterations,
                max_leaf_nodes=leaves,
                learning_rate=rate,
                max_bins=63,
                early_stopping=False,
                random_state=seed,
            )
            with one_thread():  # as scikit-learn shares the work, small fits take many times longer on two
                predictions[test, t] = model.fit(a[known], y[train[known], t]).predict(b)
    return predictions
