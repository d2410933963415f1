r"""Final states from quantum kinetics, tiers T2 (two flavors, mapped to three) and T3 (three flavors).

The state's maximum-entropy distributions are put on the ordinates of a positive sphere rule whose polar axis is the flux of
G = (f_e - f_ebar) - (f_x - f_xbar), evolved by `dodo_closure.qke`, and mixed by the survival P(n) that comes out:

    f_e' = P f_e + (1 - P) f_x,   f_x' = (1 - P)/2 f_e + (1 + P)/2 f_x,   likewise for antineutrinos.

T2 maps two flavors to three by 1 - P = (4/3) (1 - P_2): equipartition 1/2 becomes 1/3, and both conservation laws survive,
being linear in 1 - P. That factor is a heuristic, under test against T3. Mu and tau, which a single simulation tells apart by
chance, are averaged.

What an ordinate rule misses of the jump of P it misses of Box3D too, so that only the difference to Box3D is taken from the
rule, and Box3D itself from an exact one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dodo_closure.box3d import STEEPEST, asymptotic_state
from dodo_closure.conserve import limit, project
from dodo_closure.conversion import lepton_excess
from dodo_closure.fluxes import flux, heavy_average, total_density
from dodo_closure.minerbo import maximum_entropy
from dodo_closure.qke import Box, steps_needed, survival
from dodo_closure.quadrature import Lebedev, Rule, frames
from skyloom.run.seeds import derive

__all__ = ["Kinetic", "kinetic_final_state"]

_SIGNS = (1.0, -1.0, -1.0, 1.0)
_FLOATS = 1 << 20  # of polarizations held at once on a CPU: more than the cache is slower


class Kinetic(NamedTuple):
    """Per row."""

    final: Tensor
    """[B, 2, 3, 4], in the unit of the initial state."""
    noise: Tensor
    """[B]: mean over components of what the average over time leaves open, in units of N."""
    growth: Tensor
    """[B]: sqrt(I_< I_>) on the ordinates, in units of N; 0 where no ordinate sees a crossing."""
    settled: Tensor
    """[B]: the run was long enough; false too where growth < 0.01, for which nothing was run and the state is unchanged."""


def kinetic_final_state(
    F: Tensor, seed: int, flavors: int = 2, box: Box | None = None, order: int = 17, rule: Rule | None = None
) -> Kinetic:
    """Synthetic final four-fluxes of states [B, 2, 3, 4] with nu_mu = nu_tau; `order` is that of the Lebedev ordinates."""
    box = box or Box()
    total = total_density(F)[:, None, None, None]
    unit = (F / total).double()
    moments = heavy_average(unit)
    ordinates, weights, value = _ordinates(moments, order)
    excess = lepton_excess(value) * weights
    growth = torch.sqrt(excess.clamp(min=0).sum(dim=1) * (-excess).clamp(min=0).sum(dim=1))
    strength = excess / growth.clamp(min=1e-30)[:, None]
    steps = torch.where(growth >= 0.01, steps_needed(strength, ordinates[0], box), 0)
    conversion = torch.zeros_like(excess)
    drift, settled = torch.zeros_like(excess), growth >= 0.01
    at_once = max(_FLOATS // (excess.shape[1] * box.cells * (3 if flavors == 2 else 9)), 1)
    at_once = at_once if F.device.type == "cpu" else 64 * at_once
    for count in steps.unique().tolist():
        if count == 0:
            continue
        for rows in torch.nonzero(steps == count)[:, 0].split(at_once):
            seeds = [derive(seed, "polarization", int(row)) for row in rows]
            found = survival(strength[rows], ordinates[0], seeds, count, box, flavors)
            factor = 4 / 3 if flavors == 2 else 1.0
            conversion[rows] = factor * (1 - found.flavors[..., 0])
            drift[rows] = factor * found.drift
            settled[rows] &= ~found.growing
    change = _mixed(conversion, value, weights, ordinates[1])
    analytic = _box_conversion(excess)
    truth = asymptotic_state(unit, rule)[0] + _six(change - _mixed(analytic, value, weights, ordinates[1]))
    truth = torch.where((steps > 0)[:, None, None, None], limit(unit, project(unit, truth)) * total, F)
    noise = _six(_mixed(drift, value, weights, ordinates[1])).abs().mean(dim=(1, 2, 3)) / 2
    return Kinetic(truth, noise, growth, settled)


def _ordinates(moments: Tensor, order: int) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Directions in the box's frame [D, 3] and in the state's [B, D, 3], weights [D], intensities [B, 4, D]."""
    current = torch.einsum("s,bsi->bi", moments.new_tensor(_SIGNS), flux(moments))
    frame = frames(current, flux(moments))
    directions, weights = (part[0] for part in Lebedev(order)(lambda n: n, frame))
    own = directions @ frame.transpose(1, 2)
    return (directions, own), weights, maximum_entropy(moments, STEEPEST).along(own)


def _box_conversion(excess: Tensor) -> Tensor:
    """1 - P of Box3D on ordinates whose w G is `excess`."""
    above, below = excess.clamp(min=0).sum(dim=1, keepdim=True), (-excess).clamp(min=0).sum(dim=1, keepdim=True)
    smaller = torch.where(above < below, excess > 0, excess < 0)
    ratio = torch.minimum(above, below) / torch.maximum(above, below).clamp(min=1e-30)
    return 2 / 3 * torch.where(smaller, torch.ones_like(excess), ratio)


def _mixed(conversion: Tensor, value: Tensor, weights: Tensor, directions: Tensor) -> Tensor:
    """Change of (nu_e, nubar_e) four-fluxes [B, 2, 4] where 1 - P = `conversion` [B, D]."""
    ones = torch.cat([directions, torch.ones_like(directions[..., :1])], dim=-1)
    return ((weights * conversion)[:, None] * (value[:, 2:] - value[:, :2])) @ ones


def _six(electron: Tensor) -> Tensor:
    """[B, 2, 3, 4] changes that keep flavor-traced four-fluxes, from those of electron flavor [B, 2, 4]."""
    electron = electron[:, :, None]
    return torch.cat([electron, -electron / 2, -electron / 2], dim=-2)
