"""Tests of a split's calibration: p-values, from rows that are independent."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from cinn_clusters.columns import TARGETS
from skyloom.calibration import one_per_group, uniformity
from skyloom.run.seeds import numpy_generator

__all__ = ["independent_p_values", "independent_rows"]

FEWEST = 20  # independent rows, below which a test would mean nothing


def independent_p_values(p: Mapping[str, Tensor]) -> dict[str, float]:
    """p-values of uniformity of the ranks of each target (`sbc_*`), of TARP's coverage (`tarp_p`), and of the probability of
    the smallest region of highest density (`joint_p`). Small where the posterior is biased, too wide or too narrow.

    Snapshots of one cluster share their merger, so the tests use one row of each cluster, drawn by lot.
    """
    rows = independent_rows(p["cluster_id"])
    if len(rows) < FEWEST:
        return dict.fromkeys([*(f"sbc_{column.symbol}_p" for column in TARGETS), "sbc_least_p", "tarp_p", "joint_p"], math.nan)
    ranks = uniformity(p["rank"][rows].double())
    scores = {f"sbc_{column.symbol}_p": float(value) for column, value in zip(TARGETS, ranks.p, strict=True)}
    scores["sbc_least_p"] = min(scores.values())
    joint = uniformity(torch.stack([p["tarp"][rows], p["credibility"][rows]], 1).double())
    return scores | {"tarp_p": float(joint.p[0]), "joint_p": float(joint.p[1])}


def independent_rows(clusters: Tensor | np.ndarray) -> np.ndarray:
    """One row of each cluster, drawn by lot, always the same for the same clusters."""
    return one_per_group(np.asarray(clusters), numpy_generator(0, "one row of each cluster"))
