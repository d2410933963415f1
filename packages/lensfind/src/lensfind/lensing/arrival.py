"""When light arrives: Fermat potential and time delays between images."""

from torch import Tensor

from lensfind.lensing.distances import Cosmology
from lensfind.lensing.lens import Lens

__all__ = ["fermat_potential", "time_delays"]


def fermat_potential(lens: Lens, x: Tensor, y: Tensor, beta_x: Tensor | float, beta_y: Tensor | float) -> Tensor:
    """tau = |theta - beta|^2/2 - psi(theta) in arcsec^2.

    Images are its stationary points; the global minimum arrives first.
    """
    return ((x - beta_x) ** 2 + (y - beta_y) ** 2) / 2 - lens.potential(x, y)


def time_delays(tau: Tensor, z_lens: float, z_source: float, cosmology: Cosmology | None = None) -> Tensor:
    """Days after the first arrival of images [..., N] with Fermat potentials `tau` (arcsec^2): D_dt/c (tau - min tau).

    Only differences are observable. kappa -> L kappa + (1 - L) leaves the images and multiplies all delays by L: no image tells
    one from the other (Falco, Gorenstein and Shapiro 1985).
    """
    days = (cosmology or Cosmology()).days_per_arcsec2(z_lens, z_source)
    return days * (tau - tau.min(dim=-1, keepdim=True).values)
