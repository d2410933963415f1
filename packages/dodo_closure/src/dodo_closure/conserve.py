"""What every closure must keep: conservation laws (an affine set) and physical four-fluxes (a convex cone)."""

import torch
from torch import Tensor

from dodo_closure.fluxes import density, flux

__all__ = ["limit", "project"]


def project(F_initial: Tensor, F_predicted: Tensor) -> Tensor:
    """The nearest four-fluxes [..., 2, 3, 4] to `F_predicted` that keep the conserved quantities of `F_initial`.

    First the flavor-traced four-flux of neutrinos and of antineutrinos, then the net number of each flavor, shared between
    its neutrino and antineutrino densities. The two steps commute: together they are the orthogonal projector onto the
    conserving set (rank 10 of 24).
    """
    change = F_predicted - F_initial
    change = change - change.mean(dim=-2, keepdim=True)
    net = density(change)[..., 0, :] - density(change)[..., 1, :]
    share = torch.stack([net, -net], dim=-2) / 2
    return F_initial + torch.cat([flux(change), (density(change) - share)[..., None]], dim=-1)


def limit(anchor: Tensor, F_predicted: Tensor) -> Tensor:
    """`anchor + s (F_predicted - anchor)` with the largest s in [0, 1] that keeps every n >= 0 and |flux| <= n.

    Both arguments [..., 2, 3, 4], `anchor` physical. The set is a convex cone, so such an s exists, and what both ends
    conserve is conserved between them. Where the prediction is physical, s = 1 and nothing changes.
    """
    step = F_predicted - anchor
    n, dn = density(anchor), density(step)
    a = (flux(step) ** 2).sum(dim=-1) - dn**2
    b = 2 * ((flux(anchor) * flux(step)).sum(dim=-1) - n * dn)
    c = ((flux(anchor) ** 2).sum(dim=-1) - n**2).clamp(max=0.0)
    inside = (n + dn >= 0) & ((flux(F_predicted) ** 2).sum(dim=-1) <= (n + dn) ** 2)
    reach = torch.where(inside, torch.ones_like(n), _first_root(a, b, c))
    s = (reach * (1 - 1e-9)).amin(dim=(-2, -1))
    s = torch.where(inside.all(dim=-1).all(dim=-1), torch.ones_like(s), s)
    whole = (s == 1)[..., None, None, None]
    return torch.where(whole, F_predicted, anchor + s[..., None, None, None] * step)


def _first_root(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Smallest s in [0, 1] with a s^2 + b s + c = 0, where c <= 0; 1 if there is none. Free of cancellation."""
    root = torch.sqrt((b**2 - 4 * a * c).clamp(min=0.0))
    q = -(b + torch.where(b >= 0, root, -root)) / 2
    infinite = torch.full_like(a, torch.inf)
    candidates = [torch.where(a != 0, q / a, infinite), torch.where(q != 0, c / q, infinite)]
    candidates = [torch.where(s >= 0, s, infinite) for s in candidates]
    return torch.minimum(*candidates).clamp(max=1.0)
