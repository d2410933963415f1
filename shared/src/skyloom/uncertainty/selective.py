"""Leaving the uncertain rows out: what risk remains at what coverage."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.errors import DataError

__all__ = ["RiskCoverage", "coverage_at_risk", "risk_coverage"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RiskCoverage:
    """Mean loss of the k most certain rows, k = 1 ... n. Rows of equal uncertainty are taken in a random order, on average."""

    coverage: Array  # k/n
    risk: Array
    threshold: Array  # the largest uncertainty that is accepted
    best: Array  # the risk if rows were ordered by their loss

    @property
    def aurc(self) -> float:
        """The mean of the risk over coverages (Geifman, Uziel and El-Yaniv 2019, arXiv:1805.08206)."""
        return float(self.risk.mean())

    @property
    def excess_aurc(self) -> float:
        """E-AURC: what the order of the uncertainties adds to the least AURC that these losses allow; 0 is perfect."""
        return float((self.risk - self.best).mean())


def risk_coverage(losses: ArrayLike, uncertainty: ArrayLike) -> RiskCoverage:
    """The curve of El-Yaniv and Wiener (2010). Losses [n] are errors (0, 1) or any loss; a small uncertainty is accepted first.

    >>> curve = risk_coverage([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8])
    >>> curve.risk.round(3).tolist(), curve.excess_aurc
    ([0.0, 0.0, 0.333, 0.5], 0.0)
    """
    loss, doubt = np.asarray(losses, np.float64), np.asarray(uncertainty, np.float64)
    if loss.ndim != 1 or loss.shape != doubt.shape or not len(loss):
        raise DataError(f"losses and uncertainties must both be [n], not {list(loss.shape)} and {list(doubt.shape)}.")
    if np.isnan(loss).any() or np.isnan(doubt).any():
        raise DataError("a loss or an uncertainty is NaN: leave those rows out.")
    order = np.argsort(doubt, kind="stable")
    loss, doubt = loss[order], doubt[order]
    first = np.concatenate([[True], doubt[1:] != doubt[:-1]])
    group = np.cumsum(first) - 1
    mean = np.bincount(group, loss) / np.bincount(group)  # a row among ties is any of them
    rows = np.arange(1, len(loss) + 1)
    return RiskCoverage(rows / len(loss), np.cumsum(mean[group]) / rows, doubt, np.cumsum(np.sort(loss)) / rows)


def coverage_at_risk(curve: RiskCoverage, risk: float) -> tuple[float, float]:
    """The largest coverage whose risk is at most `risk`, and the uncertainty up to which rows are accepted; (0, NaN) if none.

    Only whole groups of ties are accepted. Chosen on one split, it is to be checked on another.
    """
    last = np.append(curve.threshold[1:] != curve.threshold[:-1], True)
    good = np.flatnonzero(last & (curve.risk <= risk))
    return (float(curve.coverage[good[-1]]), float(curve.threshold[good[-1]])) if len(good) else (0.0, float("nan"))
