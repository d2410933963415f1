"""The residual by steerable features (e3nn, an optional extra), for comparison with the basis form: one tensor product more
general, and slower.

Nodes are the six species; a layer mixes, for each, what it knows of itself, of the other flavors, of its antiparticle and of
the rest (the four maps that permutations leave), through gated tensor products of vectors and scalars.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dodo_closure.conserve import project
from dodo_closure.fluxes import density, flux, four_flux
from dodo_closure.model import GATE, Correction
from skyloom.errors import ConfigError

__all__ = ["SteerableResidual", "relation_means"]


def relation_means(x: Tensor) -> Tensor:
    """[..., 2, 3, C] to [..., 2, 3, 4 C]: self, mean of the other flavors, antiparticle, mean of the other antiparticles.

    All linear maps between species that commute with permutations of flavors and with the exchange of nu and nubar are
    combinations of these four.

    >>> bool((relation_means(torch.ones(2, 3, 1)) == 1).all())
    True
    """
    others = (x.sum(dim=-2, keepdim=True) - x) / 2
    return torch.cat([x, others, x.flip(-3), others.flip(-3)], dim=-1)


class SteerableResidual(nn.Module):
    """Equivariant under rotations, reflections, and mu-tau and nu-nubar exchange; scalars and vectors per species.

    Args:
        about: `residual_rms` of the training split
        channels: scalars and vectors of a node
        depth: layers
    """

    residual_rms: Tensor

    def __init__(self, about: dict[str, Any], channels: int = 16, depth: int = 2):
        super().__init__()
        try:
            from e3nn import o3
            from e3nn.nn import Gate
        except ImportError as error:
            raise ConfigError("model=dodo_closure/steerable needs e3nn: pip install skyloom-dodo-closure[e3nn].") from error
        self.register_buffer("residual_rms", torch.tensor(about["residual_rms"], dtype=torch.float64))
        layers: list[nn.Module] = []
        scalars, vectors = 5, 2  # n, Box3D's change of n, whether electron flavor, I_<, I_>; the flux and its change
        for _ in range(depth):
            inside = o3.Irreps(f"{4 * scalars}x0e + {4 * vectors}x1o")
            gate = Gate(f"{channels}x0e", [torch.nn.functional.silu], f"{channels}x0e", [torch.sigmoid], f"{channels}x1o")
            layers.append(nn.ModuleList([o3.FullyConnectedTensorProduct(inside, inside, gate.irreps_in), gate]))
            scalars = vectors = channels
        self.layers = nn.ModuleList(layers)
        self.channels = channels
        self.head = o3.Linear(f"{channels}x0e + {channels}x1o", "1x0e + 1x1o")
        self.strength = nn.Parameter(torch.zeros(()))
        self.spreads = nn.Parameter(torch.zeros(2, 2))

    def forward(self, initial: Tensor, box: Tensor, smaller: Tensor, larger: Tensor) -> Correction:
        kind = next(self.head.parameters()).dtype
        change = (box - initial) * 10
        electron = torch.zeros_like(density(initial))
        electron[..., 0] = 1
        sides = [10 * side[:, None, None].expand_as(electron) for side in (smaller, larger)]
        scalars = torch.stack([6 * density(initial), density(change), electron, *sides], dim=-1).to(kind)
        vectors = torch.stack([6 * flux(initial), flux(change)], dim=-2).to(kind)
        for layer in self.layers:
            product, gate = layer.children()
            turned = relation_means(vectors.transpose(-1, -2).flatten(-2)).unflatten(-1, (4, 3, -1)).transpose(-1, -2)
            x = torch.cat([relation_means(scalars), turned.flatten(-3)], dim=-1)
            y = gate(product(x, x))
            scalars, vectors = y[..., : self.channels], y[..., self.channels :].unflatten(-1, (self.channels, 3))
        out = self.head(torch.cat([scalars, vectors.flatten(-2)], dim=-1)).to(initial) * self.strength.to(initial)
        gate_value = -torch.expm1(-smaller / (GATE * larger.clamp(min=1e-30)))[:, None, None, None]
        step = gate_value * self.residual_rms.to(initial) * four_flux(out[..., 0], out[..., 1:])
        step = torch.cat([step[:, :, :1], step[:, :, 1:].mean(dim=2, keepdim=True).expand(-1, -1, 2, -1)], dim=2)
        final = project(initial, box + step)
        scale = self.residual_rms.to(initial) * torch.exp(self.spreads.to(initial).clamp(-8, 8))
        bars = (gate_value * scale[:, None, None, None, [0, 0, 0, 1]]).expand(2, *box.shape)
        return Correction(final[None], bars[:1], bars[1:])
