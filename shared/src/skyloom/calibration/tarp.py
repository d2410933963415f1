"""TARP: coverage of the joint posterior, from draws alone, by balls around points that know nothing of the truth.

For each object a reference point r is chosen without looking at the truth; the share `f` of draws closer to r than the truth is
uniform if the posterior is exact, and for references enough, only then. It needs no density.

Against the reference implementation (`tarp`, with which the numbers agree): reference points are in the units of the draws and
are scaled with them, ties are broken by lot, intervals come from resampling objects, and neither the caller's arrays nor a
global generator are touched.

Reference: Lemos, Coogan et al. 2023 (arXiv 2302.03026).
"""

from __future__ import annotations

import torch
from torch import Tensor

from skyloom.calibration.sbc import _parts
from skyloom.errors import DataError

__all__ = ["tarp_credibility", "tarp_references"]


def tarp_references(truth: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One point for each object `[B, D]`, uniform on the box that the truths of all objects span."""
    low, high = truth.amin(0), truth.amax(0)
    u = torch.rand(truth.shape, generator=generator, device=truth.device, dtype=truth.dtype)
    return low + (high - low) * u


def tarp_credibility(
    draws: Tensor,
    truth: Tensor,
    references: Tensor | None = None,
    generator: torch.Generator | None = None,
    manhattan: bool = False,
) -> Tensor:
    """`f` `[B]` of draws `[B, S, D]` and truths `[B, D]`: uniform on [0, 1] if the posterior is exact.

    Give it to `uniformity` for a test, and to `expected_coverage` for the curve. Distances are taken in units of the range of
    each column's truths.

    Arguments:
        references: Points `[B, D]`, in the units of the draws, chosen without the truths; random ones if not given. One common
            corner for all objects sees a bias better: around points on every side its effects cancel.
        manhattan: Sum of absolute differences for the distance, instead of Euclid's.
    """
    if draws.dim() != 3 or truth.shape != (draws.shape[0], draws.shape[2]):
        raise DataError(f"draws [B, S, D] and truths [B, D] do not fit: {tuple(draws.shape)} and {tuple(truth.shape)}.")
    low, high = truth.amin(0), truth.amax(0)
    scale = torch.where(high > low, high - low, torch.ones_like(low))
    if references is None:
        references = tarp_references(truth, generator)
    if references.shape != truth.shape:
        raise DataError(f"each object needs one reference point, {tuple(truth.shape)}; found {tuple(references.shape)}.")

    def distance(points: Tensor, reference: Tensor) -> Tensor:
        u = (points - reference) / scale
        return u.abs().sum(-1) if manhattan else u.square().sum(-1)

    out = torch.empty(len(truth), dtype=torch.float64, device=truth.device)
    for rows, part in _parts(draws):
        far = distance(truth[rows], references[rows]).unsqueeze(1)
        near = distance(part, references[rows].unsqueeze(1))
        below, equal = (near < far).sum(1), (near == far).sum(1)
        u = torch.rand(len(below), 2, generator=generator, device=truth.device, dtype=torch.float64)
        place = (u[:, 0] * (equal + 1)).long().clamp(max=equal)
        out[rows] = (below + place + u[:, 1]) / (draws.shape[1] + 1)
    return out
