"""How well classes of objects stand apart: galaxies, quasars and stars; star-forming and passive galaxies."""

import warnings
from dataclasses import dataclass

import numpy as np

from embeddings.vectors.rows import Rows
from skyloom.run.seeds import numpy_generator

__all__ = ["Separation", "separate"]


@dataclass(frozen=True)
class Separation:
    names: list[str]
    confusion: np.ndarray
    """[C, C] counts of held-out objects: true class by predicted class."""
    macro_f1: float
    low: float
    high: float
    null_macro_f1: float
    """The same with classes shuffled among objects."""
    silhouette: float
    """Mean over objects of (b - a) / max(a, b): distance to the own class against the nearest other one (Rousseeuw 1987)."""
    objects: int


def separate(
    x: Rows,
    labels: np.ndarray,
    fold: np.ndarray,
    groups: np.ndarray,
    present: np.ndarray,
    fewest: int = 10,
    resamples: int = 200,
    seed: int = 0,
) -> Separation | None:
    """Logistic regression with classes weighted equally, held out by folds; None where fewer than two classes have `fewest`."""
    rows = np.flatnonzero(present & (labels != ""))
    names, counts = np.unique(labels[rows], return_counts=True)
    names = names[counts >= fewest]
    rows = rows[np.isin(labels[rows], names)]
    if len(names) < 2:
        return None
    vectors = np.asarray(x[rows], dtype=np.float64)
    truth = np.searchsorted(names, labels[rows])
    predicted = _held_out(vectors, truth, fold[rows])
    luck = numpy_generator(seed, "shuffled classes").permutation(truth)
    low, high = _interval(truth, predicted, groups[rows], len(names), resamples, seed)
    confusion = _confusion(truth, predicted, len(names))
    return Separation(
        names.tolist(), confusion, _macro_f1(confusion), low, high,
        _macro_f1(_confusion(luck, _held_out(vectors, luck, fold[rows]), len(names))),
        _silhouette(vectors, truth, seed), len(rows),
    )  # fmt: skip


def _held_out(x: np.ndarray, truth: np.ndarray, fold: np.ndarray) -> np.ndarray:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    predicted = np.full(len(truth), -1)
    for k in np.unique(fold):
        train, test = fold != k, fold == k
        mean, size = x[train].mean(axis=0), np.sqrt(x[train].var(axis=0).mean()) or 1.0
        if len(np.unique(truth[train])) < 2:
            predicted[test] = truth[train][0]
            continue
        model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=200, tol=1e-3)
        with warnings.catch_warnings():  # shuffled classes have no optimum near, nor need of it
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit((x[train] - mean) / size, truth[train])
        predicted[test] = model.predict((x[test] - mean) / size)
    return predicted


def _confusion(truth: np.ndarray, predicted: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)


def _macro_f1(confusion: np.ndarray) -> float:
    """Mean over classes of 2 TP / (2 TP + FP + FN)."""
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    both = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return float(np.mean(2 * hit / np.maximum(both, 1)))


def _interval(
    truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray, size: int, resamples: int, seed: int
) -> tuple[float, float]:
    """From resampling whole groups: confusion matrices of groups add up."""
    label = np.unique(groups, return_inverse=True)[1]
    cells = label * size * size + truth * size + predicted
    per_group = np.bincount(cells, minlength=(label.max() + 1) * size * size).reshape(-1, size, size)
    rng = numpy_generator(seed, "bootstrap classes")
    draws = [_macro_f1(per_group[rng.integers(0, len(per_group), len(per_group))].sum(axis=0)) for _ in range(resamples)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def _silhouette(x: np.ndarray, truth: np.ndarray, seed: int, most: int = 1000) -> float:
    """On at most `most` objects, and at most as many of a class as make the classes even."""
    from sklearn.metrics import silhouette_score

    rng = numpy_generator(seed, "silhouette")
    share = max(most // len(np.unique(truth)), 2)
    chosen = np.concatenate([rng.permutation(np.flatnonzero(truth == c))[:share] for c in np.unique(truth)])
    return float(silhouette_score(x[chosen], truth[chosen]))
