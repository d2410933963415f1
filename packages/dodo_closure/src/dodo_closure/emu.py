"""Raw reduced output of a particle-in-cell simulation (one file, box averages over time) as one row of a database.

Rules of the published databases: the instability saturates at the first maximum of the flavor-off-diagonal density that follows
a rise of three decades; its growth rate is taken between 1e-3 and 1e-1 of that maximum; the final state is the mean from twice
the time of saturation on, and needs a run three times as long; the state must have settled to 5% of N, and both conservation
laws must hold to 1e-5 of N.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dodo_closure.fluxes import conservation_error, total_density
from dodo_closure.readers import Piece, opened
from skyloom.errors import DataError

__all__ = ["Reduced", "reduce_series", "reduced_row"]

TIME, COHERENCE = "time(s)", "N_offdiag_mag(1|ccm)"
_COLUMNS = [[f"{x}{k}{k}{bar}(1|ccm)" for x in ("Fx", "Fy", "Fz", "N")] for bar in ("", "bar") for k in range(3)]


@dataclass(frozen=True)
class Reduced:
    """What a series says: four-fluxes [2, 3, 4] in 1/cm^3, the growth rate in 1/s, and why it is of no use (or "")."""

    initial: np.ndarray
    final: np.ndarray
    deviation: np.ndarray
    growth: float
    saturation: float
    rejected: str


def saturation_index(coherence: np.ndarray) -> int:
    """The first local maximum that is 1000 times some earlier value; else the largest."""
    lowest = np.minimum.accumulate(coherence)
    inner = (coherence[1:-1] >= coherence[:-2]) & (coherence[1:-1] > coherence[2:]) & (coherence[1:-1] >= 1e3 * lowest[1:-1])
    return int(np.flatnonzero(inner)[0]) + 1 if inner.any() else int(coherence.argmax())


def reduce_series(time: np.ndarray, coherence: np.ndarray, F: np.ndarray) -> Reduced:
    """From time [T] in s, the off-diagonal density [T] and four-fluxes [T, 2, 3, 4] in 1/cm^3.

    >>> t = np.linspace(0, 20, 2001)
    >>> series = np.where(t < 5, np.exp(2 * (t - 5)), 0.9 + 0.1 * np.cos(t - 5))
    >>> round(reduce_series(t, series, np.ones((2001, 2, 3, 4))).growth, 3)
    2.0
    """
    top = saturation_index(coherence)
    rising = np.flatnonzero((coherence[:top] > 1e-3 * coherence[top]) & (coherence[:top] < 1e-1 * coherence[top]))
    growth = 0.0
    if len(rising) > 1:
        first, last = rising[0], rising[-1]
        growth = float(np.log(coherence[last] / coherence[first]) / (time[last] - time[first]))
    late = time >= time[0] + 2 * (time[top] - time[0])
    final, deviation = F[late].mean(axis=0), F[late].std(axis=0)
    before, after = torch.as_tensor(F[0])[None], torch.as_tensor(final)[None]
    total = float(total_density(before))
    violation = max(float(part.max()) for part in conservation_error(before, after))
    tests = {
        "run shorter than three times its saturation": time[-1] - time[0] <= 3 * (time[top] - time[0]),
        "no growth": growth <= 0,
        "final state not settled to 5% of N": deviation.max() > 0.05 * total,
        "not conserved to 1e-5 of N": violation > 1e-5,
    }
    rejected = next((reason for reason, bad in tests.items() if bad), "")
    return Reduced(F[0], final, deviation, growth, float(time[top]), rejected)


def reduced_row(path: Path) -> tuple[Piece, str]:
    """One file as a row, and why it is rejected (or "")."""
    with opened(path) as file:
        need = [TIME, COHERENCE, *(name for species in _COLUMNS for name in species)]
        missing = [name for name in need if name not in file]
        if missing:
            raise DataError(f"{path}: no data set {missing[0]!r}{f' and {len(missing) - 1} more' if missing[1:] else ''}.")
        series: dict[str, Any] = {name: np.asarray(file[name], dtype=np.float64).reshape(-1) for name in need}
    lengths = {name: len(values) for name, values in series.items()}
    if len(set(lengths.values())) > 1 or lengths[TIME] < 4:
        raise DataError(f"{path}: series of {min(lengths.values())} to {max(lengths.values())} times; 4 or more are needed.")
    F = np.stack([np.stack([series[name] for name in species], axis=-1) for species in _COLUMNS], axis=1)
    found = reduce_series(series[TIME], series[COHERENCE], F.reshape(-1, 2, 3, 4))
    row = Piece(found.initial[None], found.final[None], np.array([found.growth]), names=[str(path.parent)])
    return row, found.rejected
