"""Rings, arms and clumps of galaxies, as pure functions of tensors; angles in arcsec, nothing is normalised."""

import torch
from torch import Tensor

from lensfind.lensing.frames import rotate

__all__ = ["gaussian_ring", "spiral_arms"]


def gaussian_ring(x: Tensor, y: Tensor, radius: Tensor, width: Tensor, q: Tensor, angle: Tensor, lopsided: Tensor) -> Tensor:
    """exp(-(R - radius)^2 / (2 width^2)) (1 + lopsided cos phi): the ring of a ring galaxy, not normalised."""
    px, py = rotate(x, y, angle)
    r = torch.sqrt(q * px**2 + py**2 / q + 1e-12)
    return torch.exp(-0.5 * ((r - radius) / width) ** 2) * (1 + lopsided * px / r)


def spiral_arms(x: Tensor, y: Tensor, scale: Tensor, pitch: Tensor, q: Tensor, angle: Tensor, phase: Tensor) -> Tensor:
    """Two logarithmic arms on an exponential disc with a hollow centre, not normalised.

    I = exp(-R/h) (1 - exp(-(R/h)^2)) [0.2 + cos^4(phi - ln(R/h)/tan(pitch) + phase)], disc of axis ratio q.
    """
    px, py = rotate(x, y, angle)
    py = py / q
    r = torch.sqrt(px**2 + py**2 + 1e-12) / scale
    arm = torch.cos(torch.atan2(py, px) - torch.log(r) / torch.tan(pitch) + phase) ** 4
    return torch.exp(-r) * (1 - torch.exp(-(r**2))) * (0.2 + arm)
