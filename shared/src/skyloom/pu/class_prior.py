"""The share of positives among the unlabeled: a number with an interval, from which population, and whether it can be told.

Without a negative the prior is identified only as an upper bound: any smaller prior fits the same data with a negative class
that looks partly positive (Blanchard, Lee and Scott 2010). Every estimator here therefore assumes a region that holds
positives alone (irreducibility) and labelled rows drawn like the positives within U; it says `refused` where the data leave
the prior open.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from skyloom.errors import DataError
from skyloom.pu.settings import check_prior

__all__ = ["ClassPrior", "PriorRefused", "bootstrap_prior", "external_prior"]


class PriorRefused(DataError):
    """The data cannot tell the prior; the message says how much they tell, and what to do."""


@dataclass(frozen=True)
class ClassPrior:
    """A class prior of the unlabeled population with a 95% interval.

    `value` is what the method's formula gave even where it is refused; `float(prior)` raises then.

    >>> float(external_prior(1e-3, 5e-4, 3e-3, population="optical clusters, ground-based"))
    0.001
    """

    value: float
    low: float
    high: float
    method: str
    population: str = "the unlabeled sample"
    refused: str = ""

    def __float__(self) -> float:
        if self.refused:
            raise PriorRefused(
                f"{self.method}: the data cannot tell the prior of {self.population}: {self.refused}. It lies below "
                f"{self.high:.3g} (95%). Give one from elsewhere with external_prior(value, low, high, population), or a "
                "sharper scorer and more labelled rows."
            )
        return self.value

    def otherwise(self, other: "ClassPrior") -> "ClassPrior":
        """This estimate, or the other where this one is refused."""
        return other if self.refused else self

    def to_json(self) -> dict[str, float | str]:
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "method": self.method,
            "population": self.population,
            "refused": self.refused,
        }

    def judged(self, spread: float) -> "ClassPrior":
        """Refused where a limit is further than a factor `spread` from the value, or there is no value."""
        if not math.isfinite(self.value) or self.value <= 0:
            reason = "no estimate above zero"
        elif not self.high <= spread * self.value or not self.value <= spread * self.low:
            reason = f"the interval [{self.low:.3g}, {self.high:.3g}] is wider than a factor {spread:g} either way"
        elif self.value >= 1:
            reason = "the unlabeled look like the labelled throughout"
        else:
            reason = ""
        return replace(self, refused=reason)


def external_prior(value: float, low: float, high: float, population: str) -> ClassPrior:
    """A prior known from elsewhere, with its interval. A prior is of a selection: it must be named.

    >>> external_prior(1e-3, 5e-4, 3e-3, population="")
    Traceback (most recent call last):
    ...
    skyloom.errors.DataError: a prior is the property of a selection: name its population, e.g. 'DESI Legacy clusters, r < 22'.
    """
    if not population.strip():
        raise DataError("a prior is the property of a selection: name its population, e.g. 'DESI Legacy clusters, r < 22'.")
    if not 0 <= low <= value <= high <= 1:
        raise DataError(f"the interval [{low}, {high}] of a prior must hold its value {value} and lie within [0, 1].")
    return ClassPrior(check_prior(value), low, high, "external", population)


def bootstrap_prior(
    estimate: Callable[[np.ndarray, np.ndarray], float],
    p: np.ndarray,
    u: np.ndarray,
    resamples: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Limits and median of an estimate under resampling of P and U, each for itself: low, median, high."""
    draws = [estimate(p[rng.integers(0, len(p), len(p))], u[rng.integers(0, len(u), len(u))]) for _ in range(resamples)]
    low, middle, high = np.quantile(draws, [(1 - level) / 2, 0.5, (1 + level) / 2])
    return float(low), float(middle), float(high)


def two_samples(p: np.ndarray, u: np.ndarray, fewest: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """P and U as finite float64 arrays, enough of each."""
    p, u = np.asarray(p, dtype=np.float64), np.asarray(u, dtype=np.float64)
    for name, rows in (("labelled", p), ("unlabeled", u)):
        if len(rows) < fewest:
            raise DataError(f"{len(rows)} {name} rows are too few to estimate a prior; at least {fewest} are needed.")
        if not np.isfinite(rows).all():
            raise DataError(f"the {name} rows hold values that are not finite.")
    return p, u
