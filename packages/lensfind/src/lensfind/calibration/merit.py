"""Figures of merit of a lens finder over a whole split: from labels alone, and against the truth where it is known."""

from collections.abc import Mapping

import numpy as np

from skyloom.metrics import Ranking, tpr_at_fpr
from skyloom.pu import auroc_pu, error_pu

__all__ = ["calibration_error", "scores", "sigmoid"]

_RATES = {"1e-2": 1e-2, "1e-3": 1e-3}


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)) without overflow; NaN stays NaN."""
    with np.errstate(invalid="ignore"):
        return np.exp(-np.logaddexp(0, -np.asarray(logit, dtype=np.float64)))


def scores(predictions: Mapping[str, np.ndarray], prior: float) -> dict[str, float]:
    """From labelled and unlabeled rows alone: auroc_pu and error_pu, which choose the model.

    Where the column `lens` tells the truth, over the unlabeled sample, at its natural share of lenses: auroc,
    average_precision, tpr0 and tpr10 (before the first, and with fewer than ten, false positives), completeness at
    false-positive rates (NaN where the sample is too small to tell), the misclassification rate at logit 0; and of the
    calibrated probability: ece, brier, and `lenses_ratio`, its sum over the number of lenses.
    """
    logit, labelled = predictions["logit"], predictions["labelled"] > 0
    found = {"auroc_pu": auroc_pu(logit, labelled, prior), "error_pu": error_pu(logit, labelled, prior)}
    if "lens" not in predictions:
        return found
    lens = predictions["lens"][~labelled] > 0
    z = logit[~labelled]
    if not np.isfinite(z).all():
        names = ("auroc", "average_precision", "tpr0", "tpr10", "tpr_at_fpr_1e-2", "tpr_at_fpr_1e-3", "error")
        return {**found, **dict.fromkeys(names, float("nan"))}
    ranking = Ranking(z, lens)
    single = ranking.one_class
    found |= {"auroc": ranking.auroc, "average_precision": float("nan") if single else ranking.average_precision}
    found |= {"tpr0": ranking.tpr0, "tpr10": ranking.tpr10} if not single else {"tpr0": float("nan"), "tpr10": float("nan")}
    found |= {f"tpr_at_fpr_{name}": float(tpr_at_fpr(ranking, rate).tpr) for name, rate in _RATES.items()}
    found["error"] = float("nan") if single else float(((z > 0) != lens).mean())
    if "calibrated" in predictions:
        p = sigmoid(predictions["calibrated"][~labelled])
        found["ece"] = calibration_error(p, lens)
        found["brier"] = float(np.mean((p - lens) ** 2)) if len(p) else float("nan")
        found["lenses_ratio"] = float(p.sum() / lens.sum()) if lens.any() else float("nan")
    return found


def calibration_error(p: np.ndarray, lens: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over bins of equal numbers: sum_b n_b/N |mean p - share of lenses|.

    Lenses are rare, so that bins of equal width would put nearly all rows into the first.
    """
    if len(p) == 0:
        return float("nan")
    order = np.argsort(p, kind="stable")
    parts = np.array_split(order, min(bins, len(p)))
    return float(sum(abs(p[part].mean() - lens[part].mean()) * len(part) for part in parts) / len(p))
