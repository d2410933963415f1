"""Point estimates of the true posterior: the least errors that any estimate of their kind can have.

The median of the true posterior has the least expected absolute error there is. Its maximum aims at another number: where a
posterior is skewed its mode lies beside the median, and errs more, however well it is found.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cinn_clusters.data import RATIO_CEILING
from cinn_clusters.posteriors import interval_coverage
from cinn_clusters.truth import log_joint, posterior_draws
from skyloom.calibration import pit

__all__ = ["true_coverage", "true_estimates"]

Array = NDArray[np.float64]
HIGHEST_RATIO = 1.0


def true_estimates(
    context: Array, to_target: Any, draws: int = 400, steps: int = 300, seed: int = 0, ceiling: float = RATIO_CEILING
) -> dict[str, Array]:
    """Medians of the marginals, and the maximum of the joint density, of the true posterior: `median` and `map` `[N, 6]`.

    The maximum is that of the density in the coordinates `to_target` (those that the flow models, see
    `MergerPosterior.map_estimate`). From the likeliest of the draws it is climbed by random steps, kept where the density
    grows, whose size follows their success (the one-fifth rule; Rechenberg 1973).
    """
    rng = np.random.default_rng(seed)
    seen = torch.as_tensor(context, dtype=torch.float64)
    sample = posterior_draws(context, draws, seed)  # [N, S, 6]

    def density(z: Array) -> tuple[Array, Array]:
        """In the coordinates `z` `[N, 6]`, up to a constant of each row, and the merger there."""
        y = to_target.inverse(torch.as_tensor(z), seen)
        ladj = to_target(y, seen)[1].sum(-1).numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            found = log_joint(context, y.numpy(), ceiling) - ladj
        return np.where(np.isfinite(found), found, -np.inf), y.numpy()

    coordinates = np.stack([_coordinates(to_target, sample[:, k], seen, ceiling) for k in range(draws)], 1)
    height = np.stack([density(coordinates[:, k])[0] for k in range(min(draws, 100))], 1)
    at = coordinates[np.arange(len(context)), height.argmax(1)]
    best, stride, spread = height.max(1), np.full(len(context), 0.3), coordinates.std(1)
    for _ in range(steps):
        tried = at + stride[:, None] * spread * rng.normal(size=at.shape)
        value, _ = density(tried)
        better = value > best
        at, best = np.where(better[:, None], tried, at), np.where(better, value, best)
        stride = np.clip(stride * np.where(better, 1.5, 1.5**-0.25), 1e-4, 1.0)
    mode = density(at)[1]
    mode[:, 4] = np.minimum(mode[:, 4], HIGHEST_RATIO)
    return {"median": np.median(sample, 1), "map": mode}


def true_coverage(context: Array, target: Array, level: float, draws: int = 300, seed: int = 0) -> Array:
    """Share of mergers `target` `[N, 6]` inside of the true posterior's central intervals of probability `level`, per target.

    Of few hundred mergers it departs from `level` by chance, and a flow's coverage of the same rows with it.
    """
    sample = torch.as_tensor(posterior_draws(context, draws, seed))
    generator = torch.Generator().manual_seed(seed)
    return interval_coverage(pit(sample, torch.as_tensor(target), generator), level).numpy()


def _coordinates(to_target: Any, mergers: Array, context: torch.Tensor, ceiling: float) -> Array:
    """Of mergers `[N, 6]`, those at the cap of the mass ratio in the middle of what is spread out beyond it."""
    mergers = mergers.copy()
    mergers[:, 4] = np.where(mergers[:, 4] >= HIGHEST_RATIO, (1 + ceiling) / 2, mergers[:, 4])
    return to_target(torch.as_tensor(mergers), context)[0].numpy()
