"""The class prior from the tail of a score: best-bin estimation with an exact binomial bound."""

from dataclasses import replace

import numpy as np

from skyloom.metrics import proportions
from skyloom.pu.class_prior import ClassPrior, two_samples

__all__ = ["best_bin"]


def best_bin(
    scores_p: np.ndarray,
    scores_u: np.ndarray,
    level: float = 0.975,
    spread: float = 3.0,
    fewest: int = 30,
    population: str = "the unlabeled sample",
) -> ClassPrior:
    """min over t of q_U(t) / q_P(t), q the share of scores above t (Garg et al. 2021, NeurIPS, arXiv:2111.00980).

    q_U = pi q_P + (1 - pi) q_N, so the ratio is pi plus (1 - pi) q_N / q_P >= 0, which vanishes where only positives score. The
    threshold is that of the least Clopper-Pearson upper(q_U) / lower(q_P), the upper limit returned, or the lowest one whose
    limit is within 1% of it, since the least of many is the luckiest. (The paper's DKW bound is too loose at small priors: it
    chooses the top 1.5% at pi = 1e-3.) The scores are of rows that the scorer was not trained on.

    The threshold balances error against bias, so they are alike: it is refused where fewer than `fewest` labelled rows decide
    (then negatives as many as the positives would not show in the tail), or where a limit is a factor `spread` from the value.
    At pi = 1e-3 with 500 labelled and 2e5 unlabeled rows the scorer needs an AUROC of about 0.96.

    >>> rng = np.random.default_rng(1)
    >>> u = np.concatenate([rng.normal(size=9000), rng.normal(4.0, size=1000)])
    >>> prior = best_bin(rng.normal(4.0, size=500), u)
    >>> abs(float(prior) - 0.1) < 0.015, prior.high > 0.1
    (True, True)
    """
    p, u = two_samples(scores_p, scores_u)
    n, m = len(p), len(u)
    thresholds = np.unique(p)[::-1]
    above_p = n - np.searchsorted(np.sort(p), thresholds, side="right")
    above_u = m - np.searchsorted(np.sort(u), thresholds, side="right")
    held = above_p > 0
    above_p, above_u = above_p[held], above_u[held]
    if len(above_p) == 0:
        return ClassPrior(float("nan"), 0.0, 1.0, "best bin", population, "all labelled rows score alike")
    upper = clopper_pearson(above_u, m, level)[1] / clopper_pearson(above_p, n, level)[0]
    best = int(np.flatnonzero(upper <= 1.01 * upper.min())[-1])
    value = (above_u[best] / m) / (above_p[best] / n)
    low = float(clopper_pearson(above_u[best], m, level)[0] / clopper_pearson(above_p[best], n, level)[1])
    found = ClassPrior(float(value), low, float(min(upper[best], 1.0)), "best bin", population).judged(spread)
    if not found.refused and above_p[best] < fewest:
        reason = f"only {above_p[best]} labelled rows score where it is decided: the positives do not stand out"
        return replace(found, refused=reason)
    return found


def clopper_pearson(k: np.ndarray | int, n: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """One-sided exact limits of a binomial share, each at `level`: the two-sided interval at 2 `level` - 1.

    >>> [round(float(v), 4) for v in clopper_pearson(0, 10, 0.975)]
    [0.0, 0.3085]
    """
    return proportions.clopper_pearson(k, n, 2 * level - 1)
