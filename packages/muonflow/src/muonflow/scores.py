"""Metrics over a whole split, from predictions per event."""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "ENERGY_BINS",
    "Held",
    "auc_of_two_samples",
    "ks_distance",
    "multiplicity_distance",
    "muon_distances",
    "muon_weights",
    "per_muon",
    "pit_distances",
    "tail_indices",
    "wasserstein",
    "wasserstein_in_bins",
]

CELL, CELLS = 0.01, (-20.0, 20.0, 4000)  # of ln E and ln r, and between which values
ENERGY_BINS = (2.0, 4.75, 5.25, 5.75, 6.5, 8.01)  # edges in log10(E0 / GeV)


def per_muon(log_prob: Tensor, count: Tensor) -> float:
    """Mean of -ln p over all muons, from its sums per event [B]: every muon weighs the same, every event as its muons."""
    muons = float(count.sum())
    return -float(log_prob.double().sum()) / muons if muons else float("nan")


def muon_weights(muons: Tensor, count: Tensor) -> Tensor:
    """How many muons of its event each of the packed ones [B, K] stands for: N / min(N, K)."""
    held = (~torch.isnan(muons[..., 0])).sum(1, keepdim=True).clamp(min=1)
    return (count[:, None] / held).expand(muons.shape[:2])


class Held(NamedTuple):
    """The packed muons of a split, one after another."""

    event: Tensor  # [K]
    observed: Tensor  # [K, 2] GeV, m
    generated: Tensor
    weight: Tensor  # [K] muons that each stands for

    @staticmethod
    def of(p: Mapping[str, Tensor]) -> "Held":
        there = torch.nonzero(~torch.isnan(p["observed"][..., 0]).flatten()).flatten()
        event = there // p["observed"].shape[1]
        held = torch.bincount(event, minlength=len(p["count"]))
        observed, generated = (p[name].flatten(0, 1).index_select(0, there) for name in ("observed", "generated"))
        return Held(event, observed, generated, p["count"][event] / held[event])


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


def muon_distances(p: dict[str, Tensor], held: Held | None = None) -> dict[str, float]:
    """KS distances of energy and distance from the axis, generated against observed; shares of impossible energies."""
    event, observed, generated, weight = held or Held.of(p)
    ceiling = (p["condition"][:, 0] / p["condition"][:, 2])[event]
    filled = p["count"] > 0
    return {
        "ks_energy": ks_distance(observed[:, 0], generated[:, 0], weight, weight),
        "ks_radius": ks_distance(observed[:, 1], generated[:, 1], weight, weight),
        "above_ceiling": float((generated[:, 0] > ceiling).float().mean()),
        "sum_above_primary": float((p["generated_energy"] > p["condition"][:, 0])[filled].float().mean()),
    }


def wasserstein(a: Tensor, b: Tensor, weight_a: Tensor, weight_b: Tensor) -> float:
    """Area between two weighted distribution functions, in the unit of the values: how far one must be carried to the other.

    >>> one = torch.ones(2)
    >>> wasserstein(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), one, one)
    2.0
    """
    values, order = torch.cat([a, b]).double().sort()
    steps = torch.cat([weight_a / weight_a.sum(), -weight_b / weight_b.sum()]).double()[order]
    return float((torch.cumsum(steps, 0)[:-1].abs() * values.diff()).sum())


def wasserstein_in_bins(p: dict[str, Tensor], held: Held | None = None, fewest: int = 200) -> dict[str, float]:
    """Largest Wasserstein distance of ln E and of ln r, generated against observed, over nine bins of the condition: thirds of
    the muons by primary energy, and by depth. A model may have every marginal right and no condition.

    From histograms of cells of 0.01, which takes no sorting: the distance is right to that.
    """
    event, *samples, weight = held or Held.of(p)
    by_energy, by_depth = (_thirds(p["condition"][event, column]) for column in (0, 3))
    place = 3 * by_energy + by_depth
    enough = torch.bincount(place, minlength=9) >= fewest
    out = {}
    for k, name in enumerate(("w1_energy", "w1_radius")):
        shares = []
        for values in samples:
            cell = ((values[:, k].log() - CELLS[0]) / CELL).long().clamp(0, CELLS[2] - 1)
            counts = torch.bincount(place * CELLS[2] + cell, weight.double(), minlength=9 * CELLS[2]).view(9, -1)
            shares.append(torch.cumsum(counts, 1) / counts.sum(1, keepdim=True))
        distances = (shares[0] - shares[1]).abs().sum(1)[enough] * CELL
        out[name] = float(distances.max()) if len(distances) else float("nan")
    return out


def _thirds(values: Tensor) -> Tensor:
    """0, 1 or 2: in which third of the values each lies."""
    if not len(values):
        return values.long()
    cuts = [values.kthvalue(len(values) * k // 3 + 1).values for k in (1, 2)]
    return torch.bucketize(values, torch.stack(cuts), right=True)


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


def pit_distances(p: dict[str, Tensor]) -> dict[str, float]:
    """Largest distance of the ranks of observed muons among generated ones of their own condition from uniform: energy, radius.

    Ranks take the values 0, 1/K … 1, each in a share 1 / (K + 1) of the muons if the conditional densities are right.
    """
    out = {}
    for k, name in enumerate(("energy", "radius")):
        ranks = p["pit"][..., k]
        ranks = ranks[~torch.isnan(ranks)].double()
        levels = torch.unique(ranks)
        if not len(levels):
            out[f"pit_{name}"] = float("nan")
            continue
        rivals = max(round(1 / float(levels.diff().min())), 1) if len(levels) > 1 else 1
        seen = torch.bincount((ranks * rivals).round().long(), minlength=rivals + 1).double().cumsum(0) / len(ranks)
        even = torch.arange(1, rivals + 2, dtype=torch.float64) / (rivals + 1)
        out[f"pit_{name}"] = float((seen - even).abs().max())
    return out


def tail_indices(p: dict[str, Tensor], held: Held | None = None, share: float = 0.005) -> dict[str, float]:
    """Hill's estimate of the upper tail of ln r of generated over that of observed muons: 1 where tails agree.

    From the farthest `share` of the muons, or the farthest 20."""
    from skyloom.flows import hill

    observed, generated = (torch.log(values[:, 1:].double()) for values in (held or Held.of(p))[1:3])
    share = max(share, 20 / max(len(observed), 1))
    if share > 0.2:
        return {"hill_ratio": float("nan")}
    return {"hill_ratio": float(hill(generated, share)[1, 0] / hill(observed, share)[1, 0])}


def auc_of_two_samples(p: dict[str, Tensor]) -> float:
    """Area under the ROC of a classifier that tells generated muons from observed ones, from its held-out scores `told_apart`
    [B, SLOTS, 2] (observed, generated); 0.5 where it cannot."""
    there = ~torch.isnan(p["told_apart"][..., 0])
    observed, generated = p["told_apart"][there].double().unbind(-1)
    if not len(observed):
        return float("nan")
    order = torch.cat([observed, generated]).sort()
    _, rank_of, size = torch.unique_consecutive(order.values, return_inverse=True, return_counts=True)
    middle = size.cumsum(0) - (size - 1) / 2  # equal scores share their mean rank
    ranks = torch.empty_like(order.values)
    ranks[order.indices] = middle[rank_of].double()
    n = len(observed)
    return float((ranks[n:].sum() - n * (n + 1) / 2) / n**2)
