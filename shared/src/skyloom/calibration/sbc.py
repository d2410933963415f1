"""Simulation-based calibration: where the truth ranks among the draws of its posterior, and whether those ranks are uniform.

If a pair (truth, data) comes from the joint distribution, and the draws from the exact posterior given the data, the truth is
one more draw: its rank is uniform on `0, 1, ..., S`. Biased posteriors tilt the histogram of ranks, narrow ones bend it up (a
U), wide ones down. Draws are `[B, S, D]`, truths `[B, D]` (a flow gives `[S, B, D]`: transpose it).

References: Talts et al. 2018 (arXiv 1804.06788); bands: Säilynoja et al. 2022 (arXiv 2103.10522).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skyloom.errors import DataError

__all__ = ["Uniformity", "ecdf_band", "histogram_band", "one_per_group", "pit", "ranks", "uniformity"]

Array = NDArray[np.float64]
POINTS = 100  # at which an empirical distribution is compared with its band
NULL = 2000  # samples of the null distribution


def ranks(draws: Tensor, truth: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """How many draws lie below the truth `[B, D]`, 0 to S; among equal values its place is drawn by lot.

    >>> ranks(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[2.5]]))
    tensor([[2]])
    """
    below = torch.empty(truth.shape, dtype=torch.long, device=truth.device)
    equal = torch.empty_like(below)
    for rows, part in _parts(draws):  # a piece at a time: comparisons of all draws at once would take their memory again
        below[rows] = (part < truth[rows].unsqueeze(1)).sum(1)
        equal[rows] = (part == truth[rows].unsqueeze(1)).sum(1)
    place = torch.rand(truth.shape, generator=generator, device=truth.device, dtype=torch.float64)
    return below + (place * (equal + 1)).long().clamp(max=equal)


def pit(draws: Tensor, truth: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Probability integral transform `[B, D]`: `(rank + u) / (S + 1)`, `u` uniform; uniform on [0, 1] if exact."""
    u = torch.rand(truth.shape, generator=generator, device=truth.device, dtype=torch.float64)
    return (ranks(draws, truth, generator) + u) / (draws.shape[1] + 1)


@dataclass(frozen=True)
class Uniformity:
    """Tests of uniformity, one number for each column.

    Attributes:
        ks, p_ks: Largest distance of the empirical distribution from the diagonal (Kolmogorov), and its p-value: sees bias.
        chi2, p_chi2: Pearson's statistic of the histogram, and its p-value.
        p_band: p-value of the simultaneous band of the empirical distribution (`ecdf_band`): sees too wide and too narrow as
        well.
        tilt: Mean of the values less 1/2, in units of its own deviation: negative where posteriors lie too high.
        bend: Mean of `(u - 1/2)^2` less 1/12, likewise: positive where posteriors are too narrow.
        p: The p-value to decide by, that of the band.
    """

    rows: int
    ks: Array
    p_ks: Array
    chi2: Array
    p_chi2: Array
    p_band: Array
    tilt: Array
    bend: Array

    @property
    def p(self) -> Array:
        return self.p_band

    def passed(self, least: float = 0.01) -> bool:
        """Whether no column has `p` of at most `least` (shared out over the columns, as Bonferroni does)."""
        return bool((self.p > least / len(self.p)).all())


def uniformity(values: Any, bins: int = 20) -> Uniformity:
    """Are numbers `[B]` or `[B, D]` on [0, 1], from independent rows, uniform?

    Rows that belong together (snapshots of one cluster) are not independent and make p-values too small: see `one_per_group`.
    """
    from scipy.stats import chi2 as chi2_law
    from scipy.stats import kstest

    u = np.asarray(values, dtype=np.float64)
    u = u[:, None] if u.ndim == 1 else u
    rows = len(u)
    if rows < 10 or not np.isfinite(u).all() or u.min() < 0 or u.max() > 1:
        raise DataError(f"a test of uniformity needs ten or more numbers between 0 and 1, found {rows} (see `pit`).")
    tests = [kstest(column, "uniform") for column in u.T]
    counts = np.stack([np.histogram(column, bins, (0, 1))[0] for column in u.T])
    chi2 = ((counts - rows / bins) ** 2).sum(1) / (rows / bins)
    gamma = _gamma(_counts_below(u), rows)
    null = _null(rows)
    centred = u - 0.5
    return Uniformity(
        rows,
        np.array([t.statistic for t in tests]),
        np.array([t.pvalue for t in tests]),
        chi2,
        chi2_law.sf(chi2, bins - 1),
        (1 + (null[None] <= gamma[:, None]).sum(1)) / (1 + len(null)),
        centred.mean(0) * np.sqrt(12 * rows),
        ((centred**2).mean(0) - 1 / 12) * np.sqrt(180 * rows),
    )


def ecdf_band(rows: int, level: float = 0.99) -> tuple[Array, Array, Array]:
    """Points on (0, 1), and the band that the empirical distribution of uniform numbers leaves with probability `1 - level`."""
    from scipy.stats import binom

    points = _points()
    gamma = float(np.quantile(_null(rows), 1 - level))
    low, high = binom.ppf(gamma / 2, rows, points), binom.isf(gamma / 2, rows, points)
    return points, low / rows, high / rows


def histogram_band(rows: int, bins: int = 20, level: float = 0.99) -> tuple[float, float]:
    """Counts between which each bin of a uniform histogram lies with probability `level` (one bin by itself)."""
    from scipy.stats import binom

    tail = (1 - level) / 2
    return float(binom.ppf(tail, rows, 1 / bins)), float(binom.isf(tail, rows, 1 / bins))


def one_per_group(groups: Any, rng: np.random.Generator) -> NDArray[np.int64]:
    """Index of one row of every group, drawn by lot: rows that are independent, for a test that needs it."""
    label = np.unique(np.asarray(groups), return_inverse=True)[1]
    order = rng.permutation(len(label))
    _, first = np.unique(label[order], return_index=True)
    return np.sort(order[first])


def _points() -> Array:
    return np.arange(1, POINTS) / POINTS


def _counts_below(u: Array) -> Array:
    """How many values lie at or below each point `[D, POINTS - 1]`."""
    return np.stack([np.searchsorted(np.sort(column), _points(), side="right") for column in u.T]).astype(np.float64)


def _gamma(counts: Array, rows: int) -> Array:
    """The smallest two-sided binomial tail among the points: small where an empirical distribution strays anywhere."""
    from scipy.stats import binom

    points = _points()
    return 2 * np.minimum(binom.cdf(counts, rows, points), binom.sf(counts - 1, rows, points)).min(1)


@lru_cache(maxsize=64)
def _null(rows: int) -> Array:
    """`_gamma` of uniform samples of that many rows."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(rows, np.full(POINTS, 1 / POINTS), size=NULL).cumsum(1)[:, :-1]
    return _gamma(counts.astype(np.float64), rows)


def _parts(draws: Tensor, numbers: int = 8_000_000) -> list[tuple[slice, Tensor]]:
    """Pieces of objects of about `numbers` numbers."""
    height = max(1, numbers // max(1, draws[0].numel()))
    return [(slice(k, k + height), draws[k : k + height]) for k in range(0, len(draws), height)]
