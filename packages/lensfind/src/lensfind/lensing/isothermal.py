"""Isothermal lenses, singular or with a core, round or elliptical; angles in arcsec.

The ellipsoid follows Kormann, Schneider and Bartelmann (1994, A&A 284, 285) and, with a core, Keeton (2001, astro-ph/0102341),
with the major axis along x and the intermediate-axis normalisation: the critical curve of the singular one encloses the area
pi theta_E^2 for every axis ratio q = b/a in (0, 1].
"""

import math

import torch
from torch import Tensor

from lensfind.lensing.frames import ARCSEC, SPEED_OF_LIGHT, Hessian, rotate, rotate_hessian, softened

__all__ = [
    "einstein_radius",
    "sie_convergence",
    "sie_deflection",
    "sie_hessian",
    "sie_potential",
    "sis_images",
    "velocity_dispersion",
]

_SPHERICAL = 1e-4  # below this 1 - q three terms of the series of arctan(f u)/f are exact to 1e-14
_NONE = torch.zeros(())


def _radius(x: Tensor, y: Tensor, q: Tensor, s: Tensor) -> Tensor:
    """p = sqrt(q^2 (s^2 + x^2) + y^2)."""
    return softened(q**2 * (s**2 + x**2) + y**2)


def _principal(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Deflection in the frame of the principal axes.

    alpha_x = theta_E sqrt(q)/f arctan(f x/(p + s)), alpha_y = theta_E sqrt(q)/f artanh(f y/(p + q^2 s)), f = sqrt(1 - q^2). As
    q -> 1 both are 0/0; there the series u -+ f^2 u^3/3 + f^4 u^5/5 takes over, inside `where` on safe arguments: gradients
    stay finite.
    """
    p = _radius(x, y, q, s)
    round_ = 1 - q < _SPHERICAL
    f2 = (1 - q) * (1 + q)
    f = torch.sqrt(torch.where(round_, torch.ones_like(f2), f2))
    ux, uy = x / (p + s), y / (p + q**2 * s)
    inside = torch.where(round_, torch.zeros_like(f), f)  # keeps artanh away from its pole where the series is used
    scale = theta_e * torch.sqrt(q)
    alpha_x = torch.where(round_, ux - f2 * ux**3 / 3 + f2**2 * ux**5 / 5, torch.atan(inside * ux) / f)
    alpha_y = torch.where(round_, uy + f2 * uy**3 / 3 + f2**2 * uy**5 / 5, torch.atanh(inside * uy) / f)
    return scale * alpha_x, scale * alpha_y


def sie_deflection(
    x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, angle: Tensor, core: Tensor = _NONE
) -> tuple[Tensor, Tensor]:
    """Deflection (alpha_x, alpha_y) in arcsec of an isothermal ellipsoid at the origin with a core; see `_principal`.

    >>> one = torch.ones((), dtype=torch.float64)
    >>> [round(float(a), 7) for a in sie_deflection(0.7 * one, 0.5 * one, one, 0.7 * one, 0 * one)]
    [0.7264911, 0.6593499]
    """
    px, py = rotate(x, y, angle)
    return rotate(*_principal(px, py, theta_e, q, core / torch.sqrt(q)), -angle)


def sie_convergence(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, angle: Tensor, core: Tensor = _NONE) -> Tensor:
    """kappa = theta_E / (2 sqrt(core^2 + q x'^2 + y'^2/q)), dimensionless; half the divergence of the deflection."""
    px, py = rotate(x, y, angle)
    return theta_e * torch.sqrt(q) / (2 * _radius(px, py, q, core / torch.sqrt(q)))


def sie_potential(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, angle: Tensor, core: Tensor = _NONE) -> Tensor:
    """psi in arcsec^2, zero at the centre: with s = core/sqrt(q) and b q = theta_E sqrt(q),

    psi = x alpha_x + y alpha_y - b q s ln( sqrt((p + s)^2 + f^2 x'^2) / ((1 + q) s) ),

    of which the last term is 0 without a core: there the potential is homogeneous of degree one.
    """
    px, py = rotate(x, y, angle)
    s = core / torch.sqrt(q)
    alpha_x, alpha_y = _principal(px, py, theta_e, q, s)
    p = _radius(px, py, q, s)
    tiny = torch.finfo(x.dtype).tiny ** 0.5
    within = 0.5 * torch.log((p + s) ** 2 + (1 - q) * (1 + q) * px**2 + tiny) - torch.log((1 + q) * s + tiny)
    return px * alpha_x + py * alpha_y - theta_e * torch.sqrt(q) * s * within


def sie_hessian(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, angle: Tensor, core: Tensor = _NONE) -> Hessian:
    """(psi_xx, psi_yy, psi_xy). Without a core |gamma| = kappa, and det A = 1 - 2 kappa."""
    px, py = rotate(x, y, angle)
    s = core / torch.sqrt(q)
    p = _radius(px, py, q, s)
    f2 = (1 - q) * (1 + q)
    along, across = p + s, p + q**2 * s
    scale = theta_e * torch.sqrt(q) / p
    under_x, under_y = along**2 + f2 * px**2, across**2 - f2 * py**2
    xx = scale * (along * p - q**2 * px**2) / under_x
    yy = scale * (across * p - py**2) / under_y
    return rotate_hessian((xx, yy, -scale * px * py / under_x), angle)


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


def velocity_dispersion(theta_e: Tensor, distance_ratio: Tensor) -> Tensor:
    """sigma_v in km/s of the isothermal sphere with this Einstein radius (arcsec); inverse of `einstein_radius`."""
    return SPEED_OF_LIGHT * torch.sqrt(theta_e * ARCSEC / (4 * math.pi * distance_ratio))
