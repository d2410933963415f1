"""The class prior from features, by kernel mean embedding: KM1 and KM2 of Ramaswamy, Scott and Tewari (2016, arXiv:1603.02501).

With F the unlabeled and H the labelled distribution, F = pi H + (1 - pi) G. The signed measure l F + (1 - l) H is a
distribution (it is one on the way to G) as long as l <= 1 / (1 - pi). So the distance d(l), in a reproducing-kernel Hilbert
space, of l phi(F) + (1 - l) phi(H) to the convex hull of the embedded rows is near zero up to there and grows beyond; the
prior follows from the l at which its slope passes a threshold: pi = (l - 1) / l.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import t as student

from skyloom.errors import ConfigError, DataError
from skyloom.pu.class_prior import ClassPrior, two_samples

__all__ = ["kernel_mean"]


def kernel_mean(
    x_p: np.ndarray,
    x_u: np.ndarray,
    method: Literal["KM1", "KM2"] = "KM2",
    rows: int = 300,
    repeats: int = 5,
    spread: float = 2.0,
    rng: np.random.Generator | None = None,
    population: str = "the unlabeled sample",
) -> ClassPrior:
    """KM1: the slope of d exceeds 1 / sqrt(min(n_P, n_U)). KM2: it exceeds 0.8 d'(1) + 0.2 of the distance of F from H.

    Features x_p [n, D] and x_u [m, D] are standardised by the unlabeled. The cost is cubic in the rows, so `repeats` random
    subsamples of up to `rows` labelled and `rows` unlabeled are taken; their mean is the value. How far it may be off is told
    by halves of each subsample: their deviation is that of one subsample, and by how much their mean differs goes into the
    interval as a bias. Few rows cannot resolve a small prior: of 300 unlabeled rows at 0.01 three are positive, and it is
    refused; so it is where the distance of F from H is one that rows shuffled between them have too.
    """
    if method not in ("KM1", "KM2"):
        raise ConfigError(f"there is no kernel-mean method {method!r}. Valid: KM1, KM2.")
    x_p, x_u = two_samples(np.asarray(x_p).reshape(len(x_p), -1), np.asarray(x_u).reshape(len(x_u), -1))
    rng = rng or np.random.default_rng(0)
    centre, scale = x_u.mean(0), x_u.std(0)
    if not (scale > 0).any():
        raise DataError("no feature varies among the unlabeled: there is nothing to tell a prior by.")
    scale = np.where(scale > 0, scale, 1.0)
    p, u = (x_p - centre) / scale, (x_u - centre) / scale
    values, halves, told = [], [], []
    for _ in range(repeats):
        a, b = (v[rng.permutation(len(v))[:rows]] for v in (p, u))
        values.append(_kappa(b, a, method))
        halves += [_kappa(b[k::2], a[k::2], method) for k in (0, 1)]
        told.append(_told_apart(b, a, rng))
    value = float(np.mean(values))
    drawn = min(rows / min(len(p), len(u)), 1.0)
    error = np.std(halves, ddof=1) * np.sqrt(drawn + (1 - drawn) / repeats)
    bias = abs(value - np.mean(halves))
    grain = 1.0 / np.sqrt(min(rows, len(x_p), len(x_u)))  # below the noise of an embedding nothing is resolved
    half = float(np.hypot(student.ppf(0.975, 2 * repeats - 1) * error, bias) + 0.5 * grain)
    found = ClassPrior(value, max(value - half, 0.0), min(value + half, 1.0), method, population).judged(spread)
    if np.mean(told) > 0.5:
        return found
    return replace(
        found, high=1.0, refused="the unlabeled cannot be told from the labelled: all may be positive, or too few rows"
    )


def _told_apart(u: np.ndarray, p: np.ndarray, rng: np.random.Generator, shuffles: int = 50) -> bool:
    """Whether the embeddings of u and p are further apart than those of all `shuffles` random divisions of their rows."""
    kernel, gap = _kernel(u, p)
    weights = np.r_[np.full(len(u), 1 / len(u)), np.full(len(p), -1 / len(p))]
    shuffled = np.stack([rng.permutation(weights) for _ in range(shuffles)], axis=1)
    return bool(gap**2 > ((kernel @ shuffled) * shuffled).sum(0).max())


def _kappa(u: np.ndarray, p: np.ndarray, method: str) -> float:
    """The mixture proportion by bisection for the l in [1, 8] where the (nondecreasing) slope passes the threshold."""
    kernel, gap = _kernel(u, p)
    n, m = len(u), len(p)
    f, h = np.r_[np.full(n, 1 / n), np.zeros(m)], np.r_[np.zeros(n), np.full(m, 1 / m)]
    lipschitz = float(np.linalg.norm(kernel, 2))

    def distance(level: float, start: np.ndarray) -> tuple[float, float, np.ndarray]:
        """d and its slope by the envelope theorem, <u - v, F - H> / d, at the nearest v in the simplex."""
        target = level * f + (1 - level) * h
        v = _nearest(kernel, target, start, lipschitz)
        residual = kernel @ (target - v)
        d = np.sqrt(max(float((target - v) @ residual), 0.0))
        return d, float(residual @ (f - h)) / max(d, 1e-12), v

    d_first, _, v = distance(1.05, f)
    threshold = 1 / np.sqrt(min(n, m)) if method == "KM1" else 0.8 * d_first / 0.05 + 0.2 * gap
    low, high = 1.0, 8.0
    while high - low > 0.02:
        middle = 0.5 * (low + high)
        _, slope, v = distance(middle, v)
        low, high = (low, middle) if slope > threshold else (middle, high)
    level = 0.5 * (low + high)
    return (level - 1) / level


def _kernel(u: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, float]:
    """Gaussian kernel, its width among five multiples of the median distance the one that sets F and H furthest apart."""
    rows = np.concatenate([u, p])
    squared = cdist(rows, rows, "sqeuclidean")
    difference = np.r_[np.full(len(u), 1 / len(u)), np.full(len(p), -1 / len(p))]
    best, gap = squared, -1.0
    for width in np.logspace(-1, 1, 5) * np.sqrt(np.median(squared) or squared.mean()):
        kernel = np.exp(-squared / (2 * width**2))
        apart = float(np.sqrt(max(difference @ kernel @ difference, 0.0)))
        if apart > gap:
            best, gap = kernel, apart
    return best, gap


def _nearest(kernel: np.ndarray, target: np.ndarray, start: np.ndarray, lipschitz: float, steps: int = 300) -> np.ndarray:
    """min over the simplex of (target - v)' K (target - v), by accelerated projected gradients with restarts."""
    v = w = start
    momentum = 1.0
    for _ in range(steps):
        gradient = kernel @ (w - target)
        new = _simplex(w - gradient / lipschitz)
        if (new - v) @ gradient > 0:
            momentum, w = 1.0, v
            continue
        following = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
        w = new + (momentum - 1) / following * (new - v)
        if np.abs(new - v).max() < 1e-8:
            return new
        v, momentum = new, following
    return v


def _simplex(v: np.ndarray) -> np.ndarray:
    """The nearest point with entries >= 0 that sum to one (Duchi et al. 2008, doi:10.1145/1390156.1390191)."""
    ordered = np.sort(v)[::-1]
    excess = (np.cumsum(ordered) - 1) / np.arange(1, len(v) + 1)
    return np.maximum(v - excess[np.flatnonzero(ordered > excess)[-1]], 0.0)
