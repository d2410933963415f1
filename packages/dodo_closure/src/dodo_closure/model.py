"""Learned corrections to Box3D: members that see the state through invariants, and what error they expect of themselves."""

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dodo_closure.invariants import SECTOR_FEATURES, sector_basis, sector_features

__all__ = ["Correction", "EquivariantResidual", "Members", "combined"]

FLOOR = 0.1  # of the training residual's rms: an error bar is in proportion to this plus the members' disagreement
GATE = 0.01  # I_< / I_> below which a correction fades to nothing


class Correction(NamedTuple):
    """What the M members of a model say of B states, in units of N."""

    final: Tensor
    """[M, B, 2, 3, 4] four-fluxes; they conserve, but are not yet limited to physical states."""
    error: Tensor
    """[M, B, 2, 3, 4] half-width of the 68% interval of each member's error, per component."""
    box_error: Tensor
    """[M, B, 2, 3, 4] the same of Box3D."""


def combined(final: Tensor, error: Tensor, box_error: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of the members, half-width of its 68% interval per component, and whether a row trusts it more than Box3D.

    Each member's width was learned from rows that it had not seen.
    """
    mean, bar, box_expected = final.mean(dim=0), error.mean(dim=0), box_error.mean(dim=0)
    trusted = bar.mean(dim=(1, 2, 3)) <= box_expected.mean(dim=(1, 2, 3))
    return mean, bar, trusted


class Members(nn.Module):
    """M perceptrons side by side, each with its own weights: [M or 1, ..., inputs] to [M, ..., outputs]; last layer zero."""

    def __init__(self, members: int, inputs: int, hidden: int, depth: int, outputs: int):
        super().__init__()
        sizes = [inputs, *[hidden] * depth, outputs]
        layers = [nn.Linear(a, b) for _ in range(members) for a, b in pairwise(sizes)]
        each = [layers[k :: depth + 1] for k in range(depth + 1)]
        self.weights = nn.ParameterList([torch.stack([layer.weight.data.T for layer in own]) for own in each])
        self.biases = nn.ParameterList([torch.stack([layer.bias.data[None] for layer in own]) for own in each])
        nn.init.zeros_(self.weights[-1])
        nn.init.zeros_(self.biases[-1])

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape[1:-1]
        x = x.flatten(1, -2).expand(self.weights[0].shape[0], -1, -1)
        last = len(self.weights) - 1
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if k < last:
                x = nn.functional.silu(x, inplace=not torch.is_grad_enabled())
        return x.unflatten(1, shape)


class EquivariantResidual(nn.Module):
    r"""Changes of electron four-fluxes on top of Box3D's, as invariant coefficients times the state's own vectors.

        dF_{e,s}^i = g \sum_k C_k(invariants of s) B_{k,s}^i,   dn_e = dn_ebar = g (d_nu + d_nubar) / 2,   dF_x = -dF_e / 2

    for s = neutrinos and antineutrinos, seen by one network, with B the four fluxes and the two Box3D changes, and
    g = 1 - exp(-(I_< / I_>) / 0.01), which vanishes on stable states. Sums over flavors and net flavor numbers are kept by
    construction; rotations, reflections, exchange of mu and tau, exchange of neutrinos and antineutrinos, and the scale
    commute with it. A difference of mu and tau is not looked at. The last layer starts at zero: untrained, it is Box3D.

    The error bar is a learned multiple of the members' disagreement, which grows where none has seen anything alike.

    Args:
        about: `features` {mean, scale}, `basis_rms` and `residual_rms`, of the training split
        hidden: units of a hidden layer
        depth: hidden layers
        members: networks, each with weights of its own; their mean is the answer
    """

    feature_mean: Tensor
    feature_scale: Tensor
    vector_gain: Tensor
    rms: Tensor

    def __init__(self, about: dict[str, Any], hidden: int = 64, depth: int = 3, members: int = 4):
        super().__init__()
        self.register_buffer("feature_mean", torch.tensor(about["features"]["mean"], dtype=torch.float64))
        self.register_buffer("feature_scale", torch.tensor(about["features"]["scale"], dtype=torch.float64))
        rms = torch.tensor(about["residual_rms"], dtype=torch.float64)
        self.register_buffer("vector_gain", rms / torch.tensor(about["basis_rms"], dtype=torch.float64))
        self.register_buffer("rms", rms)
        self.members = members
        self.coefficients = Members(members, len(SECTOR_FEATURES), hidden, depth, 7)
        self.spreads = Members(members, len(SECTOR_FEATURES), hidden // 2, 2, 4)

    def forward(self, initial: Tensor, box: Tensor, smaller: Tensor, larger: Tensor) -> Correction:
        """Box3D's four-fluxes `box` [B, 2, 3, 4], corrected; N = 1; smaller and larger [B] are Box3D's integrals."""
        features = sector_features(initial, box, smaller, larger) - self.feature_mean.to(initial)
        features = (features / self.feature_scale.to(initial)).clamp(-10, 10).to(self.coefficients.weights[0].dtype)[None]
        out = self.coefficients(features).to(initial)
        gate = -torch.expm1(-smaller / (GATE * larger.clamp(min=1e-30)))[:, None]
        gain = (gate[..., None] * self.vector_gain.to(initial))[None]
        vector = ((out[..., :6] * gain)[..., None, :] @ sector_basis(initial, box))[..., 0, :]
        number = (out[..., 6].mean(dim=2, keepdim=True) * (gate * self.rms.to(initial))).expand(-1, -1, 2)
        electron = torch.cat([vector, number[..., None]], dim=-1)[..., None, :]
        final = box + torch.cat([electron, -electron / 2, -electron / 2], dim=-2)
        level = gate[..., None] * self.rms.to(initial)
        factor = torch.exp(self.spreads(features).to(initial).clamp(-8, 8))
        error = factor[..., :2] * (disagreement(final[..., 0, :]) + FLOOR * level)
        return Correction(final, _per_component(error), _per_component(factor[..., 2:] * level))


def disagreement(electron: Tensor) -> Tensor:
    """Standard deviation [B, 2, 2] over members, of the density and of a flux component of electron flavor [M, B, 2, 4]."""
    electron = electron.detach()
    variance = ((electron - electron.mean(dim=0)) ** 2).sum(dim=0) / (electron.shape[0] - 1 + 1e-9)
    return torch.sqrt(torch.stack([variance[..., 3], variance[..., :3].mean(dim=-1)], dim=-1))


def _per_component(scale: Tensor) -> Tensor:
    """[M, B, 2, 3, 4] from the scales [M, B, 2, 2] of the density and of one flux component of electron flavor."""
    density = scale[..., 0].mean(dim=-1, keepdim=True).expand(-1, -1, 2)
    electron = torch.stack([scale[..., 1], scale[..., 1], scale[..., 1], density], dim=-1)[..., None, :]
    return torch.cat([electron, electron / 2, electron / 2], dim=-2)
