"""From GeV and metres to what a flow likes, and to the coordinates in which earlier likelihoods were quoted.

A density is always reported for a stated unit: adding a constant to a logarithm of energy changes no NLL, dividing by a factor
`a` adds -ln a, so NLLs of different preprocessings compare only after the change of variables that stands here.
"""

import math

import torch
from torch import Tensor

from muonflow import physics

__all__ = [
    "FEATURES",
    "ceilings",
    "derived_features",
    "from_flow",
    "from_source",
    "source_log_jacobian",
    "to_flow",
    "to_source",
]

FEATURES = ("ln E0/A", "ln A", "cos zenith", "ln slant depth", "ln threshold", "ln E0/(A threshold)", "ln Elbert mean")
FARTHEST = 85.0  # |ln(r / m)|
FEWEST = 1.0e-6  # muons: means below are one and the same


def ceilings(condition: Tensor) -> Tensor:
    """E0 / A [B], GeV: what a nucleon of the primary has, and no muon can exceed."""
    return condition[:, 0] / condition[:, 2]


def derived_features(condition: Tensor) -> Tensor:
    """[N, 7] of conditions [N, 4] (GeV, rad, A, m): the quantities in which yields and spectra are nearly linear.

    Computed in float64, since a threshold energy subtracts nearly equal numbers; returned in the type of `condition`.
    """
    energy, zenith, mass, depth = condition.double().unbind(-1)
    cosine = torch.cos(zenith)
    column = physics.slant_depth(depth / 1000, cosine)
    threshold = physics.threshold_energy(column)
    mean = physics.elbert_mean(energy, mass, threshold, cosine).clamp(min=FEWEST)
    nucleon = energy / mass
    columns = (nucleon.log(), mass.log(), cosine, column.log(), threshold.log(), (nucleon / threshold).log(), mean.log())
    return torch.stack(columns, -1).to(condition.dtype)


def to_flow(muons: Tensor, ceiling: Tensor) -> tuple[Tensor, Tensor]:
    """`y = (ln E - ln(1 - E / C), ln r)` of muons [M, 2] below their ceilings C [M] (GeV), and ln |det dy / d(E, r)| [M].

    With C = E0 / A no muon can have more energy than a nucleon of its primary, whatever the flow has learned; far below C the
    first coordinate is ln E.
    """
    energy, radius = muons.unbind(-1)
    log_left = torch.log1p(-energy / ceiling)
    y = torch.stack([energy.log() - log_left, radius.log()], -1)
    return y, -energy.log() - log_left - radius.log()


def from_flow(y: Tensor, ceiling: Tensor) -> Tensor:
    """The inverse of `to_flow`: E = 1 / (exp(-y1) + 1 / C), r = exp(y2). Computed in float64; E stays below C after rounding,
    and r finite in float32, however heavy the tails of a flow.

    >>> from_flow(torch.tensor([[200.0, 0.0]]), torch.tensor([1000.0])) < torch.tensor([[1000.0, 2.0]])
    tensor([[True, True]])
    """
    first, second = y.double().unbind(-1)
    limit = ceiling.double()
    energy = 1 / (torch.exp(-first) + 1 / limit)
    muons = torch.stack([energy, torch.exp(second.clamp(-FARTHEST, FARTHEST))], -1).to(y.dtype)
    below = ceiling.to(y.dtype) * (1 - torch.finfo(y.dtype).eps)  # a step or two below, in graphs of any format
    return torch.stack([torch.minimum(muons[..., 0], below), muons[..., 1]], -1)


def to_source(muons: Tensor) -> Tensor:
    """The coordinates of earlier work: e = (log10(E / 1e6 GeV) + 5) / 2, v = (ln(r^2 + 0.125 m^2) - 5) / 2, of [M, 2].

    >>> to_source(torch.tensor([[100.0, 1.0], [1000.0, 100.0]]).double()).round(decimals=3).tolist()
    [[0.5, -2.441], [1.0, 2.105]]
    """
    energy, radius = muons.unbind(-1)
    e = (torch.log10(energy.clamp(min=1e-3) / 1e6) + 5) / 2
    return torch.stack([e, (torch.log(radius**2 + 0.125) - 5) / 2], -1)


def from_source(scaled: Tensor) -> Tensor:
    """The inverse of `to_source`; a `v` below that of the axis itself means r = 0."""
    e, v = scaled.unbind(-1)
    return torch.stack([10 ** (2 * e + 1), torch.sqrt((torch.exp(2 * v + 5) - 0.125).clamp(min=0.0))], -1)


def source_log_jacobian(muons: Tensor) -> Tensor:
    """ln |det d(E, r) / d(e, v)| [M]: what turns ln p(E, r) into ln p(e, v)."""
    energy, radius = muons.unbind(-1)
    return torch.log(2 * math.log(10) * energy) + torch.log((radius**2 + 0.125) / radius)
