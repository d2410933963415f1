"""Muon bundles of air showers: how many muons, how much energy they need to reach a depth in ice, how far that is.

Units throughout: energies in GeV, depths in ice in km, column depths in km water equivalent (km w.e.), `A` the mass
number. Every function takes numbers or tensors that broadcast, and computes in float64 unless a tensor says otherwise.

References: Elbert 1978 (DUMAND workshop, vol. 2, p. 101); Gaisser, Engel and Resconi, Cosmic Rays and Particle Physics,
ch. 8; Chirkin 2004 (hep-ph/0407078) for the effective zenith angle; Chirkin and Rhode 2004 (hep-ph/0407075) for energy loss.
"""

import torch
from torch import Tensor

__all__ = [
    "ALTITUDE",
    "DEPTH_RANGE",
    "EARTH_RADIUS",
    "LOSS_RATE",
    "LOSS_SCALE",
    "MASS_NUMBERS",
    "depth_energy",
    "effective_cosine",
    "elbert_mean",
    "mceq_mean",
    "production_height",
    "slant_depth",
    "slant_length",
    "surface_energy",
    "threshold_energy",
    "water_equivalent",
]

MASS_NUMBERS = {"p": 1, "He": 4, "N": 14, "Al": 27, "Fe": 56}
LOSS_RATE = 0.42  # b in dE/dX = a + b E, per km w.e.
LOSS_SCALE = 660.0  # a / b, GeV
EARTH_RADIUS = 6374.0  # km
ALTITUDE = 25.0e3  # m, of muon production in a vertical shower
DEPTH_RANGE = (1.0, 2.8)  # km, vertical depths at which bundles are recorded

FIRN_DEPTH, FIRN_DENSITY, ICE_DENSITY = 0.2, 0.832, 0.917  # km; relative to water
YIELD, YIELD_INDEX, YIELD_CUTOFF = 14.5, 0.757, 5.25  # GeV; exponents of Elbert's formula

Number = float | Tensor


def effective_cosine(cos_zenith: Number) -> Tensor:
    """cos theta*, the zenith angle where muons are made, over a curved atmosphere (Chirkin 2004, eq. 1).

    >>> [round(float(effective_cosine(c)), 4) for c in (1.0, 0.5, 0.2, 0.1, 0.0)]
    [1.0, 0.5028, 0.2183, 0.1398, 0.1035]
    """
    x = _tensor(cos_zenith)
    p0, p1, p2, p3, p4 = 0.102573, -0.068287, 0.958633, 0.0407253, 0.817285
    return torch.sqrt((x**2 + p0**2 + p1 * x**p2 + p3 * x**p4) / (1 + p0**2 + p1 + p3))


def elbert_mean(primary_energy: Number, mass_number: Number, muon_energy: Number, cos_zenith: Number) -> Tensor:
    """Mean number of muons above `muon_energy` at the surface in a shower of energy E0 (Elbert 1978):

        N(>E) = A 14.5 GeV / (E cos theta*) (E0 / (A E))^0.757 (1 - A E / E0)^5.25,    0 when A E >= E0.

    >>> round(float(elbert_mean(1e6, 1, 1e3, 1.0)), 3), round(float(elbert_mean(1e6, 56, 1e3, 1.0)), 3)
    (2.692, 5.318)
    """
    e0, a, e = _tensor(primary_energy), _tensor(mass_number), _tensor(muon_energy)
    share = a * e / e0
    left = (1 - share).clamp(min=0.0) ** YIELD_CUTOFF
    return a * YIELD / (e * effective_cosine(cos_zenith)) * share**-YIELD_INDEX * left


def mceq_mean(primary_energy: Number, mass_number: Number, muon_energy: Number, cos_zenith: Number) -> tuple[Tensor, Tensor]:
    """Conventional and prompt muons above `muon_energy`, a refit of Elbert's form to MCEq with SIBYLL 2.3c; x = A E / E0:

    14.7 GeV A^2 / (E0 cos theta*) x^-1.79 (1 - x^0.64)^3.27    and    2.8e-5 A x^-1 (1 - x^0.78)^6.73.
    """
    e0, a, e = _tensor(primary_energy), _tensor(mass_number), _tensor(muon_energy)
    x = a * e / e0
    below = (1 - x**0.64).clamp(min=0.0), (1 - x**0.78).clamp(min=0.0)
    conventional = 14.7 * a**2 / (e0 * effective_cosine(cos_zenith)) * x**-1.79 * below[0] ** 3.27
    return conventional, 2.8e-5 * a / x * below[1] ** 6.73


def threshold_energy(column: Number) -> Tensor:
    """Surface energy that just suffices for a column depth X in km w.e.: (a/b) (exp(b X) - 1), GeV.

    >>> [round(float(threshold_energy(x))) for x in (1.4, 1.8, 2.3, 4.0)]
    [528, 746, 1074, 2881]
    """
    return LOSS_SCALE * torch.expm1(LOSS_RATE * _tensor(column))


def depth_energy(surface: Number, column: Number) -> Tensor:
    """Energy left of `surface` (GeV) after X km w.e.: (E + a/b) exp(-b X) - a/b; below 0 where the muon does not arrive."""
    return (_tensor(surface) + LOSS_SCALE) * torch.exp(-LOSS_RATE * _tensor(column)) - LOSS_SCALE


def surface_energy(energy: Number, column: Number) -> Tensor:
    """The inverse of `depth_energy`: (E + a/b) exp(b X) - a/b, GeV."""
    return (_tensor(energy) + LOSS_SCALE) * torch.exp(LOSS_RATE * _tensor(column)) - LOSS_SCALE


def water_equivalent(depth: Number) -> Tensor:
    """Column depth in km w.e. of `depth` km of ice straight down: 200 m of firn, then ice (for depths beyond the firn).

    >>> [round(float(water_equivalent(d)), 4) for d in (1.5, 2.0, 2.5)]
    [1.3585, 1.817, 2.2755]
    """
    return FIRN_DEPTH * FIRN_DENSITY + (_tensor(depth) - FIRN_DEPTH) * ICE_DENSITY


def slant_length(depth: Number, cos_zenith: Number) -> Tensor:
    """Way through the ice, km, to `depth` km at a zenith angle measured there, on a round Earth.

    >>> [round(float(slant_length(1.95, c)), 3) for c in (1.0, 0.5, 0.2)]
    [1.95, 3.898, 9.714]
    """
    d, c = _tensor(depth), _tensor(cos_zenith)
    below = (EARTH_RADIUS - d) * c
    outside = 2 * EARTH_RADIUS * d - d**2
    return outside / (torch.sqrt(below**2 + outside) + below)


def slant_depth(depth: Number, cos_zenith: Number) -> Tensor:
    """Column depth along that way, km w.e.: the mean density straight down times the slant length."""
    d = _tensor(depth)
    return slant_length(d, cos_zenith) / d * water_equivalent(d)


def production_height(cos_zenith: Number) -> Tensor:
    """Distance from the surface to where the muons are made, along the shower, m: 25 km / cos theta*."""
    return ALTITUDE / effective_cosine(cos_zenith)


def _tensor(value: Number) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
