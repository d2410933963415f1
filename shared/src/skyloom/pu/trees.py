"""The class prior from features, by trees that look for regions where most rows are labelled: TIcE.

Bekker and Davis (2018, AAAI, Estimating the class prior in positive and unlabeled data through decision tree induction). Any
region of the features bounds the label frequency c = P(s = 1 | y = 1) from below by its labelled share, since not all of its
rows need be positive; the bound is tight in a region of positives alone.
"""

import heapq
from itertools import count

import numpy as np
from scipy.stats import t as student

from skyloom.pu.class_prior import ClassPrior, two_samples

__all__ = ["tree_induction"]


def tree_induction(
    x_p: np.ndarray,
    x_u: np.ndarray,
    folds: int = 5,
    splits: int = 500,
    fewest: int = 10,
    spread: float = 1.5,
    rng: np.random.Generator | None = None,
    population: str = "the unlabeled sample",
) -> ClassPrior:
    """TIcE: c >= max over regions of L/T - sqrt(c (1 - c) (1 - delta) / (delta T)), L of its T rows being labelled.

    Trees are grown on one fold, greedily towards the largest labelled share L / (T + 5), and their regions measured on the
    others; delta = max(0.025, 1 / (1 + 0.004 T)); two rounds, c entering its own error. The prior of the unlabeled is pi = n_P
    (1 - c) / (c n_U), at most 1. The bound makes c low and so the value high; the lower limit of the prior is that of the
    labelled share itself, without its error term, both limits widened by Student's t over the folds.
    """
    x_p, x_u = two_samples(np.asarray(x_p).reshape(len(x_p), -1), np.asarray(x_u).reshape(len(x_u), -1))
    rng = rng or np.random.default_rng(0)
    x = np.concatenate([x_p, x_u])
    s = np.arange(len(x)) < len(x_p)
    fold = rng.permutation(len(x)) % folds
    guess = 0.5
    for _ in range(2):
        found = np.array([_frequency(x, s, fold == k, guess, splits, fewest) for k in range(folds)])
        c, share = found[:, 0], float(found[:, 1].mean())
        guess = float(np.clip(c.mean(), 0.01, 0.99))
    estimate = float(np.clip(c.mean(), 1e-6, 1.0))
    half = float(student.ppf(0.975, folds - 1) * c.std(ddof=1) * np.sqrt(1 / folds + 1 / (folds - 1)))
    odds = len(x_p) / len(x_u)
    value, low, high = (
        float(np.clip(odds * (1 - v) / v, 0, 1)) for v in (estimate, min(share + half, 1.0), max(estimate - half, 1e-6))
    )
    return ClassPrior(value, low, high, "TIcE", population).judged(spread)


def _bound(labelled: int, rows: int, total: int, c: float, fewest: int) -> float:
    if rows < fewest:
        return 0.0
    delta = max(0.025, 1 / (1 + 0.004 * total))
    return labelled / rows - np.sqrt(c * (1 - c) * (1 - delta) / (delta * rows))


def _frequency(x: np.ndarray, s: np.ndarray, tree: np.ndarray, c: float, splits: int, fewest: int) -> tuple[float, float]:
    """The best bound over all nodes of a best-first tree, grown on the rows of `tree`, measured on the rest; its share."""
    grow, measure = np.flatnonzero(tree), np.flatnonzero(~tree)
    total = len(measure)
    best = (_bound(int(s[measure].sum()), total, total, c, fewest), float(s[measure].mean()))
    tie = count()
    queue = [(-s[grow].mean(), next(tie), grow, measure)]
    for _ in range(splits):
        if not queue:
            break
        _, _, inside, held = heapq.heappop(queue)
        found = _split(x[inside], s[inside])
        if found is None:
            continue
        feature, threshold = found
        for side in (True, False):
            part = inside[(x[inside, feature] <= threshold) == side]
            rest = held[(x[held, feature] <= threshold) == side]
            here = int(s[rest].sum())
            best = max(best, (_bound(here, len(rest), total, c, fewest), here / max(len(rest), 1)))
            if len(part) >= fewest and s[part].any() and len(rest) >= fewest:
                heapq.heappush(queue, (-float(s[part].sum() / (len(part) + 5)), next(tie), part, rest))
    return best


def _split(x: np.ndarray, s: np.ndarray) -> tuple[int, float] | None:
    """The feature and threshold, 1/4, 1/2 or 3/4 of the rows below it, with the largest L / (T + 5) on a side."""
    best, answer = -1.0, None
    labelled, rows = s.sum(), len(s)
    for share in (0.25, 0.5, 0.75):
        thresholds = np.quantile(x, share, axis=0, method="lower")
        below = x <= thresholds
        t = below.sum(0)
        l = (below & s[:, None]).sum(0)
        gain = np.maximum(l / (t + 5), (labelled - l) / (rows - t + 5))
        gain = np.where((t > 0) & (t < rows), gain, -1.0)
        k = int(np.argmax(gain))
        if gain[k] > best:
            best, answer = float(gain[k]), (k, float(thresholds[k]))
    return answer
