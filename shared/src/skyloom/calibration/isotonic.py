"""Isotonic calibration with a band: the monotone map of most likelihood, and how well the rows know it."""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit
from sklearn.isotonic import IsotonicRegression

from skyloom.calibration.calibrator import Array, Calibrator, fit_rows

__all__ = ["Isotonic"]


@dataclass(frozen=True)
class Isotonic(Calibrator):
    """The increasing p(z) closest to the labels (pool adjacent violators; Zadrozny and Elkan 2002), linear between its knots
    and constant beyond them; the mean of p over the rows is their prevalence.

    A step function ties what lies within a step: rank by the logits, and read probabilities from here. The band is the
    pointwise percentile interval over bootstrap resamples of the rows, or of whole groups of rows, that refit the map.
    """

    knots: tuple[float, ...]  # logits
    values: tuple[float, ...]  # probabilities there
    low: tuple[float, ...]
    high: tuple[float, ...]
    kind: ClassVar[str] = "isotonic"

    @classmethod
    def fit(
        cls,
        logits: ArrayLike,
        labels: ArrayLike,
        *,
        rng: np.random.Generator | None = None,
        groups: ArrayLike | None = None,
        resamples: int = 200,
        level: float = 0.95,
        **rows: Any,
    ) -> "Isotonic":
        """With `rng`, the band too. With fewer than 1000 positives it warns: `Platt` or `BetaCalibration` say more then."""
        z, y, w, record = fit_rows(logits, labels, **rows)
        if z.ndim != 1:
            raise ValueError("isotonic calibration is of one logit a row.")
        if record.counts[1] < 1000:
            warnings.warn(
                f"isotonic calibration on {record.counts[1]} positives is a coarse step function: prefer Platt or beta."
            )
        model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(z, y, sample_weight=w)
        knots, values = model.X_thresholds_, model.y_thresholds_
        low = high = np.full(len(knots), np.nan)
        if rng is not None:
            low, high = np.quantile(_refits(z, y, w, knots, groups, rng, resamples), [(1 - level) / 2, (1 + level) / 2], axis=0)
        return cls(*(tuple(map(float, v)) for v in (knots, values, low, high)), fitted_on=record)

    def probability(self, logits: ArrayLike) -> Array:
        return np.interp(np.asarray(logits, np.float64), self.knots, self.values)

    def interval(self, logits: ArrayLike) -> tuple[Array, Array]:
        """The band around `probability`; NaN if it was fitted without."""
        z = np.asarray(logits, np.float64)
        low, high = (np.array([np.nan if v is None else v for v in band], float) for band in (self.low, self.high))
        return np.interp(z, self.knots, low), np.interp(z, self.knots, high)

    def __call__(self, logits: ArrayLike) -> Array:
        """Logits of the probabilities, kept finite: a step without positives says p < 1/n, not 0, so p is cut at 1/(2n)."""
        edge = 0.5 / sum(self.fitted_on.counts)
        return np.asarray(logit(np.clip(self.probability(logits), edge, 1 - edge)), np.float64)


def _refits(
    z: Array, y: NDArray[np.int64], w: Array, knots: Array, groups: ArrayLike | None, rng: np.random.Generator, resamples: int
) -> Array:
    """The map at the knots in each resample [resamples, knots]; resampling is by weights, so rows keep their order."""
    label = np.arange(len(z)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    members = int(label.max()) + 1
    order = np.argsort(z, kind="stable")
    maps = np.empty((resamples, len(knots)))
    for k in range(resamples):
        times = np.bincount(rng.integers(0, members, members), minlength=members)[label][order]
        drawn = order[times > 0]
        model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        maps[k] = model.fit(z[drawn], y[drawn], sample_weight=times[times > 0] * w[drawn]).predict(knots)
    return maps
