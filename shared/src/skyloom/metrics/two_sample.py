"""Are two samples of one distribution? The accuracy of a classifier that is asked to tell them apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from skyloom.metrics.bootstrap import Estimate
from skyloom.metrics.proportions import wilson

__all__ = ["c2st"]


def c2st(reference: Any, sample: Any, folds: int = 5, seed: int = 1, level: float = 0.95) -> Estimate:
    """Classifier two-sample test between rows `[N, D]` and `[M, D]`: 0.5 where nothing tells them apart, 1 where everything
    does.

    Both are scaled by mean and deviation of the first; the classifier is a perceptron of two layers of `10 D` units, its
    accuracy that on held-out folds: the score of the benchmark of simulation-based inference (Lueckmann et al. 2021, arXiv
    2101.04653), so that numbers can stand beside its tables. The interval is Wilson's for the number of rows, which lets go of
    how the classifier itself would vary. With few rows the classifier learns less, and the score is smaller: compare equal
    sizes.

    >>> rng = np.random.default_rng(0)
    >>> same = c2st(rng.normal(size=(90, 1)), rng.normal(size=(90, 1)))
    >>> bool(0.3 < same < 0.7), round(float(c2st(rng.normal(size=(90, 1)), rng.normal(size=(90, 1)) + 9)), 1)
    (True, 1.0)
    """
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    x, y = np.asarray(reference, dtype=np.float64), np.asarray(sample, dtype=np.float64)
    mean, deviation = x.mean(0), x.std(0, ddof=1)
    data = (np.concatenate([x, y]) - mean) / np.where(deviation > 0, deviation, 1.0)
    label = np.concatenate([np.zeros(len(x)), np.ones(len(y))])
    units = 10 * x.shape[1]
    network = MLPClassifier(hidden_layer_sizes=(units, units), max_iter=10_000, random_state=seed)
    split = KFold(n_splits=folds, shuffle=True, random_state=seed)
    accuracy = float(np.mean(cross_val_score(network, data.astype(np.float32), label, cv=split, scoring="accuracy")))
    low, high = wilson(accuracy * len(data), len(data), level)
    return Estimate(accuracy, float(low), float(high))
