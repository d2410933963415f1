r"""Rotation-invariant numbers of a state, the inputs of a network that must not know which way is up."""

import torch
from torch import Tensor

from dodo_closure.fluxes import density, flux, flux_factor

__all__ = ["SECTOR_FEATURES", "invariants27", "sector_basis", "sector_features"]


_PAIRS = tuple(torch.triu_indices(6, 6))  # a <= b, row by row


def invariants27(F: Tensor, u: Tensor | None = None) -> Tensor:
    """[..., 27] of F [..., 2, 3, 4]: S_ab = F_a . F_b for a <= b over the six species, row by row, then s_a = F_a . u.

    The product is a . b = a_i b_i - a_t b_t. Four-fluxes are divided by N = -sum_a F_a . u first, so that nothing carries a
    unit; u defaults to a fluid at rest, (0, 0, 0, 1).
    """
    rows = F.double().flatten(-3, -2)
    metric = rows.new_tensor([1.0, 1.0, 1.0, -1.0])
    u = rows.new_tensor([0.0, 0.0, 0.0, 1.0]) if u is None else u.double()
    along = (rows * metric * u[..., None, :]).sum(dim=-1)
    total = -along.sum(dim=-1)
    scaled = rows / total[..., None, None]
    gram = (scaled * metric) @ scaled.transpose(-1, -2)
    a, b = _PAIRS
    return torch.cat([gram[..., a, b], along / total[..., None]], dim=-1)


_VECTORS = ("e", "x", "other e", "other x", "change", "other change")
SECTOR_FEATURES = (
    *(f"n {name}" for name in _VECTORS[:5]),
    *(f"f {name}" for name in _VECTORS[:4]),
    *(f"{a} . {b}" for k, a in enumerate(_VECTORS) for b in _VECTORS[k:]),
    "smaller",
    "larger",
    "ratio",
    "growth",
)


def _by_sector(initial: Tensor, box: Tensor) -> Tensor:
    """[B, 2, 6, 4]: seen from neutrinos and from antineutrinos, (own e, own x, other e, other x, own and other Box3D change).

    The two views are the same six four-fluxes in another order, so one network on each is exchanged as they are.
    """
    electron, heavy = initial[..., 0, :], initial[..., 1:, :].mean(dim=-2)
    change = box[..., 0, :] - electron
    own = torch.stack([electron, heavy], dim=-2)
    return torch.cat([own, own.flip(-3), change[..., None, :], change.flip(-2)[..., None, :]], dim=-2)


def sector_basis(initial: Tensor, box: Tensor) -> Tensor:
    """Flux vectors [B, 2, 6, 3] in units of N, from initial and Box3D four-fluxes [B, 2, 3, 4] with N = 1."""
    return flux(_by_sector(initial, box))


def sector_features(initial: Tensor, box: Tensor, smaller: Tensor, larger: Tensor) -> Tensor:
    """Invariants [B, 2, 34] seen from neutrinos and from antineutrinos; smaller and larger [B] are Box3D's integrals."""
    views = _by_sector(initial, box)
    vectors = flux(views)
    a, b = _PAIRS
    products = (vectors @ vectors.transpose(-1, -2))[..., a, b]
    ratio = smaller / larger.clamp(min=1e-30)
    shared = torch.stack([smaller, larger, ratio, torch.sqrt(smaller * larger)], dim=-1)
    shared = shared[:, None].expand(-1, 2, -1)
    densities, factors = density(views)[..., :5], flux_factor(views[..., :4, :]).clamp(max=1.0)
    return torch.cat([densities, factors, products, shared], dim=-1)
