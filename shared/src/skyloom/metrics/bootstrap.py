"""Intervals for any score, by resampling rows or whole groups of rows (Efron 1979; cluster bootstrap, Field and Welsh 2007)."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Estimate", "bootstrap"]


class Estimate(float):
    """A number with its interval.

    >>> e = Estimate(0.9, 0.8, 0.95)
    >>> e > 0.85, e.low, e.high
    (True, 0.8, 0.95)
    """

    low: float
    high: float

    def __new__(cls, value: float, low: float = math.nan, high: float = math.nan) -> "Estimate":
        estimate = super().__new__(cls, value)
        estimate.low, estimate.high = low, high
        return estimate

    def to_json(self) -> dict[str, float]:
        return {"value": float(self), "low": self.low, "high": self.high}


class Resample(Mapping[str, Tensor]):
    """Rows `index` of every column, drawn when a score reads it: samples that no score reads are not copied."""

    def __init__(self, columns: Mapping[str, Tensor], index: Tensor):
        self._columns, self._index, self._drawn = columns, index, dict[str, Tensor]()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._drawn:
            self._drawn[name] = self._columns[name][self._index]
        return self._drawn[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def bootstrap(
    score: Callable[[Any], Mapping[str, float]],
    predictions: Mapping[str, Tensor],
    groups: Tensor | None,
    rng: np.random.Generator,
    resamples: int = 200,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Each score of `predictions` with its percentile interval.

    Groups (a cluster, a simulation) are drawn with replacement, all rows of one together: rows of one group are not
    independent, and resampling them one by one would make intervals too short. Resamples in which a score is undefined
    (one class absent) do not count for that score.
    """
    rows = len(next(iter(predictions.values())))
    label: Any = np.arange(rows) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    order = np.argsort(label, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    draws: dict[str, list[float]] = {}
    for _ in range(resamples if len(members) > 1 else 0):  # one group tells nothing of how groups differ
        chosen = rng.integers(0, len(members), len(members))
        index = torch.as_tensor(np.concatenate([members[k] for k in chosen]) if groups is not None else chosen)
        for name, value in score(Resample(predictions, index)).items():
            draws.setdefault(name, []).append(float(value))
    estimates = {}
    for name, value in score(predictions).items():
        finite = np.array([d for d in draws.get(name, []) if math.isfinite(d)])
        low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2]) if len(finite) > 1 else (math.nan, math.nan)
        estimates[name] = Estimate(float(value), float(low), float(high))
    return estimates
