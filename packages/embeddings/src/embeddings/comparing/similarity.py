r"""How alike two embeddings of the same objects are, in ways that do not depend on their axes.

Axes of two models are unrelated, so the cosine between a vector of one and a vector of the other says nothing. What can be
compared are the *relations* between objects:

- linear centred kernel alignment, plain and unbiased (Kornblith et al. 2019, arXiv:1905.00414);
- shared nearest neighbours, and pairs that are each other's neighbours in both (Huh et al. 2024, arXiv:2405.07987);
- correlations of the leading subspaces, and what remains apart after the best rotation (`embeddings.comparing.subspaces`);
- rank correlation of all mutual distances (`representational similarity`, Kriegeskorte et al. 2008).

Raw values grow with the number of dimensions and shrink with the number of objects even for unrelated embeddings, so each comes
with what it is when the objects of one embedding are shuffled. All is computed on one thread: more of them change no digit.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from embeddings.comparing.subspaces import canonical_correlation, leading, rotation_fit
from embeddings.machine.threads import one_thread
from embeddings.vectors.neighbours import nearest_rows
from embeddings.vectors.sets import blocks
from skyloom.errors import DataError
from skyloom.run.seeds import numpy_generator

__all__ = [
    "Similarity", "compare", "distance_ranks", "linear_cka", "mutual_neighbours", "neighbour_overlap",
    "shuffled_cka", "unbiased_cka",
]  # fmt: skip


@dataclass(frozen=True)
class Similarity:
    """A measure of two embeddings, and the same with the objects of one shuffled."""

    measure: str
    value: float
    null_mean: float
    null_sd: float
    p: float
    """Share of shuffles (the true order counts as one) that reach the value; no smaller than 1 / (shuffles + 1)."""
    objects: int
    expected: float
    """The null's mean in closed form; NaN where there is none."""


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    r"""|X'Y|^2 / (|X'X| |Y'Y|) with centred columns and Frobenius norms; X [N, D], Y [N, E].

    1 for a rotation, shift or common scaling of the same vectors. For unrelated ones about
    :math:`\sqrt{D_{\rm eff} E_{\rm eff}} / N`, not 0.
    """
    a, b = _centred(x), _centred(y)
    return _square(a.T @ b) / np.sqrt(_square(a.T @ a) * _square(b.T @ b))


def unbiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """CKA from the unbiased estimate of the Hilbert-Schmidt independence criterion: 0 on average for unrelated embeddings.

    Song et al. 2012 (JMLR 13, 1393), eq. 5, for linear kernels with products of features instead of N x N matrices.
    """
    a, b = _centred(x), _centred(y)
    return _hsic(a, b) / np.sqrt(_hsic(a, a) * _hsic(b, b))


def shuffled_cka(x: np.ndarray, y: np.ndarray) -> float:
    """The mean of `linear_cka` over all N! orders of Y's objects: tr(K) tr(L) / ((N - 1) |K| |L|) with K = XX', L = YY'."""
    a, b = _centred(x), _centred(y)
    return (a**2).sum() * (b**2).sum() / (len(a) - 1) / np.sqrt(_square(a.T @ a) * _square(b.T @ b))


def neighbour_overlap(x: np.ndarray, y: np.ndarray, k: int = 10) -> float:
    """Mean share of an object's k nearest neighbours that both embeddings agree on; k / (N - 1) by chance."""
    first, second = (_neighbours(v, k) for v in (x, y))
    return _overlap(first, second)


def mutual_neighbours(x: np.ndarray, y: np.ndarray, k: int = 10) -> float:
    """Of the pairs that are each other's neighbours in one of both embeddings, the share that are so in both (Jaccard)."""
    first, second = (_mutual(_neighbours(v, k)) for v in (x, y))
    return _jaccard(first, second)


def distance_ranks(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman correlation of all mutual cosine distances about the mean, for at most a few thousand objects."""
    a, b = _ranked_distances(x), _ranked_distances(y)
    return float((a * b).sum())


def compare(
    x: np.ndarray, y: np.ndarray, k: int = 10, permutations: int = 99, rows: int | None = 2000, seed: int = 0
) -> dict[str, Similarity]:
    """All measures of two embeddings [N, D] and [N, E] of the same N objects in order, with their nulls.

    Arguments:
        k: Neighbours.
        permutations: Shuffles for the null, at least 2.
        rows: At most so many objects, drawn at random; all where None.
        seed: Of that draw and the shuffles.

    `cka`, `cka_unbiased`, `overlap` (share of k neighbours in common), `mutual_knn`, `svcca`, `procrustes`, `rsa`.
    """
    if len(x) != len(y):
        raise DataError(f"the embeddings have {len(x)} and {len(y)} objects; compare the same objects in the same order.")
    if len(x) <= max(k + 1, 4):
        raise DataError(f"{len(x)} common objects are too few to compare {k} neighbours.")
    rng = numpy_generator(seed, "similarity")
    if rows is not None and len(x) > rows:
        drawn = np.sort(rng.choice(len(x), rows, replace=False))
        x, y = x[drawn], y[drawn]
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    orders = [rng.permutation(len(x)) for _ in range(permutations)]
    with one_thread():
        return {
            **_kernels(x, y, orders),
            **_neighbourhoods(x, y, k, orders),
            **_subspaces(x, y, orders),
            **_distances(x, y, orders),
        }


def _kernels(x: np.ndarray, y: np.ndarray, orders: list[np.ndarray]) -> dict[str, Similarity]:
    a, b = _centred(x), _centred(y)
    plain_norm = np.sqrt(_square(a.T @ a) * _square(b.T @ b))
    unbiased_norm = np.sqrt(_hsic(a, a) * _hsic(b, b))
    return {
        "cka": _against(lambda o: _square(a.T @ b[o]) / plain_norm, "cka", len(a), orders, shuffled_cka(x, y)),
        "cka_unbiased": _against(lambda o: _hsic(a, b[o]) / unbiased_norm, "cka_unbiased", len(a), orders, 0.0),
    }


def _neighbourhoods(x: np.ndarray, y: np.ndarray, k: int, orders: list[np.ndarray]) -> dict[str, Similarity]:
    near_x, near_y = _neighbours(x, k), _neighbours(y, k)
    both_x = _mutual(near_x)
    chance = k / (len(x) - 1)
    return {
        "overlap": _against(lambda o: _overlap(near_x, _shuffled(near_y, o)), "overlap", len(x), orders, chance),
        "mutual_knn": _against(
            lambda o: _jaccard(both_x, _mutual(_shuffled(near_y, o))), "mutual_knn", len(x), orders, float("nan")
        ),
    }


def _subspaces(x: np.ndarray, y: np.ndarray, orders: list[np.ndarray]) -> dict[str, Similarity]:
    a, b = leading(x), leading(y)
    u, v = a / np.sqrt((a**2).sum(axis=0)), b / np.sqrt((b**2).sum(axis=0))
    none = float("nan")
    return {
        "svcca": _against(lambda o: canonical_correlation(u, v[o]), "svcca", len(a), orders, none),
        "procrustes": _against(lambda o: rotation_fit(a, b[o]), "procrustes", len(a), orders, none),
    }


def _distances(x: np.ndarray, y: np.ndarray, orders: list[np.ndarray], most: int = 1000) -> dict[str, Similarity]:
    """On the first `most` objects: their order is random already, or of no consequence."""
    n = min(len(x), most)
    a, b = _ranked_distances(x[:n]), _ranked_distances(y[:n])
    fewer = [o[o < n] for o in orders]

    def measure(o: np.ndarray) -> float:
        return float((a * b[np.ix_(o[:n], o[:n])]).sum())

    return {"rsa": replace(_against(measure, "rsa", n, fewer, 0.0), objects=n)}


def _against(
    measure: Callable[[np.ndarray], float], name: str, objects: int, orders: list[np.ndarray], expected: float
) -> Similarity:
    value = float(measure(np.arange(objects)))
    null = np.array([measure(order) for order in orders])
    p = (1 + int((null >= value).sum())) / (1 + len(null))
    return Similarity(name, value, float(null.mean()), float(null.std(ddof=1)), p, objects, float(expected))


def _neighbours(x: np.ndarray, k: int) -> np.ndarray:
    return nearest_rows(x, x, k, itself=np.arange(len(x)))[0]


def _shuffled(near: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Neighbour lists after row i has been given the vector of row order[i]."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place[near[order]]


def _mutual(near: np.ndarray) -> np.ndarray:
    """Sorted codes i * N + j of the pairs i < j that are each other's neighbours."""
    n, k = near.shape
    i, j = np.repeat(np.arange(n), k), near.ravel()
    code = np.minimum(i, j) * n + np.maximum(i, j)
    codes, counts = np.unique(code, return_counts=True)
    return codes[counts == 2]


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / max(len(first) + len(second) - common, 1)


def _ranked_distances(x: np.ndarray) -> np.ndarray:
    """[N, N] symmetric: ranks of the cosine distances, centred and of norm one over all pairs, zero on the diagonal."""
    from scipy.stats import rankdata

    a = _centred(x)
    a = a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-300)
    upper = np.triu_indices(len(a), 1)
    ranks = rankdata(-(a @ a.T)[upper])
    ranks -= ranks.mean()
    full = np.zeros((len(a), len(a)))
    full[upper] = ranks / np.sqrt(2 * (ranks**2).sum())
    return full + full.T


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    shared = 0
    for rows in blocks(len(first)):
        shared += int((first[rows][:, :, None] == second[rows][:, None, :]).sum())
    return shared / first.size


def _hsic(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased HSIC of the linear kernels of centred a [N, D], b [N, E], times a constant of N.

    With K, L the kernels with zero diagonal: tr(KL) + 1'K1 1'L1 / ((N-1)(N-2)) - 2 / (N-2) 1'KL1.
    """
    n = len(a)
    kd, ld = (a**2).sum(axis=1), (b**2).sum(axis=1)
    trace = _square(a.T @ b) - kd @ ld
    k1, l1 = a @ a.sum(axis=0) - kd, b @ b.sum(axis=0) - ld
    return float(trace + k1.sum() * l1.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k1 @ l1))


def _centred(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    return x - x.mean(axis=0)


def _square(m: np.ndarray) -> float:
    return float((m**2).sum())
