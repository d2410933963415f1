"""Published parametrisations of muon bundles deep under water or ice, as pure functions.

Becherini, Margiotta, Sioli and Spurio 2006 (hep-ph/0507228), fitted to simulated bundles in sea water from 1.5 to 5 km water
equivalent and zenith angles up to 85 degrees; good to 10 to 20 percent in ice. `h` is the vertical depth in km w.e., `m` the
muons of a bundle, angles in rad, distances from the axis in m, energies in GeV.
"""

from math import pi

import torch
from torch import Tensor

__all__ = [
    "DEPTHS_OF_THE_FIT",
    "bundle_energy",
    "bundle_flux",
    "lateral_density",
    "lateral_shape",
    "multiplicity_index",
    "single_energy",
]

DEPTHS_OF_THE_FIT = (1.5, 5.0)  # km w.e.
MOST = 4.0  # muons: larger bundles are like those of four
FARTHEST = 250.0  # m


def multiplicity_index(h: Tensor, cosine: Tensor) -> Tensor:
    """nu of the flux of bundles of m muons, m^-nu.

    >>> round(float(multiplicity_index(torch.tensor(1.817).double(), torch.tensor(1.0).double())), 3)
    3.071
    """
    return (0.01041 * h**2 + 0.09912 * h + 2.712) * torch.exp(0.01615 * torch.exp(0.6010 * h) / cosine)


def bundle_flux(m: Tensor, h: Tensor, cosine: Tensor) -> Tensor:
    """Flux of bundles of `m` muons, per m^2, s and sr: K(h, theta) m^-nu."""
    scale = 7.20e-3 * h**-1.927 * cosine * torch.exp((-0.581 * h + 0.034) / cosine)
    return scale * m ** -multiplicity_index(h, cosine)


def lateral_shape(m: Tensor, h: Tensor, zenith: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean distance from the axis (m), exponent alpha, and scale R0 (m), for bundles of two muons and more."""
    few = torch.clamp(torch.as_tensor(m, dtype=torch.float64), max=MOST)
    mean = (-1.786 * few + 28.26) * h**-1.06 / (torch.exp((zenith - 1.3) * 10.4) + 1)
    alpha = (-0.448 * few + 4.969) * torch.exp((0.0194 * few + 0.276) * h)
    return mean, alpha, mean * (alpha - 3) / 2


def lateral_density(radius: Tensor, m: Tensor, h: Tensor, zenith: Tensor) -> Tensor:
    """dN/dR per m: (alpha - 1) (alpha - 2) R0^(alpha - 2) R / (R + R0)^alpha."""
    _, alpha, scale = lateral_shape(m, h, zenith)
    return (alpha - 1) * (alpha - 2) * scale ** (alpha - 2) * radius / (radius + scale) ** alpha


def single_energy(h: Tensor, cosine: Tensor) -> tuple[Tensor, Tensor]:
    """Exponent gamma and offset (GeV) of single muons: dN/dE ~ (E + offset)^-gamma, mean energy offset / (gamma - 2)."""
    gamma = -0.232 * torch.log(h) + 3.961
    scale = (0.0304 * torch.exp(0.359 * h) / cosine - 0.0077 * h + 0.659) * 1000
    return gamma, scale * -torch.expm1(-0.42 * h / cosine)


def bundle_energy(m: Tensor, radius: Tensor, h: Tensor, zenith: Tensor) -> tuple[Tensor, Tensor]:
    """The same for muons of bundles, at a distance from the axis."""
    few, r = torch.clamp(torch.as_tensor(m, dtype=torch.float64), max=MOST), radius
    a, q = 0.0033 * h + 0.0079, 0.0543 * h - 0.365
    b = (0.0407 * few + 0.0283) * h + (-0.312 * few + 6.124)
    gamma = a * r + b * (1 - 0.5 * torch.exp(q * r))
    slope, level = (-0.069 * h + 0.488) * torch.exp(-0.117 * r), (-0.398 * h + 3.955) * r ** (0.012 * h - 0.35)
    return gamma, (slope * zenith + level) * 1000 * -torch.expm1(-0.42 * h / torch.cos(zenith.clamp(max=85 * pi / 180)))
