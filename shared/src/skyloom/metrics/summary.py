"""A split's ranking in the handful of numbers that every finder reports."""

from numpy.typing import ArrayLike

from skyloom.metrics.operating_points import tpr_at_fpr
from skyloom.metrics.ranking import Ranking

__all__ = ["ranking_scores"]


def ranking_scores(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """What a task reports of a split: areas, TPR_0 and TPR_10, TPR at FPR 1e-1 ... 1e-5, and the counts behind them.

    A TPR at an FPR is NaN where fewer than ten negatives lie beyond it (`tpr_at_fpr` says how many are needed).

    >>> found = ranking_scores([0.9, 0.1, 0.5, 0.6], [0, 0, 1, 1])
    >>> found["tpr0"], found["tpr10"], found["tpr_at_fpr_1e-1"], found["n_negative"]
    (0.0, 1.0, nan, 2.0)
    """
    r = Ranking(scores, labels)
    found = {"auroc": r.auroc, "average_precision": r.average_precision, "tpr0": r.tpr0, "tpr10": r.tpr10}
    found |= {f"tpr_at_fpr_1e-{k}": float(tpr_at_fpr(r, 10.0**-k).tpr) for k in range(1, 6)}
    return found | {"n_positive": float(r.n_positive), "n_negative": float(r.n_negative)}
