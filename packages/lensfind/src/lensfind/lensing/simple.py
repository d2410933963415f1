"""A point mass, and what lies far from the lens: external shear and convergence; angles in arcsec."""

import torch
from torch import Tensor

from lensfind.lensing.frames import Hessian

__all__ = [
    "point_deflection",
    "point_hessian",
    "point_images",
    "point_potential",
    "shear_deflection",
    "shear_hessian",
    "shear_potential",
    "sheet_deflection",
    "sheet_hessian",
    "sheet_potential",
]


def _r2(x: Tensor, y: Tensor) -> Tensor:
    return x**2 + y**2 + torch.finfo(x.dtype).tiny ** 0.5


def point_deflection(x: Tensor, y: Tensor, theta_e: Tensor) -> tuple[Tensor, Tensor]:
    """alpha = theta_E^2 theta/|theta|^2."""
    scale = theta_e**2 / _r2(x, y)
    return scale * x, scale * y


def point_potential(x: Tensor, y: Tensor, theta_e: Tensor) -> Tensor:
    """psi = theta_E^2 ln|theta|."""
    return theta_e**2 * 0.5 * torch.log(_r2(x, y))


def point_hessian(x: Tensor, y: Tensor, theta_e: Tensor) -> Hessian:
    """(psi_xx, psi_yy, psi_xy); the convergence is 0 off the centre."""
    scale = theta_e**2 / _r2(x, y) ** 2
    g1 = scale * (y**2 - x**2)
    return g1, -g1, -2 * scale * x * y


def point_images(beta: Tensor, theta_e: Tensor) -> tuple[Tensor, Tensor]:
    """The two images (beta +- sqrt(beta^2 + 4 theta_E^2))/2 and mu = 1/(1 - (theta_E/theta)^4): ([..., 2], [..., 2])."""
    root = torch.sqrt(beta**2 + 4 * theta_e**2)
    images = torch.stack([beta + root, beta - root], dim=-1) / 2
    return images, 1 / (1 - (theta_e[..., None] / images) ** 4)


def shear_deflection(x: Tensor, y: Tensor, gamma1: Tensor, gamma2: Tensor) -> tuple[Tensor, Tensor]:
    """External shear about the origin: alpha = (g1 x + g2 y, g2 x - g1 y)."""
    return gamma1 * x + gamma2 * y, gamma2 * x - gamma1 * y


def shear_potential(x: Tensor, y: Tensor, gamma1: Tensor, gamma2: Tensor) -> Tensor:
    """psi = g1 (x^2 - y^2)/2 + g2 x y."""
    return gamma1 * (x**2 - y**2) / 2 + gamma2 * x * y


def shear_hessian(x: Tensor, y: Tensor, gamma1: Tensor, gamma2: Tensor) -> Hessian:
    flat = torch.zeros_like(x)
    return gamma1 + flat, flat - gamma1, gamma2 + flat


def sheet_deflection(x: Tensor, y: Tensor, kappa: Tensor) -> tuple[Tensor, Tensor]:
    """External convergence about the origin: alpha = kappa theta."""
    return kappa * x, kappa * y


def sheet_potential(x: Tensor, y: Tensor, kappa: Tensor) -> Tensor:
    """psi = kappa |theta|^2 / 2."""
    return kappa * (x**2 + y**2) / 2


def sheet_hessian(x: Tensor, y: Tensor, kappa: Tensor) -> Hessian:
    flat = torch.zeros_like(x)
    return kappa + flat, kappa + flat, flat
