"""Expected coverage: of the regions that should hold the truth with probability q, how many do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skyloom.calibration.sbc import pit

__all__ = ["LEVELS", "Coverage", "central_credibility", "density_credibility", "expected_coverage"]

Array = NDArray[np.float64]
LEVELS = (0.5, 0.68, 0.9, 0.95)


def central_credibility(draws: Tensor, truth: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """For each column the probability of the smallest central interval that holds the truth `[B, D]`: uniform if exact."""
    return (2 * pit(draws, truth, generator) - 1).abs()


def density_credibility(log_prob_draws: Tensor, log_prob_truth: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The probability of the smallest region of highest joint density that holds the truth `[B]`: uniform if exact.

    From `ln p` of the draws `[B, S]` and of the truth `[B]` under the posterior that is tested (Hermans et al. 2022,
    arXiv 2110.06581).
    """
    return 1 - pit(log_prob_draws.unsqueeze(-1), log_prob_truth.unsqueeze(-1), generator).squeeze(-1)


@dataclass(frozen=True)
class Coverage:
    """Shares of truths inside of regions of probability `levels` `[L]`; `share`, `low`, `high` `[L]` or `[L, D]`."""

    levels: Array
    share: Array
    low: Array
    high: Array

    @property
    def error(self) -> float:
        """Largest distance of a share from its level."""
        return float(np.abs(self.share - self._wanted).max())

    @property
    def consistent(self) -> bool:
        """Whether every interval holds its level."""
        return bool(((self.low <= self._wanted) & (self._wanted <= self.high)).all())

    @property
    def _wanted(self) -> Array:
        return self.levels.reshape(-1, *[1] * (self.share.ndim - 1))


def expected_coverage(
    credibility: Any,
    levels: Any = LEVELS,
    groups: Any = None,
    rng: np.random.Generator | None = None,
    level: float = 0.95,
) -> Coverage:
    """Shares of objects whose truth lies in the region of each probability, with intervals.

    Arguments:
        credibility: Probability of the smallest region that holds each truth, `[B]` or `[B, D]` (see the functions of this
            file, and `skyloom.calibration.tarp`).
        levels: Probabilities of the regions.
        groups: Rows `[B]` that belong together; the interval is then a bootstrap of whole groups, else Wilson's.
        level: Of the intervals.

    >>> expected_coverage([0.1, 0.3, 0.5, 0.7, 0.9], levels=[0.6]).share.tolist()
    [0.6]
    """
    from skyloom.metrics.proportions import wilson

    u, wanted = np.asarray(credibility, dtype=np.float64), np.atleast_1d(np.asarray(levels, dtype=np.float64))
    inside = (u[None] <= wanted.reshape(-1, *[1] * u.ndim)).astype(np.float64)  # [L, B, ...]
    share = inside.mean(1)
    if groups is None:
        low, high = wilson(inside.sum(1), u.shape[0], level)
    else:
        low, high = _grouped(inside, np.asarray(groups), rng or np.random.default_rng(0), level)
    return Coverage(wanted, share, low, high)


def _grouped(inside: Array, groups: Any, rng: np.random.Generator, level: float, resamples: int = 1000) -> tuple[Array, Array]:
    """Percentile interval of shares `[L, B, ...]` over resamples of whole groups."""
    label = np.unique(groups, return_inverse=True)[1]
    n = int(label.max()) + 1
    flat = np.moveaxis(inside, 1, 0).reshape(inside.shape[1], -1)
    hits = np.zeros((n, flat.shape[1]))
    np.add.at(hits, label, flat)
    weight = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    shares = weight @ hits / (weight @ np.bincount(label, minlength=n))[:, None]
    ends = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2], axis=0)
    shape = (inside.shape[0], *inside.shape[2:])
    return ends[0].reshape(shape), ends[1].reshape(shape)
