"""The class prior from the densities of a score: DEDPUL and an AlphaMax of binned counts."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression

from skyloom.errors import DataError
from skyloom.pu.class_prior import ClassPrior, bootstrap_prior, two_samples
from skyloom.pu.tails import best_bin

__all__ = ["Ratio", "alpha_max", "dedpul", "posterior_of_unlabeled", "score_ratio"]


@dataclass(frozen=True)
class Ratio:
    """f_P / f_U of a score on a grid of its ranks within U, made monotone."""

    grid: np.ndarray
    ratio: np.ndarray

    def at(self, scores: np.ndarray) -> np.ndarray:
        return np.interp(scores, self.grid, self.ratio)


def score_ratio(scores_p: np.ndarray, scores_u: np.ndarray, each: int = 25) -> Ratio:
    """f_P / f_U from counts in bins of `each` labelled rows and of as many shares of the unlabeled, isotonic in the score.

    DEDPUL (Ivanov 2020, ICMLA, arXiv:1902.06965) takes the ratio of two kernel densities of a classifier's score. Kernels blur
    the top, where the prior is decided; bins of equal counts, which depend on ranks alone, and monotony do not, and a hundred
    thousand rows cost nothing.
    """
    p, u = two_samples(scores_p, scores_u)
    bins = max(len(p) // each, 4)
    edges = np.unique(np.concatenate([np.quantile(v, np.arange(1, bins) / bins) for v in (p, u)]))
    if len(edges) < 3:
        raise DataError(f"the scores take {len(edges)} values only: they have no density.")
    counts_p, counts_u = (binned(v, edges) / len(v) for v in (p, u))
    pooled = counts_p + counts_u
    share = IsotonicRegression().fit_transform(
        np.arange(len(pooled)), counts_p / np.maximum(pooled, 1e-300), sample_weight=pooled
    )
    ends = np.concatenate([[min(p.min(), u.min())], edges, [max(p.max(), u.max())]])
    return Ratio(0.5 * (ends[1:] + ends[:-1]), share / np.maximum(1 - share, 0.5 / len(u)))


def binned(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1).astype(float)


def posterior_of_unlabeled(scores: np.ndarray, ratio: Ratio, prior: float) -> np.ndarray:
    """P(y = 1 | score) = min(1, pi f_P / f_U) within the unlabeled population."""
    return np.minimum(prior * ratio.at(scores), 1.0)


def _fixed_point(r: np.ndarray, tolerance: float = 0.0) -> float:
    """The largest alpha at which mean min(alpha r, 1) still is alpha (1 - tolerance)."""
    low, high = 0.0, 1.0
    for _ in range(40):
        alpha = 0.5 * (low + high)
        if alpha - np.minimum(alpha * r, 1.0).mean() <= tolerance * alpha:
            low = alpha
        else:
            high = alpha
    return low


def dedpul(
    scores_p: np.ndarray,
    scores_u: np.ndarray,
    tolerance: float = 0.01,
    resamples: int = 50,
    spread: float = 3.0,
    rng: np.random.Generator | None = None,
    population: str = "the unlabeled sample",
) -> ClassPrior:
    """The largest prior whose posteriors average to itself (Ivanov 2020, arXiv:1902.06965).

    With r = f_P / f_U (`score_ratio`), E_U[r] = 1, so alpha = E_U[min(alpha r, 1)] for every alpha <= 1 / max r, and not
    beyond: the largest such alpha is what EM from above ends at. `tolerance` is the relative deficit that counts as none.
    The ratio's maximum is taken among noisy bins, so alpha is low; the bootstrap says by how much, and takes it off (basic
    bootstrap, value and interval). The lower limit is no higher than that of `best_bin`, and a value above its bound refused.
    """
    p, u = two_samples(scores_p, scores_u)

    def estimate(a: np.ndarray, b: np.ndarray) -> float:
        r = score_ratio(a, b).at(b)
        return _fixed_point(r / r.mean(), tolerance)

    first = estimate(p, u)
    low, middle, high = bootstrap_prior(estimate, p, u, resamples, rng or np.random.default_rng(0))
    value, low, high = (min(max(2 * first - v, 1e-9), 1.0) for v in (middle, high, low))
    return _beside_the_tail(ClassPrior(value, low, high, "DEDPUL", population), p, u, spread)


def _beside_the_tail(found: ClassPrior, p: np.ndarray, u: np.ndarray, spread: float) -> ClassPrior:
    """Judged with the lower limit of the best bin, if lower; refused above its upper one: bins see less of the tail."""
    tail = best_bin(p, u, spread=np.inf)
    found = replace(found, low=min(found.low, tail.low)).judged(spread)
    if not found.refused and found.value > tail.high:
        reason = f"the tail of the scores bounds it below {tail.high:.3g}, under {found.value:.3g}"
        return replace(found, high=tail.high, refused=reason)
    return found


def alpha_max(
    scores_p: np.ndarray,
    scores_u: np.ndarray,
    bins: int = 20,
    level: float = 0.975,
    spread: float = 3.0,
    population: str = "the unlabeled sample",
) -> ClassPrior:
    """The bend of the profile likelihood of the prior (AlphaMax: Jain, White and Radivojac 2016, arXiv:1606.08561), on counts.

    In bins, P has shares p and U has alpha p + (1 - alpha) n with any n >= 0. The log likelihood maximized over p and n is flat
    for alpha <= pi and falls beyond. At alpha = pi each bin without negatives takes away z^2 / 2 for a normal z > 0, and
    nothing for z < 0: one half on average for each bin where n = 0 binds (the variance is 5/8). The value is where the fall
    equals that average, the limits where it differs from it by the `level` quantile either way. Bins are of equal numbers of
    labelled rows. The lower limit is no higher than that of `best_bin`, and a value above its bound refused.
    """
    p, u = two_samples(scores_p, scores_u)
    edges = np.unique(np.quantile(p, np.arange(1, bins) / bins))
    counts_p, counts_u = binned(p, edges), binned(u, edges)
    best = profile(0.0, counts_p, counts_u)[0]

    def crossing(quantile: float) -> float:
        low, high = -14.0, 14.0  # of the logit
        for _ in range(40):
            middle = 0.5 * (low + high)
            value, binding = profile(1 / (1 + np.exp(-middle)), counts_p, counts_u)
            if best - value <= 1e-3 + 0.5 * binding + quantile * np.sqrt(0.625 * binding):
                low = middle
            else:
                high = middle
        return float(1 / (1 + np.exp(-low)))

    quantile = float(norm.ppf(level))
    low, value, high = crossing(-quantile), crossing(0.0), crossing(quantile)
    return _beside_the_tail(ClassPrior(value, low, high, "AlphaMax", population), p, u, spread)


def profile(alpha: float, counts_p: np.ndarray, counts_u: np.ndarray, steps: int = 60) -> tuple[float, int]:
    """max over p, n of sum c_P log p + sum c_U log(alpha p + (1 - alpha) n), by turns; and in how many bins n = 0 binds.

    For given p the best mixture is max(alpha p, t c_U) with t such that it sums to 1; for given n, p follows by one EM step.
    """
    share = counts_u / counts_u.sum()
    p = (counts_p + 0.5) / (counts_p + 0.5).sum()
    held, seen = counts_p > 0, counts_u > 0
    value, binding = -np.inf, 0
    for _ in range(steps):
        mixture = _water_level(alpha * p, share)
        previous, value = value, float(counts_p[held] @ np.log(p[held]) + counts_u[seen] @ np.log(mixture[seen]))
        binding = int((mixture <= alpha * p * (1 + 1e-9)).sum())
        if value - previous < 1e-6:
            break
        mine = counts_p + counts_u * np.divide(alpha * p, mixture, out=np.zeros_like(p), where=mixture > 0)
        p = np.maximum(mine / mine.sum(), 1e-12)
        p /= p.sum()
    return value, binding


def _water_level(floor: np.ndarray, share: np.ndarray) -> np.ndarray:
    """max(floor, t share) with t such that the sum is 1 (floor sums to at most 1)."""
    ratio = np.divide(floor, share, out=np.full_like(floor, np.inf), where=share > 0)
    order = np.argsort(ratio)
    below = np.cumsum(share[order])
    above = floor.sum() - np.cumsum(floor[order])
    levels = np.divide(1 - above, below, out=np.full_like(below, np.inf), where=below > 0)
    fits = np.flatnonzero(levels >= ratio[order] - 1e-12)
    t = levels[fits[-1]] if len(fits) else 1.0
    return np.maximum(floor, t * share)
