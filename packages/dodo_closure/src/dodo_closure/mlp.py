"""The plain network of an earlier attempt, put right: 27 invariants in, 24 residuals out. For comparison only."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from dodo_closure.conserve import project
from dodo_closure.fluxes import four_flux
from dodo_closure.invariants import invariants27
from dodo_closure.model import GATE, Correction
from dodo_closure.quadrature import frames
from skyloom.errors import ConfigError, nearest

__all__ = ["InvariantResidual", "ResidualBlock"]

_ACTIVATIONS = {"relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU, "gelu": nn.GELU}


class ResidualBlock(nn.Module):
    """Linear, optional batch norm, activation, dropout; the input is added where the widths agree."""

    def __init__(self, inputs: int, outputs: int, activation: str, batch_norm: bool, dropout: float):
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ConfigError(f"activation={activation} is unknown.{nearest(activation, _ACTIVATIONS)}")
        self.linear = nn.Linear(inputs, outputs)
        nn.init.kaiming_uniform_(self.linear.weight, a=5**0.5)
        nn.init.zeros_(self.linear.bias)
        self.norm = nn.BatchNorm1d(outputs) if batch_norm else nn.Identity()
        self.rest = nn.Sequential(_ACTIVATIONS[activation](), nn.Dropout(dropout))
        self.skip = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.rest(self.norm(self.linear(x)))
        return x + y if self.skip else y


class InvariantResidual(nn.Module):
    """Residual blocks on the 27 invariants; Cartesian components out, projected onto what is conserved.

    Invariants do not know which way a state points, Cartesian components do: on states of every orientation the fluxes cannot
    be learned. `frame: state` predicts in a frame made from the state itself instead (the lepton-number flux, then the heavy
    flux), which mends that where these vectors are not small or parallel.

    Args:
        about: `residual_rms` of the training split
        hidden: units of a block
        depth: blocks
        activation: relu, elu, silu or gelu
        batch_norm, dropout: of each block
        frame: fixed or state
    """

    residual_rms: Tensor

    def __init__(
        self,
        about: dict[str, Any],
        hidden: int = 256,
        depth: int = 4,
        activation: str = "gelu",
        batch_norm: bool = True,
        dropout: float = 0.05,
        frame: str = "fixed",
    ):
        super().__init__()
        if frame not in ("fixed", "state"):
            raise ConfigError(f"frame={frame}: choose fixed or state.")
        self.in_state_frame = frame == "state"
        self.register_buffer("residual_rms", torch.tensor(about["residual_rms"], dtype=torch.float64))
        widths = [27, *[hidden] * depth]
        options = (activation, batch_norm, dropout)
        blocks = [ResidualBlock(a, b, *options) for a, b in pairwise(widths)]
        self.trunk = nn.Sequential(*blocks)
        self.head = nn.Linear(hidden, 24)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.spreads = nn.Parameter(torch.zeros(2, 6, 2))

    def forward(self, initial: Tensor, box: Tensor, smaller: Tensor, larger: Tensor) -> Correction:
        """Box3D's four-fluxes `box` [B, 2, 3, 4], corrected, as a model of one member with one error for all states."""
        features = invariants27(initial).to(self.head.weight.dtype)
        out = self.head(self.trunk(features)).to(initial).unflatten(1, (2, 3, 4)) * self.residual_rms.to(initial)
        if self.in_state_frame:
            out = four_flux(out[..., 3], out[..., :3] @ _state_frame(initial).transpose(1, 2)[:, None])
        gate = -torch.expm1(-smaller / (GATE * larger.clamp(min=1e-30)))[:, None, None, None]
        final = project(initial, box + gate * out)
        scale = self.residual_rms.to(initial) * torch.exp(self.spreads.to(initial).clamp(-8, 8)).reshape(2, 2, 3, 2)
        bars = gate * scale[:, None, ..., [0, 0, 0, 1]]
        return Correction(final[None], bars[:1], bars[1:])


def _state_frame(F: Tensor) -> Tensor:
    """[B, 3, 3] with columns x, y, z: z along the electron-minus-heavy lepton-number flux, x towards the flux of nu_x."""
    electron, heavy = F[..., 0, :3], F[..., 1:, :3].mean(dim=2)
    current = (electron[:, 0] - electron[:, 1]) - (heavy[:, 0] - heavy[:, 1])
    return frames(current, torch.cat([heavy, electron], dim=1))
