"""From scores to confirmed discoveries: hours of inspection, follow-up, cost."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import ConfigError
from skyloom.metrics.prevalence import Prevalence, _prevalence_draws, rate_draws
from skyloom.metrics.ranking import Ranking

__all__ = ["DiscoveryCurve", "Inspection", "discovery_curve"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Inspection:
    """How candidates are looked at: rates and probabilities, with costs in one currency of your choice."""

    rate: float  # candidates per hour
    sensitivity: float = 1.0  # P(kept | positive)
    specificity: float = 1.0  # P(dropped | negative)
    confirmation: float = 1.0  # P(confirmed by follow-up | positive and kept)
    hour_cost: float = 0.0  # of an hour of inspection
    follow_up_cost: float = 0.0  # of following up one kept candidate, true or not

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ConfigError(f"candidates are inspected at a rate above 0 per hour, not {self.rate}.")
        for name in ("sensitivity", "specificity", "confirmation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a probability, not {getattr(self, name)}.")


@dataclass(frozen=True)
class DiscoveryCurve:
    """Against the threshold, from the top: expected values, and bounds of the discoveries."""

    threshold: Array
    candidates: Array
    hours: Array
    followed_up: Array
    discoveries: Array
    discoveries_low: Array
    discoveries_high: Array
    cost: Array


def discovery_curve(
    ranking: Ranking,
    rows: float,
    prevalence: float | Prevalence,
    inspection: Inspection,
    rng: np.random.Generator,
    *,
    points: int = 200,
    draws: int = 1000,
    level: float = 0.9,
) -> DiscoveryCurve:
    """Discoveries, hours and cost of inspecting everything above a threshold among `rows` objects of a survey.

        candidates   C = N (pi T + (1 - pi) F)              hours        H = C / rate
        followed up  K = N (pi T s + (1 - pi) F (1 - c))    discoveries  D = N pi T s q
        cost           = H hour_cost + K follow_up_cost

    T, F: TPR and FPR at the threshold; s, c: the inspector's sensitivity and specificity; q: the probability of confirmation.
    Precision is that of the survey, by its prevalence pi, never that of an enriched sample. The band is over the posteriors
    of T and the uncertainty of pi. The last threshold flags everything, so that there D = N pi s q.
    """
    if ranking.one_class:
        raise ConfigError("a discovery curve needs scores of positives and of negatives.")
    _, _, levels = ranking.precision_recall()
    if len(levels) > points:
        levels = levels[np.unique(np.geomspace(1, len(levels), points).round().astype(int)) - 1]
    levels = np.append(levels, -np.inf)
    true, false = ranking.flagged(levels)
    value, pi = _prevalence_draws(prevalence, rng, draws)
    t, f = true / ranking.n_positive, false / ranking.n_negative
    positives, negatives = rows * value * t, rows * (1 - value) * f
    kept = positives * inspection.sensitivity + negatives * (1 - inspection.specificity)
    hours = (positives + negatives) / inspection.rate
    drawn, _ = rate_draws(true, ranking.n_positive, false, ranking.n_negative, rng, draws)
    drawn[:, -1] = 1.0  # everything is flagged: nothing is unknown of its TPR
    found = rows * pi[:, None] * drawn * inspection.sensitivity * inspection.confirmation
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return DiscoveryCurve(
        levels,
        positives + negatives,
        hours,
        kept,
        positives * inspection.sensitivity * inspection.confirmation,
        low,
        high,
        hours * inspection.hour_cost + kept * inspection.follow_up_cost,
    )
