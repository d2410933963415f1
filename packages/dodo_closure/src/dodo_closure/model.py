"""A learned correction to Box3D that cannot break what Box3D keeps."""

from typing import Any

import torch
from torch import Tensor, nn

from dodo_closure.invariants import SECTOR_FEATURES, sector_basis, sector_features

__all__ = ["EquivariantResidual"]

_GATE = 0.01  # I_< / I_> below which the correction fades to nothing


class EquivariantResidual(nn.Module):
    r"""Changes of electron four-fluxes on top of Box3D's, as invariant coefficients times the state's own vectors.

        dF_{e,s}^i = g \sum_k C_k(invariants of s) B_{k,s}^i,   dn_e = dn_ebar = g (d_nu + d_nubar) / 2,   dF_x = -dF_e / 2

    for s = neutrinos and antineutrinos, seen by one network, with B the four fluxes and the two Box3D changes, and
    g = 1 - exp(-(I_< / I_>) / 0.01), which vanishes on stable states. Sums over flavors and net flavor numbers are kept by
    construction; rotations, reflections, exchange of mu and tau, exchange of neutrinos and antineutrinos, and the scale
    commute with it. A difference of mu and tau is not looked at. The last layer starts at zero: untrained, it is Box3D.

    Args:
        about: `features` {mean, scale}, `basis_rms` and `residual_rms`, of the training split
        hidden: units of a hidden layer
        depth: hidden layers
    """

    feature_mean: Tensor
    feature_scale: Tensor
    vector_gain: Tensor
    density_gain: Tensor

    def __init__(self, about: dict[str, Any], hidden: int = 128, depth: int = 3):
        super().__init__()
        self.register_buffer("feature_mean", torch.tensor(about["features"]["mean"], dtype=torch.float64))
        self.register_buffer("feature_scale", torch.tensor(about["features"]["scale"], dtype=torch.float64))
        rms = torch.tensor(about["residual_rms"], dtype=torch.float64)
        self.register_buffer("vector_gain", rms / torch.tensor(about["basis_rms"], dtype=torch.float64))
        self.register_buffer("density_gain", rms)
        layers: list[nn.Module] = []
        width = len(SECTOR_FEATURES)
        for _ in range(depth):
            layers += [nn.Linear(width, hidden), nn.SiLU()]
            width = hidden
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(width, 7)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, initial: Tensor, box: Tensor, smaller: Tensor, larger: Tensor) -> Tensor:
        """Box3D's four-fluxes `box` [B, 2, 3, 4], corrected; N = 1, float64, not yet limited to physical states."""
        features = (sector_features(initial, box, smaller, larger) - self.feature_mean) / self.feature_scale
        out = self.head(self.trunk(features.clamp(-10, 10).to(self.head.weight.dtype))).double()
        gate = -torch.expm1(-smaller / (_GATE * larger.clamp(min=1e-30)))
        vector = torch.einsum("bsk,bski->bsi", out[..., :6] * self.vector_gain, sector_basis(initial, box))
        number = (out[..., 6].mean(dim=1, keepdim=True) * self.density_gain).expand(-1, 2)
        electron = gate[:, None, None, None] * torch.cat([vector, number[..., None]], dim=-1)[:, :, None]
        return box + torch.cat([electron, -electron / 2, -electron / 2], dim=-2)
