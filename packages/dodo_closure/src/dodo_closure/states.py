"""Synthetic initial states: families of physical four-fluxes [N, 2, 3, 4] in 1/cm^3, each a function of one seed.

Every row is turned by a random rotation and has its own scale, log-uniform in 1e31 to 1e34 per cm^3, so that no frame and no
unit can be learned by accident.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dodo_closure.fluxes import four_flux, total_density
from skyloom.errors import ConfigError, nearest
from skyloom.run.seeds import torch_generator

__all__ = ["FAMILIES", "NSM", "draw_states", "random_rotations", "state"]

# Points of a neutron-star merger: densities (nu_e, nubar_e, each heavy) in 1/cm^3 and flux factor vectors
NSM: dict[str, tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]] = {
    "NSM1": (
        (1.421954234999705e33, 1.9146237131657563e33, 1.9645407875568215e33 / 4),
        (
            (0.0974572, 0.04217632, -0.13433261),
            (0.07237959, 0.03132354, -0.3446878),
            (-0.02165833, 0.07431613, -0.53545951),
        ),
    ),
    "NSM2": (
        (2.3293607911671233e33, 2.8527918912850635e33, 6.010714120389502e33 / 4),
        (
            (0.00863203, -0.01736811, -0.1635356),
            (0.00704822, -0.0141814, -0.23384525),
            (-0.0475909, -0.023143, -0.26794698),
        ),
    ),
    "NSM3": (
        (2.8800567085107055e33, 3.742165367460379e33, 0.0),
        ((0.00044576, -0.0032902, 0.00438115), (0.00034307, -0.00253221, -0.13056626), (0.0, 0.0, 0.0)),
    ),
}


def state(densities: tuple[float, ...], factors: tuple[tuple[float, ...], ...]) -> Tensor:
    """[2, 3, 4] from (n_e, n_ebar, n_x) and three flux factor vectors, all four heavy species alike."""
    n = torch.tensor(densities, dtype=torch.float64)
    e, ebar, x = four_flux(n, n[:, None] * torch.tensor(factors, dtype=torch.float64))
    return torch.stack([torch.stack([e, x, x]), torch.stack([ebar, x, x])])


class _Draws:
    """Uniform and normal float64 numbers of one generator."""

    def __init__(self, rows: int, seed: int, *names: str):
        self.rows, self.generator = rows, torch_generator(seed, "dodo_closure", *names)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        value = torch.rand(self.rows, *shape, generator=self.generator, dtype=torch.float64)
        return low + (high - low) * value

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.rows, *shape, generator=self.generator, dtype=torch.float64)

    def directions(self, *shape: int) -> Tensor:
        return _unit(self.normal(*shape, 3))


def _unit(vectors: Tensor) -> Tensor:
    return vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)


def _merger(draw: _Draws) -> Tensor:
    """Like a merger: nubar_e rivals nu_e, all fluxes near one axis, nu_e the least and nu_x the most forward-peaked."""
    ratio, heavy = draw.uniform(low=0.7, high=1.6), draw.uniform(low=0.05, high=1.2)
    n = torch.stack([torch.ones_like(ratio), ratio, heavy], dim=1)
    f_e = draw.uniform(high=0.4)
    f_ebar = (f_e + draw.uniform(high=0.35)).clamp(max=0.8)
    f_x = (f_ebar + draw.uniform(high=0.3)).clamp(max=0.9)
    h = _unit(draw.directions()[:, None] + 0.4 * draw.normal(3, 3))
    e, ebar, x = four_flux(n, (n * torch.stack([f_e, f_ebar, f_x], dim=1))[..., None] * h).unbind(dim=1)
    return torch.stack([e, x, x, ebar, x, x], dim=1).reshape(-1, 2, 3, 4)


def _random(draw: _Draws, steepness: float = 1.0) -> Tensor:
    """Densities uniform on [0, 1], isotropic directions, flux factors 0.9 u^steepness with u uniform, mu and tau alike."""
    n = draw.uniform(4)
    factors = 0.9 * draw.uniform(4) ** steepness
    e, x, ebar, xbar = four_flux(n, (n * factors)[..., None] * draw.directions(4)).unbind(dim=1)
    return torch.stack([e, x, x, ebar, xbar, xbar], dim=1).reshape(-1, 2, 3, 4)


def _near_isotropic(draw: _Draws) -> Tensor:
    """As `random` with flux factors 0.9 u^10: about half of the states are stable."""
    return _random(draw, steepness=10.0)


def _nsm_like(draw: _Draws) -> Tensor:
    """Ten per cent of Gaussian scatter about NSM1-3: on each density, and on each flux factor vector's three components."""
    points = [torch.stack([state(*NSM[name])[s, f] for s, f in ((0, 0), (1, 0), (0, 1))]) for name in NSM]
    base = torch.stack(points)[(draw.uniform() * len(points)).long()]
    n = base[..., 3] * (1 + 0.1 * draw.normal(3)).clamp(min=0.0)
    factor = base[..., :3] / base[..., 3:].clamp(min=1.0)
    factor = factor + 0.1 * torch.linalg.vector_norm(factor, dim=-1, keepdim=True) * draw.normal(3, 3)
    e, ebar, x = four_flux(n, n[..., None] * factor).unbind(dim=1)
    return torch.stack([e, x, x, ebar, x, x], dim=1).reshape(-1, 2, 3, 4)


def _isotropic(draw: _Draws) -> Tensor:
    """No flux at all: always stable."""
    n = draw.uniform(2, 3)
    return four_flux(n, torch.zeros(*n.shape, 3, dtype=n.dtype))


def _one_flavor(draw: _Draws) -> Tensor:
    """A single species: always stable."""
    which = (draw.uniform() * 6).long()
    n = torch.nn.functional.one_hot(which, 6).double().reshape(-1, 2, 3)
    return four_flux(n, n[..., None] * (0.9 * draw.uniform(1, 1, 1) * draw.directions(1, 1)))


FAMILIES: dict[str, Callable[[_Draws], Tensor]] = {
    "merger": _merger,
    "random": _random,
    "near_isotropic": _near_isotropic,
    "nsm_like": _nsm_like,
    "isotropic": _isotropic,
    "one_flavor": _one_flavor,
}


def random_rotations(rows: int, generator: torch.Generator) -> Tensor:
    """[rows, 3, 3] uniform over SO(3), from unit quaternions (Shoemake 1992)."""
    w, x, y, z = _unit(torch.randn(rows, 4, generator=generator, dtype=torch.float64)).unbind(dim=1)
    entries = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(entries, dim=1).reshape(rows, 3, 3)


def rotate(F: Tensor, rotation: Tensor) -> Tensor:
    """Four-fluxes [B, 2, 3, 4] turned by [B, 3, 3] or [3, 3]."""
    return four_flux(F[..., 3], (rotation.reshape(-1, 1, 1, 3, 3) @ F[..., :3, None])[..., 0])


def draw_states(family: str, rows: int, seed: int = 0) -> Tensor:
    """`rows` synthetic states of a family, [rows, 2, 3, 4] in 1/cm^3; the same seed gives the same bytes.

    >>> F = draw_states("merger", 5, seed=1)
    >>> F.shape, bool((F == draw_states("merger", 5, seed=1)).all())
    (torch.Size([5, 2, 3, 4]), True)
    """
    if family not in FAMILIES:
        raise ConfigError(f"there is no family of states {family!r}.{nearest(family, FAMILIES)}")
    F = FAMILIES[family](_Draws(rows, seed, "states", family))
    frame = _Draws(rows, seed, "frames", family)
    F = rotate(F / total_density(F)[:, None, None, None], random_rotations(rows, frame.generator))
    scale = 10 ** frame.uniform(low=31, high=34)
    return F * scale[:, None, None, None]
