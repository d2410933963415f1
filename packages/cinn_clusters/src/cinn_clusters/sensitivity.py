"""Which input matters for which target: how much the error grows when a column is withheld, and when it is permuted.

`ablation`: a model is trained anew without the column (or a group of columns). What others can stand in for costs nothing.
`permutation`: the trained model is given another cluster's value, from the same snapshot, so that no impossible epoch is
made; columns that are functions of each other (M500, R500) then still contradict each other, and are permuted together as a
group too. The error is the mean absolute error of the median, in units of the error of the best constant, so that targets
compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cinn_clusters.columns import INPUT_NAMES, TARGETS

__all__ = ["GROUPS", "Sensitivity", "ablation", "permutation", "relative_errors"]

_MASS = ("Group_M_Crit500", "Group_R_Crit500", "bcg_SubhaloMass", "GroupGasMass")
GROUPS: dict[str, tuple[int, ...]] = {name: (k,) for k, name in enumerate(INPUT_NAMES)} | {
    "all that follow mass": tuple(INPUT_NAMES.index(name) for name in _MASS)
}
"""What is withheld together: each column by itself, and the four that nearly are functions of each other."""


@dataclass(frozen=True)
class Sensitivity:
    """Growth of the relative error: rows are groups of inputs, columns are targets.

    Attributes:
        delta: `[G, D]`, error without the group less error with it; below zero, the group only did harm.
        error: Its standard error `[G, D]`.
        base: Relative errors with everything `[D]`: 1 is as bad as the best constant.
    """

    groups: tuple[str, ...]
    delta: np.ndarray
    error: np.ndarray
    base: np.ndarray

    def rows(self) -> list[dict[str, float | str]]:
        """As a table: one row per group."""
        return [
            {"withheld": name}
            | {column.name: float(self.delta[g, d]) for d, column in enumerate(TARGETS)}
            | {f"{column.name}_error": float(self.error[g, d]) for d, column in enumerate(TARGETS)}
            for g, name in enumerate(self.groups)
        ]


def relative_errors(truth: Tensor, estimate: Tensor, constant: Tensor) -> Tensor:
    """`|estimate - truth| / mean |constant - truth|` `[B, D]`: of mean 1 for the constant itself."""
    return (estimate - truth).abs() / (constant - truth).abs().mean(0)


def ablation(
    fit: Callable[[Sequence[int]], Callable[[Tensor], Tensor]],
    context: Tensor,
    truth: Tensor,
    constant: Tensor,
    clusters: Tensor,
    groups: Mapping[str, Sequence[int]] = GROUPS,
) -> Sensitivity:
    """Retrained without each group. `fit(columns)` trains on those columns and returns `estimate(context) -> [B, D]`.

    Standard errors are of the paired difference over clusters; the chance of training itself is not in them.
    """
    everything = list(range(context.shape[1]))
    base = relative_errors(truth, fit(everything)(context), constant)
    deltas = [
        relative_errors(truth, fit([k for k in everything if k not in set(left_out)])(context), constant) - base
        for left_out in groups.values()
    ]
    return _gathered(tuple(groups), torch.stack(deltas), base, clusters)


def permutation(
    estimate: Callable[[Tensor], Tensor],
    context: Tensor,
    truth: Tensor,
    constant: Tensor,
    clusters: Tensor,
    snapshots: Tensor,
    lookback: int,
    repeats: int = 20,
    groups: Mapping[str, Sequence[int]] = GROUPS,
    seed: int = 0,
) -> Sensitivity:
    """The trained model with each group exchanged between clusters of one snapshot (the lookback time: between all)."""
    g = torch.Generator().manual_seed(seed)
    base = relative_errors(truth, estimate(context), constant)
    deltas = []
    for columns in groups.values():
        total = torch.zeros_like(base)
        for _ in range(repeats):
            order = torch.randperm(len(context), generator=g) if lookback in columns else _within(snapshots, g)
            given = context.clone()
            given[:, list(columns)] = context[order][:, list(columns)]
            total += relative_errors(truth, estimate(given), constant) - base
        deltas.append(total / repeats)
    return _gathered(tuple(groups), torch.stack(deltas), base, clusters)


def _within(labels: Tensor, g: torch.Generator) -> Tensor:
    """A permutation that keeps every row within its label."""
    order = torch.arange(len(labels))
    for label in torch.unique(labels):
        rows = torch.nonzero(labels == label).squeeze(1)
        order[rows] = rows[torch.randperm(len(rows), generator=g)]
    return order


def _gathered(names: tuple[str, ...], deltas: Tensor, base: Tensor, clusters: Tensor) -> Sensitivity:
    """Means over rows `[G, B, D]`, with the standard error over clusters."""
    label = torch.unique(clusters, return_inverse=True)[1]
    n = int(label.max()) + 1
    mean = deltas.mean(1)
    sums = torch.zeros(deltas.shape[0], n, deltas.shape[2], dtype=deltas.dtype)
    sums.index_add_(1, label, deltas - mean[:, None])
    error = sums.square().sum(1).sqrt() / deltas.shape[1] * (n / max(n - 1, 1)) ** 0.5
    return Sensitivity(names, mean.double().numpy(), error.double().numpy(), base.mean(0).double().numpy())
