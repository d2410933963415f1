"""Metrics over a whole split, from predictions per event."""

from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["ENERGY_BINS", "ks_distance", "multiplicity_distance", "muon_distances", "muon_weights", "per_muon"]

ENERGY_BINS = (2.0, 4.75, 5.25, 5.75, 6.5, 8.01)  # edges in log10(E0 / GeV)


def per_muon(log_prob: Tensor, count: Tensor) -> float:
    """Mean of -ln p over all muons, from its sums per event [B]: every muon weighs the same, every event as its muons."""
    muons = float(count.sum())
    return -float(log_prob.double().sum()) / muons if muons else float("nan")


def muon_weights(muons: Tensor, count: Tensor) -> Tensor:
    """How many muons of its event each of the packed ones [B, K] stands for: N / min(N, K)."""
    held = (~torch.isnan(muons[..., 0])).sum(1, keepdim=True).clamp(min=1)
    return (count[:, None] / held).expand(muons.shape[:2])


def ks_distance(a: Tensor, b: Tensor, weight_a: Tensor, weight_b: Tensor) -> float:
    """Largest difference of two weighted distribution functions (a distance, not a significance).

    >>> one = torch.ones(2)
    >>> ks_distance(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), one, one)
    1.0
    """
    if not len(a) or not len(b):
        return float("nan")
    values, order = torch.cat([a, b]).sort()
    steps = torch.cat([weight_a / weight_a.sum(), -weight_b / weight_b.sum()])[order].double()
    gap = torch.cumsum(steps, 0).abs()
    last = torch.cat([values[1:] != values[:-1], torch.tensor([True])])  # of equal values only the last counts
    return float(gap[last].max())


def muon_distances(p: dict[str, Tensor]) -> dict[str, float]:
    """KS distances of energy and distance from the axis, generated against observed; shares of impossible energies."""
    there = ~torch.isnan(p["observed"][..., 0])
    weight = muon_weights(p["observed"], p["count"])[there]
    observed, generated = p["observed"][there], p["generated"][there]
    ceiling = (p["condition"][:, 0] / p["condition"][:, 2])[:, None].expand(there.shape)[there]
    filled = p["count"] > 0
    return {
        "ks_energy": ks_distance(observed[:, 0], generated[:, 0], weight, weight),
        "ks_radius": ks_distance(observed[:, 1], generated[:, 1], weight, weight),
        "above_ceiling": float((generated[:, 0] > ceiling).float().mean()),
        "sum_above_primary": float((p["generated_energy"] > p["condition"][:, 0])[filled].float().mean()),
    }


def multiplicity_distance(p: dict[str, Tensor]) -> float:
    """Largest total variation, over bins of primary energy, between predicted and true P(N | N >= 1) of the events that have
    muons; bins of fewer than 20 events are left out."""
    log_energy, some = torch.log10(p["condition"][:, 0]), p["count"] > 0
    worst = float("nan")
    for low, high in pairwise(ENERGY_BINS):
        chosen = some & (log_energy >= low) & (log_energy < high)
        if int(chosen.sum()) < 20:
            continue
        gap = p["multiplicity"][chosen].mean(0) - p["multiplicity_oracle"][chosen].mean(0)
        distance = 0.5 * float(gap.abs().sum())
        worst = distance if worst != worst else max(worst, distance)
    return worst
