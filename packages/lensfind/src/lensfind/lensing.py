"""Deflection of light by galaxies, as pure functions of tensors: angles in arcsec, any dtype and device, batch first.

Coordinates are angles on the sky with the origin at the centre of the cutout, x along columns and y along rows. A position
angle runs counter-clockwise from the x axis to the major axis. Parameters of shape [B] meet coordinates of shape [B, ...]
through `broadcast`; anything that broadcasts works. The axis ratio is q = b/a in (0, 1].

The singular isothermal ellipsoid follows Kormann, Schneider and Bartelmann (1994, A&A 284, 285) with the major axis along x
and the intermediate-axis normalisation: the critical curve encloses the area pi theta_E^2 for every q.
"""

import math

import torch
from torch import Tensor

__all__ = [
    "broadcast",
    "einstein_radius",
    "rotate",
    "shear_deflection",
    "sie_convergence",
    "sie_deflection",
    "sie_potential",
    "sis_images",
    "source_position",
]

SPEED_OF_LIGHT = 299792.458  # km/s
ARCSEC = math.pi / 648000  # radians
_SPHERICAL = 1e-4  # below this 1 - q two terms of the series of arctan(f u)/f are exact to 2e-12


def broadcast(parameter: Tensor, like: Tensor) -> Tensor:
    """A parameter [B] seen as [B, 1, ...], so that it meets coordinates [B, ...]."""
    return parameter.reshape(parameter.shape + (1,) * (like.ndim - parameter.ndim))


def rotate(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Components along axes turned counter-clockwise by `angle` (radians); the inverse is the rotation by `-angle`."""
    c, s = torch.cos(angle), torch.sin(angle)
    return c * x + s * y, c * y - s * x


def _elliptical_radius(x: Tensor, y: Tensor, q: Tensor) -> Tensor:
    """w = sqrt(q^2 x^2 + y^2), kept away from 0 so that its gradient stays finite at the centre of the lens."""
    return torch.sqrt(q**2 * x**2 + y**2 + torch.finfo(x.dtype).tiny ** 0.5)


def _isothermal(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Deflection in the frame of the principal axes.

    alpha_x = theta_E sqrt(q)/f arctan(f x/w), alpha_y = theta_E sqrt(q)/f artanh(f y/w), f = sqrt(1 - q^2). As q -> 1 both
    are 0/0; there the series u -+ f^2 u^3/3 + f^4 u^5/5 takes over, inside `where` on safe arguments: gradients stay finite.
    """
    w = _elliptical_radius(x, y, q)
    round_ = 1 - q < _SPHERICAL
    f2 = (1 - q) * (1 + q)
    f = torch.sqrt(torch.where(round_, torch.ones_like(f2), f2))
    ux, uy = x / w, y / w
    inside = torch.where(round_, torch.zeros_like(f), f)  # keeps artanh away from its pole where the series is used
    scale = theta_e * torch.sqrt(q)
    alpha_x = torch.where(round_, ux - f2 * ux**3 / 3 + f2**2 * ux**5 / 5, torch.atan(inside * ux) / f)
    alpha_y = torch.where(round_, uy + f2 * uy**3 / 3 + f2**2 * uy**5 / 5, torch.atanh(inside * uy) / f)
    return scale * alpha_x, scale * alpha_y


def sie_deflection(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Deflection (alpha_x, alpha_y) in arcsec of a singular isothermal ellipsoid at the origin; see `_isothermal`.

    >>> one = torch.ones((), dtype=torch.float64)
    >>> [round(float(a), 7) for a in sie_deflection(0.7 * one, 0.5 * one, one, 0.7 * one, 0 * one)]
    [0.7264911, 0.6593499]
    """
    px, py = rotate(x, y, angle)
    return rotate(*_isothermal(px, py, theta_e, q), -angle)


def sie_convergence(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, angle: Tensor) -> Tensor:
    """kappa = theta_E sqrt(q) / (2 w), dimensionless; half the divergence of the deflection."""
    px, py = rotate(x, y, angle)
    return theta_e * torch.sqrt(q) / (2 * _elliptical_radius(px, py, q))


def sie_potential(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, angle: Tensor) -> Tensor:
    """psi = x alpha_x + y alpha_y in arcsec^2: the potential is homogeneous of degree one."""
    alpha_x, alpha_y = sie_deflection(x, y, theta_e, q, angle)
    return x * alpha_x + y * alpha_y


def shear_deflection(x: Tensor, y: Tensor, gamma1: Tensor, gamma2: Tensor) -> tuple[Tensor, Tensor]:
    """External shear about the origin: alpha = (g1 x + g2 y, g2 x - g1 y)."""
    return gamma1 * x + gamma2 * y, gamma2 * x - gamma1 * y


def source_position(
    x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, angle: Tensor, gamma1: Tensor, gamma2: Tensor
) -> tuple[Tensor, Tensor]:
    """The lens equation beta = theta - alpha(theta) of an SIE with external shear, both about the origin."""
    ax, ay = sie_deflection(x, y, theta_e, q, angle)
    sx, sy = shear_deflection(x, y, gamma1, gamma2)
    return x - ax - sx, y - ay - sy


def sis_images(beta: Tensor, theta_e: Tensor) -> tuple[Tensor, Tensor]:
    """Images of a point behind a singular isothermal sphere, and their magnifications: ([..., 2], [..., 2]).

    For 0 < beta < theta_E they lie at beta +- theta_E on the line to the source, with mu = 1/(1 - theta_E/|theta|); beyond
    theta_E the second image does not exist, and is NaN.
    """
    images = torch.stack([beta + theta_e, beta - theta_e], dim=-1)
    exists = torch.stack([torch.ones_like(beta, dtype=torch.bool), beta < theta_e], dim=-1)
    images = torch.where(exists, images, torch.full_like(images, torch.nan))
    return images, 1 / (1 - theta_e[..., None] / images.abs())


def einstein_radius(velocity_dispersion: Tensor, distance_ratio: Tensor) -> Tensor:
    """theta_E = 4 pi (sigma_v/c)^2 D_ls/D_s in arcsec, for sigma_v in km/s.

    >>> round(float(einstein_radius(torch.tensor(250.0), torch.tensor(0.5))), 3)
    0.901
    """
    return 4 * math.pi * (velocity_dispersion / SPEED_OF_LIGHT) ** 2 * distance_ratio / ARCSEC
