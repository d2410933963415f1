r"""How alike two embeddings of the same objects are, in ways that do not depend on their axes.

Axes of two models are unrelated, so the cosine between a vector of one and a vector of the other says nothing. Linear centred
kernel alignment (Kornblith et al. 2019, arXiv:1905.00414) and the overlap of neighbourhoods compare the *relations* between
objects. Both grow with the number of dimensions and shrink with the number of objects even for unrelated embeddings, so each
comes with what it is when the objects of one embedding are shuffled.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embeddings.neighbours import nearest_rows
from embeddings.sets import blocks
from skyloom.errors import DataError
from skyloom.run.seeds import numpy_generator

__all__ = ["Similarity", "compare", "linear_cka", "neighbour_overlap", "shuffled_cka", "unbiased_cka"]


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
    """The null's mean in closed form."""


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


def compare(
    x: np.ndarray, y: np.ndarray, k: int = 10, permutations: int = 99, rows: int | None = 2000, seed: int = 0
) -> dict[str, Similarity]:
    """Unbiased and plain linear CKA and neighbour overlap of two embeddings [N, D] and [N, E] of the same N objects in order.

    Arguments:
        k: Neighbours.
        permutations: Shuffles for the null, at least 2.
        rows: At most so many objects, drawn at random; all where None.
        seed: Of that draw and the shuffles.
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
    a, b = _centred(x), _centred(y)
    near_x, near_y = _neighbours(x, k), _neighbours(y, k)
    plain_norm = np.sqrt(_square(a.T @ a) * _square(b.T @ b))
    unbiased_norm = np.sqrt(_hsic(a, a) * _hsic(b, b))
    return {
        "cka": _against(lambda o: _square(a.T @ b[o]) / plain_norm, "cka", len(a), orders, shuffled_cka(x, y)),
        "cka_unbiased": _against(lambda o: _hsic(a, b[o]) / unbiased_norm, "cka_unbiased", len(a), orders, 0.0),
        "overlap": _against(lambda o: _overlap(near_x, _shuffled(near_y, o)), "overlap", len(a), orders, k / (len(x) - 1)),
    }


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
