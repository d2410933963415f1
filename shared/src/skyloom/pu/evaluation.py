"""Operating points and the choice of a model from P, U and a prior alone: no negative is looked at, hidden ones included.

At a threshold, with T the share of P and q the share of U above it (two samples; P drawn like the positives within U):

    recall = T,   false positive rate = (q - pi T) / (1 - pi),   precision = pi T / q,   error = pi (1 - T) + q - pi T,
    F1 = 2 pi T / (q + pi),   balanced error = [1 - T + FPR] / 2.

(Menon et al. 2015; Jain, White and Radivojac 2017; Claesen et al. 2015, arXiv:1504.06837.) Their estimates may leave [0, 1] by
noise, and are not cut: a false positive rate well below zero says that the prior is too large, or that P is unlike the
positives in U.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from skyloom.errors import ConfigError, DataError, nearest
from skyloom.metrics import Estimate
from skyloom.pu.class_prior import ClassPrior
from skyloom.pu.scores import auroc_pu, error_pu
from skyloom.pu.settings import check_prior
from skyloom.pu.tails import clopper_pearson

__all__ = ["Ranked", "average_precision_pu", "choose", "operating_point", "recall_lee_liu", "unidentified"]

Metric = Callable[[np.ndarray, np.ndarray, float], float]


def split(scores: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labelled = np.asarray(scores, dtype=np.float64), np.asarray(labelled) > 0.5
    if labelled.all() or not labelled.any():
        raise DataError(f"{int(labelled.sum())} of {len(labelled)} rows are labelled: P and U are both needed.")
    return scores[labelled], scores[~labelled]


def rates(t: float | np.ndarray, q: float | np.ndarray, prior: float) -> dict[str, np.ndarray]:
    """All metrics of the table above, from T, q and pi.

    >>> {k: round(float(v), 4) for k, v in rates(0.8, 0.1, 0.1).items()}
    {'recall': 0.8, 'fpr': 0.0222, 'precision': 0.8, 'error': 0.04, 'balanced_error': 0.1111, 'f1': 0.8}
    """
    t, q = np.asarray(t, dtype=np.float64), np.asarray(q, dtype=np.float64)
    fpr = (q - prior * t) / (1 - prior)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(q > 0, prior * t / q, np.nan)
    return {
        "recall": t,
        "fpr": fpr,
        "precision": precision,
        "error": prior * (1 - t) + q - prior * t,
        "balanced_error": 0.5 * (1 - t + fpr),
        "f1": 2 * prior * t / (q + prior),
    }


def operating_point(
    scores: np.ndarray, labelled: np.ndarray, prior: float | ClassPrior, threshold: float = 0.0, level: float = 0.95
) -> dict[str, Estimate]:
    """Metrics at a threshold, each with an interval that holds for any prior within its own.

    Each limit is the extreme over the corners of the Clopper-Pearson intervals of T and q and the interval of the prior; all
    metrics here are monotone in each of the three, so nothing between is missed. The limits of T and q each hold at
    1 - (1 - level) / 2, so together at `level` (Bonferroni).
    """
    p, u = split(scores, labelled)
    known = prior if isinstance(prior, ClassPrior) else ClassPrior(prior, prior, prior, "given")
    t, q = (p > threshold).sum(), (u > threshold).sum()
    one_sided = 1 - (1 - level) / 4
    value = rates(t / len(p), q / len(u), check_prior(float(known)))
    limits_t = [float(v) for v in clopper_pearson(t, len(p), one_sided)]
    limits_q = [float(v) for v in clopper_pearson(q, len(u), one_sided)]
    priors = [min(max(v, 1e-12), 1 - 1e-12) for v in (known.low, known.high)]
    corners = [rates(a, b, c) for a in limits_t for b in limits_q for c in priors]
    answers = {}
    for name, v in value.items():
        seen = np.array([corner[name] for corner in corners])
        answers[name] = Estimate(float(v), float(np.nanmin(seen)), float(np.nanmax(seen)))
    if limits_q[0] == 0:  # perhaps nothing else is flagged: no precision is too high
        answers["precision"].high = max(answers["precision"].high, 1.0)
    return answers


def unidentified(flagged: float, prior: float | ClassPrior) -> dict[str, tuple[float, float]]:
    """What is known without trusting P: bounds on recall, precision, FPR and error from the flagged share q of U and the prior.

    If the labelled are selected by their features, T is not the recall. Among the flagged share q, between max(0, q + pi - 1)
    and min(q, pi) of the population is positive (Frechet), and any value between fits the data. Of an interval of the prior,
    the union.

    >>> unidentified(0.02, 0.01)["recall"], unidentified(0.02, 0.01)["precision"]
    ((0.0, 1.0), (0.0, 0.5))
    """
    if not 0 <= flagged <= 1:
        raise ConfigError(f"the flagged share of the unlabeled lies in [0, 1], not at {flagged}.")
    priors = [max(prior.low, 1e-12), prior.high] if isinstance(prior, ClassPrior) else [prior]
    if isinstance(prior, ClassPrior):  # the bounds bend where q = pi and q = 1 - pi
        priors += [v for v in (flagged, 1 - flagged) if prior.low < v < prior.high]
    found: dict[str, list[float]] = {"recall": [], "precision": [], "fpr": [], "error": []}
    for pi in priors:
        for true in (max(0.0, flagged + pi - 1), min(flagged, pi)):
            found["recall"].append(true / pi if pi > 0 else float("nan"))
            found["precision"].append(true / flagged if flagged > 0 else float("nan"))
            found["fpr"].append((flagged - true) / (1 - pi) if pi < 1 else float("nan"))
            found["error"].append(pi - true + flagged - true)
    return {name: (float(np.min(values)), float(np.max(values))) for name, values in found.items()}


def average_precision_pu(scores: np.ndarray, labelled: np.ndarray, prior: float) -> float:
    """Average precision over the population, mean over labelled rows of pi T / q at their score (cut to at most 1).

    >>> average_precision_pu(np.array([3.0, 2.5, 2.0, 1.0, 0.0]), np.array([1, 0, 0, 0, 0]), 0.25)
    1.0
    """
    p, u = split(scores, labelled)
    ordered_p, ordered_u = np.sort(p), np.sort(u)
    t = (len(p) - np.searchsorted(ordered_p, p, side="left")) / len(p)
    q = (len(u) - np.searchsorted(ordered_u, p, side="left")) / len(u)
    return float(np.minimum(prior * t / np.maximum(q, prior * t), 1.0).mean())


def recall_lee_liu(scores: np.ndarray, labelled: np.ndarray, prior: float, threshold: float = 0.0) -> float:
    """T^2 / q, which needs no prior and orders models as F1 roughly does (Lee and Liu 2003, ICML)."""
    p, u = split(scores, labelled)
    q = (u > threshold).mean()
    return float((p > threshold).mean() ** 2 / q) if q > 0 else 0.0


_METRICS: dict[str, tuple[Metric, bool]] = {  # and whether more is better
    "auroc": (auroc_pu, True),
    "error": (error_pu, False),
    "average_precision": (average_precision_pu, True),
    "lee_liu": (recall_lee_liu, True),
    "f1": (lambda z, s, pi: float(rates(*_shares(z, s), pi)["f1"]), True),
    "balanced_error": (lambda z, s, pi: float(rates(*_shares(z, s), pi)["balanced_error"]), False),
}


def _shares(scores: np.ndarray, labelled: np.ndarray) -> tuple[float, float]:
    p, u = split(scores, labelled)
    return float((p > 0).mean()), float((u > 0).mean())


@dataclass(frozen=True)
class Ranked:
    """A candidate model: its metric, how far behind the best it is with the interval of that difference, its share of wins."""

    name: str
    value: float
    behind: Estimate
    wins: float


def choose(
    candidates: Mapping[str, np.ndarray],
    labelled: np.ndarray,
    prior: float,
    metric: str = "auroc",
    resamples: int = 200,
    rng: np.random.Generator | None = None,
) -> list[Ranked]:
    """Models by a metric of P and U, best first, with a paired bootstrap: the same rows for all models in each resample.

    Models whose interval of `behind` holds 0 are not told apart from the best; take the simplest. auroc and average_precision
    look at the ranking, the others at logit 0.
    """
    if metric not in _METRICS:
        raise ConfigError(f"there is no metric {metric!r} of positives and unlabeled.{nearest(metric, _METRICS)}")
    score, more = _METRICS[metric]
    sign = 1.0 if more else -1.0
    s = np.asarray(labelled) > 0.5
    rng = rng or np.random.default_rng(0)
    p, u = np.flatnonzero(s), np.flatnonzero(~s)
    names = list(candidates)
    for name in names:
        if not np.isfinite(candidates[name]).all():
            raise DataError(f"scores of {name!r} are not finite: it cannot be ranked among the candidates.")
    value = np.array([score(np.asarray(candidates[n]), s, prior) for n in names])
    draws = np.empty((resamples, len(names)))
    for k in range(resamples):
        rows = np.r_[rng.choice(p, len(p)), rng.choice(u, len(u))]
        draws[k] = [score(np.asarray(candidates[n])[rows], s[rows], prior) for n in names]
    best = int(np.argmax(sign * value))
    wins = np.bincount(np.argmax(sign * draws, axis=1), minlength=len(names)) / resamples
    behind = sign * (draws[:, [best]] - draws)
    limits = np.quantile(behind, [0.025, 0.975], axis=0)
    ranked = [
        Ranked(n, float(value[i]), Estimate(float(sign * (value[best] - value[i])), *map(float, limits[:, i])), float(wins[i]))
        for i, n in enumerate(names)
    ]
    return sorted(ranked, key=lambda r: -sign * r.value)
