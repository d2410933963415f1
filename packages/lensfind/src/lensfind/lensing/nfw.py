"""The halo of Navarro, Frenk and White (1997, ApJ 490, 493) as a lens: Wright and Brainerd (2000, ApJ 534, 34).

With x = theta/theta_s and kappa_s = rho_s r_s / Sigma_cr everything follows from

    g(x) = artanh(sqrt(w))/sqrt(w),  w = 1 - x^2   (arctan(sqrt(-w))/sqrt(-w) beyond x = 1, and 1 at x = 1):
    kappa = 2 kappa_s (g - 1)/w,   mean kappa = 4 kappa_s h/x^2,  h = ln(x/2) + g,   alpha = mean kappa * theta.

Both quotients lose all figures in plain arithmetic, the first at x = 1, the second at x = 0; power series take over there.
Ellipticity, if any, is that of the potential: psi(sqrt(x'^2 (1 - e) + y'^2 (1 + e))), e = (1 - q^2)/(1 + q^2), after Golse and
Kneib (2002, A&A 390, 821); the convergence becomes dumbbell-shaped below q = 0.8 or so.
"""

import torch
from torch import Tensor

from lensfind.lensing.frames import Hessian, polar, rotate, rotate_hessian, softened

__all__ = ["nfw_convergence", "nfw_deflection", "nfw_hessian", "nfw_mean_convergence", "nfw_potential"]


def _g(x: Tensor) -> tuple[Tensor, Tensor]:
    """g(x) and (g(x) - 1)/w."""
    w = 1 - x**2
    near = w.abs() < 0.1
    root = torch.sqrt(torch.where(near, torch.ones_like(w), w.abs()))
    inner = torch.log((1 + root) / torch.where(w > 0, x, torch.ones_like(x)))  # artanh(root) = arcosh(1/x)
    g = torch.where(w > 0, inner, torch.atan(root)) / root
    series = torch.zeros_like(w)
    for k in range(23, 1, -2):  # 1/3 + w/5 + w^2/7 + ...
        series = series * w + 1 / k
    return torch.where(near, 1 + w * series, g), torch.where(near, series, (g - 1) / torch.where(near, torch.ones_like(w), w))


def _small(x: Tensor) -> Tensor:
    return x < (0.2 if x.dtype == torch.float32 else 0.03)


def _h(x: Tensor) -> Tensor:
    """h(x)/x^2, which tends to ln(2/x)/2 - 1/4."""
    log = torch.log(2 / x)
    x2 = x**2
    series = 35 * log / 128 - 533 / 3072
    for coefficient in (5 * log / 16 - 37 / 192, 3 * log / 8 - 7 / 32, log / 2 - 0.25):
        series = series * x2 + coefficient
    return torch.where(_small(x), series, (_g(x)[0] - log) / x2)


def _round_potential(x: Tensor) -> Tensor:
    """ln^2(x/2) - arcosh^2(1/x), or + arccos^2(1/x) beyond x = 1: zero at the centre."""
    log, x2 = torch.log(2 / x), x**2
    c = x2 / 4 + 3 * x2**2 / 32 + 5 * x2**3 / 96 + 35 * x2**4 / 1024
    return torch.where(_small(x), 2 * log * c - c**2, log**2 - (1 - x2) * _g(x)[0] ** 2)


def _stretch(x: Tensor, y: Tensor, q: Tensor, angle: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coordinates in which the elliptical potential is round, and the factors that made them."""
    px, py = rotate(x, y, angle)
    e = (1 - q**2) / (1 + q**2)
    along, across = torch.sqrt(1 - e), torch.sqrt(1 + e)
    return px * along, py * across, along, across


def nfw_mean_convergence(theta: Tensor, kappa_s: Tensor, theta_s: Tensor) -> Tensor:
    """Mean convergence within the angle theta of a round halo: 4 kappa_s h(x)/x^2; at theta_E it is 1."""
    return 4 * kappa_s * _h(theta / theta_s)


def nfw_deflection(x: Tensor, y: Tensor, kappa_s: Tensor, theta_s: Tensor, q: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Deflection in arcsec of a halo with scale radius theta_s (arcsec).

    >>> one = torch.ones((), dtype=torch.float64)
    >>> round(float(nfw_deflection(2 * one, 0 * one, one, one, one, 0 * one)[0]), 7)
    1.2091996
    """
    sx, sy, along, across = _stretch(x, y, q, angle)
    mean = nfw_mean_convergence(softened(sx**2 + sy**2), kappa_s, theta_s)
    return rotate(along * mean * sx, across * mean * sy, -angle)


def nfw_potential(x: Tensor, y: Tensor, kappa_s: Tensor, theta_s: Tensor, q: Tensor, angle: Tensor) -> Tensor:
    """psi = 2 kappa_s theta_s^2 [ln^2(x/2) - arcosh^2(1/x)] in arcsec^2, zero at the centre."""
    sx, sy, _, _ = _stretch(x, y, q, angle)
    return 2 * kappa_s * theta_s**2 * _round_potential(softened(sx**2 + sy**2) / theta_s)


def nfw_hessian(x: Tensor, y: Tensor, kappa_s: Tensor, theta_s: Tensor, q: Tensor, angle: Tensor) -> Hessian:
    """(psi_xx, psi_yy, psi_xy)."""
    sx, sy, along, across = _stretch(x, y, q, angle)
    r = softened(sx**2 + sy**2)
    mean = nfw_mean_convergence(r, kappa_s, theta_s)
    kappa = 2 * kappa_s * _g(r / theta_s)[1]
    _, (xx, yy, xy) = polar(sx, sy, mean * r, mean, kappa)
    return rotate_hessian((along**2 * xx, across**2 * yy, along * across * xy), angle)


def nfw_convergence(x: Tensor, y: Tensor, kappa_s: Tensor, theta_s: Tensor, q: Tensor, angle: Tensor) -> Tensor:
    """kappa = 2 kappa_s F(x) of the round halo; half the Laplacian of the elliptical potential."""
    xx, yy, _ = nfw_hessian(x, y, kappa_s, theta_s, q, angle)
    return (xx + yy) / 2
