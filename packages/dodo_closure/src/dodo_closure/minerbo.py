r"""Maximum-entropy (Minerbo) angular distribution of a species with density n and flux factor f along the direction h.

    f(\hat n) = \frac{n}{4\pi} \frac{Z}{\sinh Z} e^{Z \hat n \cdot h},   f = L(Z) = \coth Z - 1/Z   (Langevin's function)

Minerbo 1978, J. Quant. Spectrosc. Radiat. Transfer 20, 541; Cernohorsky and Bludman 1994, ApJ 433, 250.
"""

import math
from typing import NamedTuple

import torch
from scipy.special import zeta
from torch import Tensor

from dodo_closure.fluxes import density, flux, flux_factor, length

__all__ = ["Minerbo", "crossing_discriminant", "inverse_langevin", "langevin", "maximum_entropy"]

# L(Z) = sum_k c_k Z^(2k-1), c_k = (-1)^(k+1) 2 zeta(2k) / pi^(2k); ten terms reach 1e-16 for Z < 0.5
_SERIES = [(-1) ** (k + 1) * 2 * float(zeta(2 * k)) / math.pi ** (2 * k) for k in range(1, 11)]
_STEEP = 0.95  # beyond, 1 - L(Z) = 1/Z to machine precision


def _series(z: Tensor, coefficients: list[float]) -> Tensor:
    """sum_k c_k Z^(2k) for k = 0, 1, ..."""
    square = z * z
    total = coefficients[-1] * square + coefficients[-2]
    for c in reversed(coefficients[:-2]):
        total = total * square + c
    return total


def langevin(z: Tensor) -> Tensor:
    """L(Z) = coth Z - 1/Z for Z >= 0, to a few units in the last place of float64."""
    small = z < 0.5
    low = z.clamp(max=0.5)
    big = torch.where(small, torch.ones_like(z), z)
    return torch.where(small, low * _series(low, _SERIES), 1 - 1 / big + 2 / torch.expm1(2 * big))


def _langevin_slope(z: Tensor) -> Tensor:
    small = z < 0.5
    low = z.clamp(max=0.5)
    big = torch.where(small, torch.ones_like(z), z)
    slope = _series(low, [(2 * k - 1) * c for k, c in enumerate(_SERIES, start=1)])
    decay = torch.exp(-2 * big)
    return torch.where(small, slope, 1 / big**2 - 4 * decay / (1 - decay) ** 2)  # 1 / Z^2 - 1 / sinh^2 Z


def inverse_langevin(f: Tensor) -> Tensor:
    """Z with L(Z) = f: 0 at 0, infinite at 1, NaN outside [0, 1]. Newton's method from a rational start.

    >>> inverse_langevin(torch.tensor([0.5, 0.98], dtype=torch.float64)).tolist()
    [1.7967559847237..., 49.99999999999...]
    """
    steep = f >= _STEEP
    g = torch.where(steep, torch.zeros_like(f), f)
    z = g * (3 - g**2) / (1 - g**2)  # within 5% everywhere (Cohen 1991, Rheol. Acta 30, 270)
    for _ in range(3 if f.dtype == torch.float32 else 5):  # the error is squared each time
        z = z - (langevin(z) - g) / _langevin_slope(z)
    z = torch.where(steep, 1 / (1 - f), z)
    return torch.where((f >= 0) & (f <= 1), z, torch.full_like(z, math.nan))


class Minerbo(NamedTuple):
    """`peak` [...] per steradian at the direction of the flux, the vector Z h [..., 3], and its length `steepness` [...]."""

    peak: Tensor
    z: Tensor
    steepness: Tensor

    def along(self, directions: Tensor) -> Tensor:
        """Number per steradian [..., S, K] of species [..., S] along unit vectors [..., K, 3]; no exponent is positive."""
        exponent = self.z @ directions.transpose(-1, -2) - self.steepness[..., None]
        return self.peak[..., None] * torch.exp(exponent.clamp(max=0.0))

    @property
    def log_mean(self) -> Tensor:
        """eta, the exponent's constant: ln f = eta + Z h . n. Minus infinity for an empty species."""
        return torch.log(self.peak) - self.steepness


def maximum_entropy(F: Tensor, largest_flux_factor: float = 1 - 1e-6) -> Minerbo:
    """The distribution of every four-flux [..., 4]; flux factors above `largest_flux_factor` are lowered to it.

    No flux means isotropy, no density means nothing; neither gives NaN.
    """
    n = density(F).clamp(min=0.0)
    f = flux_factor(F)
    f = torch.where(n > 0, f, torch.zeros_like(f)).clamp(max=largest_flux_factor)
    z = inverse_langevin(f)
    size = length(flux(F))
    direction = flux(F) / torch.where(size > 0, size, torch.ones_like(size))[..., None]
    some = z > 1e-8
    spread = -torch.expm1(-2 * torch.where(some, z, torch.ones_like(z)))
    shape = torch.where(some, 2 * z / spread, 1 + z)  # 2Z / (1 - exp(-2Z))
    return Minerbo(n / (4 * math.pi) * shape, z[..., None] * direction, z)


def crossing_discriminant(electron: Tensor, electron_anti: Tensor) -> tuple[Tensor, Tensor]:
    """|D|^2 - (eta_e - eta_ebar)^2 with D = Z_e - Z_ebar (vectors), and the cosine mu_c of the crossing circle about D.

    For four-fluxes [..., 4] of nu_e and nubar_e when nu_x = nubar_x: positive where the electron lepton number changes
    sign over the sphere (Richers 2022, Phys. Rev. D 106, 083005). mu_c means nothing elsewhere.
    """
    a, b = maximum_entropy(electron), maximum_entropy(electron_anti)
    axis = length(a.z - b.z)
    step = a.log_mean - b.log_mean
    return axis**2 - step**2, -step / axis
