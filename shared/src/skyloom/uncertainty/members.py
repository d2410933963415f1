"""What several members say of each row (an ensemble, or passes of MC dropout): how much is noise, how much is not known.

Members come first: logits [members, n] of the positive class, or [members, n, classes]. Entropies are in nats.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_softmax, xlogy

from skyloom.errors import DataError

__all__ = [
    "disagreement",
    "expected_entropy",
    "member_columns",
    "mutual_information",
    "pairwise_kl",
    "predictive_entropy",
    "variance_split",
    "vote_entropy",
]

Array = NDArray[np.float64]


def member_logits(logits: ArrayLike) -> Array:
    """Checked: finite, [members, n] or [members, n, classes]."""
    z = np.asarray(logits, np.float64)
    if z.ndim not in (2, 3) or not z.size:
        raise DataError(f"members come first: logits are [members, n] or [members, n, classes], not {list(z.shape)}.")
    if not np.isfinite(z).all():
        raise DataError(
            f"{(~np.isfinite(z)).sum()} logits of members are not finite, of member {np.argwhere(~np.isfinite(z))[0][0]} first."
        )
    return z


def class_probabilities(logits: ArrayLike) -> Array:
    """[members, n, classes], each as precise near 0 as near 1."""
    z = member_logits(logits)
    return np.stack([expit(-z), expit(z)], axis=-1) if z.ndim == 2 else np.exp(log_softmax(z, axis=-1))


def _entropy(p: Array) -> Array:
    return np.maximum(-xlogy(p, p).sum(axis=-1), 0.0)


def predictive_entropy(logits: ArrayLike) -> Array:
    """Total: H(mean_m p_m), the entropy of the mean forecast [n].

    >>> z = np.log([[0.1 / 0.9], [0.9 / 0.1]])
    >>> [round(float(f(z)[0]), 4) for f in (predictive_entropy, expected_entropy, mutual_information)]
    [0.6931, 0.3251, 0.3681]
    """
    return _entropy(class_probabilities(logits).mean(axis=0))


def expected_entropy(logits: ArrayLike) -> Array:
    """Aleatoric: mean_m H(p_m), what remains if the right member were known [n]."""
    return _entropy(class_probabilities(logits)).mean(axis=0)


def mutual_information(logits: ArrayLike) -> Array:
    """Epistemic: H(mean_m p_m) - mean_m H(p_m) >= 0, what a label would tell about the members (BALD; Houlsby et al. 2011,
    arXiv:1112.5745) [n]. 0 where all agree, ln 2 where half say 0 and half say 1."""
    p = class_probabilities(logits)
    return np.maximum(_entropy(p.mean(axis=0)) - _entropy(p).mean(axis=0), 0.0)


def variance_split(logits: ArrayLike) -> tuple[Array, Array, Array]:
    """Total, aleatoric and epistemic variance of the label [n]: pbar (1 - pbar) = mean_m p_m (1 - p_m) + var_m p_m, exactly.

    For two classes; the variance over members is that of the population (divided by M).
    """
    z = member_logits(logits)
    if z.ndim != 2:
        raise DataError("a variance is split for two classes: logits [members, n].")
    p, q = expit(z), expit(-z)
    return p.mean(0) * q.mean(0), (p * q).mean(0), p.var(axis=0)


def vote_entropy(logits: ArrayLike) -> Array:
    """-sum_c V_c/M ln(V_c/M), V_c the members whose largest probability is of class c [n] (Dagan and Engelson 1995).

    It is of votes, not of the mean forecast: 0 where all members say 0.51.
    """
    p = class_probabilities(logits)
    winners = p.argmax(axis=-1)
    return _entropy(np.stack([(winners == c).mean(axis=0) for c in range(p.shape[-1])], axis=-1))


def pairwise_kl(logits: ArrayLike) -> Array:
    """The mean over pairs of members of (KL_ij + KL_ji)/2 = (p_i - p_j)(z_i - z_j)/2, Jeffreys' divergence, of two classes.

    >>> round(float(pairwise_kl(np.log([[0.1 / 0.9], [0.9 / 0.1]]))[0]), 4)
    1.7578
    """
    z = member_logits(logits)
    if z.ndim != 2:
        raise DataError("pairwise KL is of two classes: logits [members, n].")
    m, p = len(z), expit(z)
    if m < 2:
        return np.full(z.shape[1], np.nan)
    return np.maximum((m * (p * z).sum(0) - p.sum(0) * z.sum(0)) / (m * (m - 1)), 0.0)


def disagreement(logits: ArrayLike) -> Array:
    """mean over pairs i != j of |p_i - p_j| [n]: 1 for members that say 0 and 1. NaN with one member."""
    p = class_probabilities(logits)[..., -1] if np.asarray(logits).ndim == 2 else class_probabilities(logits)
    m = len(p)
    if m < 2:
        return np.full(np.asarray(logits).shape[1], np.nan)
    ranked = np.sort(p, axis=0)
    place = (2 * np.arange(m) - m + 1).reshape(-1, *[1] * (p.ndim - 1))
    gaps = 2 * (place * ranked).sum(0) / (m * (m - 1))  # sum over pairs of a sorted list
    return gaps if p.ndim == 2 else gaps.sum(-1) / 2  # total variation for several classes


def member_columns(logits: ArrayLike) -> dict[str, Array]:
    """What to write beside predictions of two classes: mean logit and probability, and every measure above."""
    z = member_logits(logits)
    total, aleatoric, epistemic = variance_split(z)
    return {
        "logit": z.mean(0),
        "probability": expit(z).mean(0),
        "logit_variance": z.var(axis=0),
        "predictive_entropy": predictive_entropy(z),
        "expected_entropy": expected_entropy(z),
        "mutual_information": mutual_information(z),
        "variance": total,
        "aleatoric_variance": aleatoric,
        "epistemic_variance": epistemic,
        "vote_entropy": vote_entropy(z),
        "pairwise_kl": pairwise_kl(z),
        "disagreement": disagreement(z),
    }
