"""What a picture tells without learning: the profile of its light, ring by ring, for an embedding to be measured against."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ring_profiles"]


def ring_profiles(maps: Tensor, rings: int = 12) -> Tensor:
    """Mean and standard deviation of `ln(1 + counts)` in rings about the centre `[..., 2 rings]`, of square maps `[..., H, H]`.

    Rings are of equal width out to the nearest edge; the deviation within a ring is what a second peak, a shock or an ellipse
    leaves there.

    >>> flat = ring_profiles(torch.ones(1, 8, 8), rings=2)
    >>> flat.shape, bool((flat[0, :2] - 0.6931).abs().max() < 1e-4), bool(flat[0, 2:].abs().max() < 1e-3)
    (torch.Size([1, 4]), True, True)
    """
    size = maps.shape[-1]
    line = torch.arange(size, device=maps.device, dtype=torch.float32) + 0.5 - size / 2
    radius = torch.hypot(line[:, None], line[None, :]).flatten()
    ring = (radius / (size / 2) * rings).long()
    member = torch.nn.functional.one_hot(ring.clamp(max=rings), rings + 1)[:, :rings].float()
    member = member / member.sum(0).clamp(min=1)
    level = torch.log1p(maps.float()).flatten(-2)
    mean, square = level @ member, level.square() @ member
    return torch.cat([mean, (square - mean.square()).clamp(min=0).sqrt()], -1)
