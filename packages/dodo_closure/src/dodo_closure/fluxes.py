"""Number four-fluxes of the six neutrino species: one layout, read by name.

`F` has shape [..., 2, 3, 4]: (neutrino, antineutrino) x (e, mu, tau) x (x, y, z, t). The last component is the number
density n, the first three the number flux divided by c, in an orthonormal frame that moves with the fluid. All four carry
the unit of a density (1/cm^3, or one of the row's own total). A state is physical when n >= 0 and |flux| <= n.
"""

import torch
from torch import Tensor

__all__ = [
    "FLAVORS",
    "SPECIES",
    "conservation_error",
    "density",
    "flux",
    "flux_factor",
    "four_flux",
    "from_public",
    "heavy_average",
    "is_physical",
    "to_public",
    "total_density",
]

FLAVORS = ("e", "mu", "tau")
SPECIES = ("nue", "numu", "nutau", "nuebar", "numubar", "nutaubar")


def four_flux(density: Tensor, flux: Tensor) -> Tensor:
    """[..., 4] from a density [...] and a flux [..., 3]."""
    return torch.cat([flux, density[..., None]], dim=-1)


def density(F: Tensor) -> Tensor:
    """n of every four-flux [..., 4]."""
    return F[..., 3]


def flux(F: Tensor) -> Tensor:
    """Number flux / c of every four-flux [..., 4]: [..., 3]."""
    return F[..., :3]


def length(vector: Tensor) -> Tensor:
    """|v| of [..., 3], scaled by the largest component so that neither 1e-30 nor 1e300 is lost when squared."""
    largest = vector.abs().amax(dim=-1, keepdim=True)
    scaled = vector / torch.where(largest > 0, largest, torch.ones_like(largest))
    return largest[..., 0] * torch.linalg.vector_norm(scaled, dim=-1)


def flux_factor(F: Tensor) -> Tensor:
    """|flux| / n; 0 where both vanish, infinite where only n does."""
    n, size = density(F), length(flux(F))
    return torch.where(size == 0, torch.zeros_like(n), size / n)


def total_density(F: Tensor) -> Tensor:
    """N, the sum of the six densities of F [..., 2, 3, 4]."""
    return density(F).sum(dim=(-2, -1))


def heavy_average(F: Tensor) -> Tensor:
    """Four-fluxes [..., 4, 4] of (nu_e, nubar_e, nu_x, nubar_x), where x is ONE heavy flavor: the mean of mu and tau.

    The sum in its place would lose a third of a fully mixed gas.
    """
    electron = F[..., 0, :]
    heavy = F[..., 1:, :].mean(dim=-2)
    return torch.cat([electron, heavy], dim=-2)


def is_physical(F: Tensor, tolerance: float = 1e-6) -> Tensor:
    """Rows [...] that are finite, not empty, with n >= 0 and |flux| <= n within `tolerance` of N."""
    finite = torch.isfinite(F).flatten(-3).all(dim=-1)
    total = total_density(F)
    slack = tolerance * total[..., None, None]
    inside = ((density(F) >= -slack) & (length(flux(F)) <= density(F) + slack)).flatten(-2).all(dim=-1)
    return finite & inside & (total > 0)


def conservation_error(F_initial: Tensor, F_final: Tensor) -> tuple[Tensor, Tensor]:
    """Largest violation per row, in units of N, of what a periodic box conserves under self-interaction.

    First: the flavor-traced four-flux of neutrinos and of antineutrinos (8 numbers; momenta do not turn). Second: the net
    number n - nbar of each flavor (3 numbers). The second sums to a difference of the first, so the 11 have rank 10.
    """
    change = (F_final - F_initial) / total_density(F_initial)[..., None, None, None]
    trace = change.sum(dim=-2).abs().amax(dim=(-2, -1))
    lepton = (density(change)[..., 0, :] - density(change)[..., 1, :]).abs().amax(dim=-1)
    return trace, lepton


def from_public(F: Tensor) -> Tensor:
    """[N, 4, 2, 3] as in published databases (sample, xyzt, nu/nubar, flavor) to [N, 2, 3, 4]."""
    return F.permute(0, 2, 3, 1)


def to_public(F: Tensor) -> Tensor:
    """[N, 2, 3, 4] to [N, 4, 2, 3]."""
    return F.permute(0, 3, 1, 2)
