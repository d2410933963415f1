"""The dual pseudo-isothermal ellipsoid (dPIE, pseudo-Jaffe): an isothermal lens with a core and a finite mass.

kappa = theta_0/2 * cut/(cut - core) * (1/sqrt(core^2 + R^2) - 1/sqrt(cut^2 + R^2)),  R^2 = q x'^2 + y'^2/q,

the difference of two cored isothermal ellipsoids (Kassiola and Kovner 1993; Eliasdottir et al. 2007, arXiv:0710.5636).
theta_0 is the Einstein radius of the singular isothermal sphere of the same velocity dispersion; core < cut, both in arcsec.
"""

from torch import Tensor

from lensfind.lensing.frames import Hessian
from lensfind.lensing.isothermal import sie_convergence, sie_deflection, sie_hessian, sie_potential

__all__ = ["dpie_convergence", "dpie_deflection", "dpie_hessian", "dpie_potential"]


def dpie_deflection(
    x: Tensor, y: Tensor, theta_0: Tensor, q: Tensor, angle: Tensor, core: Tensor, cut: Tensor
) -> tuple[Tensor, Tensor]:
    """Deflection in arcsec."""
    strength = theta_0 * cut / (cut - core)
    inner, outer = sie_deflection(x, y, strength, q, angle, core), sie_deflection(x, y, strength, q, angle, cut)
    return inner[0] - outer[0], inner[1] - outer[1]


def dpie_convergence(x: Tensor, y: Tensor, theta_0: Tensor, q: Tensor, angle: Tensor, core: Tensor, cut: Tensor) -> Tensor:
    """kappa, dimensionless."""
    strength = theta_0 * cut / (cut - core)
    return sie_convergence(x, y, strength, q, angle, core) - sie_convergence(x, y, strength, q, angle, cut)


def dpie_potential(x: Tensor, y: Tensor, theta_0: Tensor, q: Tensor, angle: Tensor, core: Tensor, cut: Tensor) -> Tensor:
    """psi in arcsec^2, zero at the centre."""
    strength = theta_0 * cut / (cut - core)
    return sie_potential(x, y, strength, q, angle, core) - sie_potential(x, y, strength, q, angle, cut)


def dpie_hessian(x: Tensor, y: Tensor, theta_0: Tensor, q: Tensor, angle: Tensor, core: Tensor, cut: Tensor) -> Hessian:
    """(psi_xx, psi_yy, psi_xy)."""
    strength = theta_0 * cut / (cut - core)
    inner, outer = sie_hessian(x, y, strength, q, angle, core), sie_hessian(x, y, strength, q, angle, cut)
    return inner[0] - outer[0], inner[1] - outer[1], inner[2] - outer[2]
