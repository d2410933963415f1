r"""Four-fluxes seen from a moving fluid. A closure lives in the frame in which the fluid rests; a simulation need not.

A number four-flux F = (flux, n) is a four-vector, so that with the fluid's four-velocity u = (\gamma v, \gamma) in units of c

    n' = \gamma n - (\gamma v) \cdot F,   F' = F - \gamma v n + (\gamma v) (\gamma v \cdot F) / (1 + \gamma),

the boost without rotation; its inverse has -v. Sums over flavors and physical four-fluxes (n >= |F|) stay so in every frame.
"""

import torch
from torch import Tensor

from skyloom.errors import DataError

__all__ = ["check_velocity", "four_velocity", "from_comoving", "to_comoving"]


def four_velocity(velocity: Tensor) -> Tensor:
    """u [..., 4] = (gamma v, gamma) from v / c [..., 3].

    >>> four_velocity(torch.tensor([0.6, 0.0, 0.0])).tolist()
    [0.75, 0.0, 0.0, 1.25]
    """
    gamma = torch.rsqrt(1 - (velocity**2).sum(dim=-1, keepdim=True))
    return torch.cat([gamma * velocity, gamma], dim=-1)


def to_comoving(F: Tensor, u: Tensor) -> Tensor:
    """F [..., 2, 3, 4] in the rest frame of a fluid with four-velocity u [..., 4]."""
    return _boost(F, u[..., :3], u[..., 3:])


def from_comoving(F: Tensor, u: Tensor) -> Tensor:
    """The inverse of `to_comoving`."""
    return _boost(F, -u[..., :3], u[..., 3:])


def _boost(F: Tensor, momentum: Tensor, gamma: Tensor) -> Tensor:
    p, gamma = momentum[..., None, None, :].to(F), gamma[..., None, None, :].to(F)
    along = (p * F[..., :3]).sum(dim=-1, keepdim=True)
    n = F[..., 3:]
    return torch.cat([F[..., :3] - p * n + p * along / (1 + gamma), gamma * n - along], dim=-1)


def check_velocity(u: Tensor, tolerance: float = 1e-5) -> None:
    """u . u = -1 and u_t >= 1 in every row, or an error that names the first row in which not."""
    flat = u.reshape(-1, u.shape[-1]).double()
    if u.shape[-1] != 4:
        raise DataError(f"u must have four components (x, y, z, t), not {u.shape[-1]}.")
    norm = (flat[:, :3] ** 2).sum(dim=1) - flat[:, 3] ** 2
    bad = torch.nonzero(~((norm + 1).abs() <= tolerance * flat[:, 3] ** 2) | ~(flat[:, 3] > 0))[:, 0]
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"u of row {row} is {[round(v, 6) for v in flat[row].tolist()]} with u.u = {float(norm[row]):.6g}; a four-velocity "
            f"(gamma v, gamma) has u.u = -1 ({len(bad)} rows have not). dodo_closure.boosts.four_velocity makes one from v/c."
        )
