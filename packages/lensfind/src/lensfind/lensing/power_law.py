"""The elliptical power law: Tessore and Metcalf (2015, A&A 580, A79); angles in arcsec.

kappa = (2 - t)/2 (b/R)^t with R = sqrt(q^2 x'^2 + y'^2), b = theta_E sqrt(q) and t = slope - 1, the three-dimensional density
falling as r^-slope: slope 2 is the isothermal ellipsoid with the same theta_E.
"""

import math

import torch
from torch import Tensor

from lensfind.lensing.frames import Hessian, rotate, rotate_hessian, softened

__all__ = ["epl_convergence", "epl_deflection", "epl_hessian", "epl_potential"]


def _terms(q: Tensor) -> int:
    """Terms of the series, a power series in (1 - q)/(1 + q), that reach the rounding of the number type."""
    lowest = float(q.detach().min())
    f = (1 - lowest) / (1 + lowest)
    return 1 if f < 1e-12 else max(2, math.ceil(math.log(torch.finfo(q.dtype).eps) / math.log(f)))


def _radius(x: Tensor, y: Tensor, q: Tensor) -> Tensor:
    return softened(q**2 * x**2 + y**2)


def _convergence(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, slope: Tensor) -> Tensor:
    t = slope - 1
    return (2 - t) / 2 * (theta_e * torch.sqrt(q) / _radius(x, y, q)) ** t


def _principal(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, slope: Tensor, terms: int | None) -> tuple[Tensor, Tensor]:
    """alpha = 2b/(1 + q) (b/R)^(t - 1) e^{i phi} 2F1(1, t/2; 2 - t/2; -f e^{2 i phi}), summed term by term.

    The terms obey Omega_n = -f (2n - (2 - t))/(2n + (2 - t)) e^{2 i phi} Omega_{n-1}, Omega_0 = e^{i phi}, tan phi = y/(q x).
    """
    t = slope - 1
    b = theta_e * torch.sqrt(q)
    radius = _radius(x, y, q)
    c, s = q * x / radius, y / radius
    f = (1 - q) / (1 + q)
    c2, s2 = c**2 - s**2, 2 * c * s
    re, im = c, s
    sum_re, sum_im = c, s
    for n in range(1, terms or _terms(q)):
        factor = -f * (2 * n - (2 - t)) / (2 * n + (2 - t))
        re, im = factor * (c2 * re - s2 * im), factor * (s2 * re + c2 * im)
        sum_re, sum_im = sum_re + re, sum_im + im
    scale = 2 * b / (1 + q) * (b / radius) ** (t - 1)
    return scale * sum_re, scale * sum_im


def epl_deflection(
    x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, angle: Tensor, slope: Tensor, terms: int | None = None
) -> tuple[Tensor, Tensor]:
    """Deflection in arcsec; `terms` of the series, by default as many as the number type resolves.

    >>> one = torch.ones((), dtype=torch.float64)
    >>> [round(float(a), 7) for a in epl_deflection(0.7 * one, 0.5 * one, one, 0.7 * one, 0 * one, 2 * one)]
    [0.7264911, 0.6593499]
    """
    px, py = rotate(x, y, angle)
    return rotate(*_principal(px, py, theta_e, q, slope, terms), -angle)


def epl_convergence(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, angle: Tensor, slope: Tensor) -> Tensor:
    """kappa = (2 - t)/2 (b/R)^t."""
    return _convergence(*rotate(x, y, angle), theta_e, q, slope)


def epl_potential(
    x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, angle: Tensor, slope: Tensor, terms: int | None = None
) -> Tensor:
    """psi = (x alpha_x + y alpha_y)/(3 - slope): the potential is homogeneous of degree 2 - t."""
    alpha_x, alpha_y = epl_deflection(x, y, theta_e, q, angle, slope, terms)
    return (x * alpha_x + y * alpha_y) / (3 - slope)


def epl_hessian(
    x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, angle: Tensor, slope: Tensor, terms: int | None = None
) -> Hessian:
    """(psi_xx, psi_yy, psi_xy): alpha is homogeneous of degree 1 - t, so that z kappa + conj(z) gamma = (1 - t) alpha."""
    px, py = rotate(x, y, angle)
    alpha_x, alpha_y = _principal(px, py, theta_e, q, slope, terms)
    kappa = _convergence(px, py, theta_e, q, slope)
    r2 = px**2 + py**2 + torch.finfo(x.dtype).tiny ** 0.5
    degree = 2 - slope
    g1 = (degree * (alpha_x * px - alpha_y * py) - kappa * (px**2 - py**2)) / r2
    g2 = (degree * (alpha_x * py + alpha_y * px) - 2 * kappa * px * py) / r2
    return rotate_hessian((kappa + g1, kappa - g1, g2), angle)
