"""What every lens model shares: how parameters meet coordinates, and turning axes.

Coordinates are angles on the sky in arcsec with the origin at the centre of the cutout, x along columns and y along rows. A
position angle runs counter-clockwise from the x axis to the major axis, in radians. Parameters of shape [B] meet coordinates of
shape [B, ...] through `broadcast`; anything that broadcasts works.
"""

import math

import torch
from torch import Tensor

__all__ = ["ARCSEC", "SPEED_OF_LIGHT", "broadcast", "polar", "rotate", "rotate_hessian", "softened"]

SPEED_OF_LIGHT = 299792.458  # km/s
ARCSEC = math.pi / 648000  # radians

Hessian = tuple[Tensor, Tensor, Tensor]  # psi_xx, psi_yy, psi_xy


def broadcast(parameter: Tensor, like: Tensor) -> Tensor:
    """A parameter [B] seen as [B, 1, ...], so that it meets coordinates [B, ...]."""
    return parameter.reshape(parameter.shape + (1,) * (like.ndim - parameter.ndim))


def rotate(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Components along axes turned counter-clockwise by `angle` (radians); the inverse is the rotation by `-angle`."""
    c, s = torch.cos(angle), torch.sin(angle)
    return c * x + s * y, c * y - s * x


def rotate_hessian(hessian: Hessian, angle: Tensor) -> Hessian:
    """(psi_xx, psi_yy, psi_xy) known along axes turned by `angle`, as seen from the axes that were turned."""
    xx, yy, xy = hessian
    c, s = torch.cos(2 * angle), torch.sin(2 * angle)
    mean, half = (xx + yy) / 2, (xx - yy) / 2
    return mean + c * half - s * xy, mean - c * half + s * xy, s * half + c * xy


def softened(r2: Tensor) -> Tensor:
    """sqrt(r2), kept away from 0 so that its gradient stays finite at the centre of a lens."""
    return torch.sqrt(r2 + torch.finfo(r2.dtype).tiny ** 0.5)


def polar(x: Tensor, y: Tensor, alpha: Tensor, mean: Tensor, kappa: Tensor) -> tuple[tuple[Tensor, Tensor], Hessian]:
    """Deflection and Hessian of a round lens at radius r from alpha/r = `mean` (the mean convergence within r) and kappa.

    psi_ij = mean delta_ij + 2 (kappa - mean) n_i n_j with n the unit vector outwards; `alpha` is r times the mean.
    """
    r = softened(x**2 + y**2)
    nx, ny = x / r, y / r
    bend = 2 * (kappa - mean)
    return (alpha * nx, alpha * ny), (mean + bend * nx**2, mean + bend * ny**2, bend * nx * ny)
