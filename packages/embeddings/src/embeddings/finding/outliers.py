"""Objects unlike the others, by several ideas of "unlike", each as a score that is higher the stranger an object is."""

import numpy as np

from embeddings.vectors.neighbours import nearest_rows

__all__ = ["agreement", "fused_score", "isolation", "local_outlier_factor", "percentiles", "sigma", "top"]


def isolation(x: np.ndarray, trees: int = 100, seed: int = 0) -> np.ndarray:
    """[N] how soon random cuts isolate an object: isolation forest (Liu et al. 2008), 2^(-depth / expected depth)."""
    from sklearn.ensemble import IsolationForest

    return -IsolationForest(n_estimators=trees, random_state=seed).fit(x).score_samples(x)


def local_outlier_factor(x: np.ndarray, k: int = 20) -> np.ndarray:
    r"""[N] how much thinner the surroundings of an object are than those of its neighbours (Breunig et al. 2000).

    lrd(i) = 1 / mean_j max(d_k(j), d(i, j)) over the k neighbours j; LOF(i) = mean_j lrd(j) / lrd(i).
    """
    near, distance = nearest_rows(x, x, k, itself=np.arange(len(x)))
    reach = np.maximum(distance[near, -1], distance)
    density = 1.0 / (reach.mean(axis=1) + 1e-10)
    return density[near].mean(axis=1) / density


def percentiles(score: np.ndarray) -> np.ndarray:
    """[N] share of the known scores that are lower, in (0, 1), ties shared; NaN where unknown."""
    from scipy.stats import rankdata

    out = np.full(len(score), np.nan)
    known = np.isfinite(score)
    if known.any():
        out[known] = (rankdata(score[known]) - 0.5) / known.sum()
    return out


def sigma(percentile: np.ndarray) -> np.ndarray:
    """The same in standard deviations of a normal distribution.

    >>> sigma(np.array([0.5, 0.97725])).round(3).tolist()
    [0.0, 2.0]
    """
    from scipy.special import ndtri

    return np.asarray(ndtri(percentile))


def fused_score(mismatch: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """p_mismatch sqrt(p_first p_second) of percentiles: strange in both modalities, and in how they go together."""
    return mismatch * np.sqrt(first * second)


def top(score: np.ndarray, share: float = 0.01) -> np.ndarray:
    """Rows of the highest `share` of the known scores, highest first."""
    known = np.flatnonzero(np.isfinite(score))
    count = max(round(share * len(known)), 1) if len(known) else 0
    return known[np.argsort(-score[known], kind="stable")[:count]]


def agreement(first: np.ndarray, second: np.ndarray, share: float = 0.01) -> dict[str, float]:
    """Of two scores of the same objects: Spearman's rho, overlap (Jaccard) of the two tops and what chance gives for it, and
    displacement: the median percentile in the second of the first's top."""
    from scipy.stats import rankdata

    both = np.isfinite(first) & np.isfinite(second)
    a, b = first[both], second[both]
    if len(a) < 3:
        return {"spearman": float("nan"), "jaccard": float("nan"), "chance": float("nan"), "displacement": float("nan")}
    one, two = set(top(a, share).tolist()), set(top(b, share).tolist())
    rho = np.corrcoef(rankdata(a), rankdata(b))[0, 1]
    expected = len(one) * len(two) / len(a)
    return {
        "spearman": float(rho),
        "jaccard": len(one & two) / len(one | two),
        "chance": expected / (len(one) + len(two) - expected),
        "displacement": float(np.median(percentiles(b)[sorted(one)])),
    }
