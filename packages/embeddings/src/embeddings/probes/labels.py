"""How many labelled objects a probe needs: the score on objects held out, against the number of labels it was fitted to."""

import numpy as np

from embeddings.probes.ridge import cross_validated_ridge
from embeddings.vectors.rows import Rows
from skyloom.run.seeds import numpy_generator

__all__ = ["learning_curve"]


def learning_curve(
    x: Rows,
    y: np.ndarray,
    fold: np.ndarray,
    present: np.ndarray,
    counts: list[int],
    draws: int = 3,
    standardise: bool = False,
    seed: int = 0,
) -> np.ndarray:
    """[len(counts), draws, T]: R2 on fold 0 of ridge probes fitted to so many objects of the other folds, NaN where too few.

    The objects are nested within a draw: more labels are always the same ones and others. The penalty is chosen among the
    labelled objects alone.
    """
    test, pool = np.flatnonzero(present & (fold == 0)), np.flatnonzero(present & (fold != 0))
    scores = np.full((len(counts), draws, y.shape[1]), np.nan)
    for draw in range(draws):
        order = numpy_generator(seed, "labels", draw).permutation(pool)
        for c, count in enumerate(counts):
            if count > len(order):
                continue
            used = order[:count]
            rows = np.concatenate([test, used])
            inner = np.concatenate([np.zeros(len(test), dtype=np.int64), 1 + np.arange(count) % 3])
            known = np.isfinite(y[used])
            fit = [t for t in range(y.shape[1]) if min(known[inner[len(test) :] == k, t].sum() for k in (1, 2, 3)) >= 3]
            if not fit or min(np.isfinite(y[test][:, fit]).sum(axis=0)) < 2:
                continue
            target = y[np.ix_(rows, np.array(fit))]
            found = cross_validated_ridge(_Picked(x, rows), target, inner, standardise=standardise).predictions
            for place, t in enumerate(fit):
                truth, predicted = target[: len(test), place], found[: len(test), place]
                use = np.isfinite(truth) & np.isfinite(predicted)
                spread = ((truth[use] - truth[use].mean()) ** 2).sum()
                scores[c, draw, t] = 1 - ((truth[use] - predicted[use]) ** 2).sum() / spread if spread > 0 else np.nan
    return scores


class _Picked:
    def __init__(self, x: Rows, places: np.ndarray):
        self.vectors = np.asarray(x[places], dtype=np.float64)
        self.shape = self.vectors.shape

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.vectors[rows]
