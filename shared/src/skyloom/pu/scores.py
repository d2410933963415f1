"""How good a ranking or a threshold is, told from labelled positives and unlabeled rows: no negative is looked at."""

import numpy as np
from sklearn.metrics import roc_auc_score

__all__ = ["auroc_pu", "error_pu"]


def auroc_pu(scores: np.ndarray, labelled: np.ndarray, prior: float) -> float:
    """The AUROC of positives against negatives, from that of labelled against unlabeled.

    An unlabeled row is a positive with probability pi, against which a labelled one wins half the time, so
    AUC_PU = pi/2 + (1 - pi) AUC (Menon et al. 2015; Jain, White and Radivojac 2017), which is inverted here. Unbiased if the
    labelled are drawn at random from the positives; it can exceed 1 by its own noise. NaN where one of the samples is missing.

    >>> auroc_pu(np.array([3.0, 2.0, 1.0, 0.0]), np.array([1, 1, 0, 0]), prior=0.2)
    1.125
    """
    labelled = np.asarray(labelled) > 0.5
    if labelled.all() or not labelled.any() or not np.isfinite(scores).all():
        return float("nan")
    return float((roc_auc_score(labelled, scores) - prior / 2) / (1 - prior))


def error_pu(logits: np.ndarray, labelled: np.ndarray, prior: float) -> float:
    """The misclassification rate at logit 0, pi FNR_P + max(0, E_U[z > 0] - pi E_P[z > 0]): the 0-1 non-negative risk."""
    labelled = np.asarray(labelled) > 0.5
    if labelled.all() or not labelled.any():
        return float("nan")
    found = np.asarray(logits) > 0
    recall = found[labelled].mean()
    return float(prior * (1 - recall) + max(0.0, found[~labelled].mean() - prior * recall))
