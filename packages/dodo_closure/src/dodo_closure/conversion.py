r"""How much electron flavor is converted, and where on the sphere: the jump of Box3D and its smooth variant.

With G = (f_e - f_ebar) - (f_x - f_xbar) over the sphere, I_< and I_> the smaller and the larger of the integrals of
max(G, 0) and max(-G, 0), electron flavor survives with P = p0 = 1/3 (equipartition) where G has the sign of I_<, and with
1 - P = (1 - p0) I_< / I_> elsewhere, which keeps the net electron number. The smooth variant has
1 - P = (1 - p0) (1 + (G/a)^2)^(-1/2) elsewhere, with a > 0 from the net electron number.

Only the change is integrated, and for the jump on the smaller side alone: the larger side is the whole (known exactly) less
the smaller. So flavor-traced four-fluxes and net flavor numbers are kept to round-off by every rule.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dodo_closure.fluxes import density, flux, length
from dodo_closure.minerbo import Minerbo
from dodo_closure.quadrature import Product, Rule, frames

__all__ = ["Conversion", "convert", "crossing_frames", "inside_moments", "jump", "lepton_excess", "net_number"]

_NONE = 1e-12  # of N: a smaller side below this is round-off, and the state is stable


class Conversion(NamedTuple):
    """The change of electron-flavor four-fluxes [B, 2, 4] (nu_e, nubar_e) and what it rests on, in units of N."""

    change: Tensor
    smaller: Tensor
    larger: Tensor
    survival: Tensor
    unstable: Tensor


def _difference(four: Tensor) -> Tensor:
    """(e - ebar) - (x - xbar) of [B, 4, ...]."""
    return (four[:, 0] - four[:, 1]) - (four[:, 2] - four[:, 3])


def lepton_excess(intensity: Tensor) -> Tensor:
    """G [B, K] from intensities [B, 4, K] of (e, ebar, x, xbar); round-off of the terms counts as zero."""
    value = _difference(intensity)
    noise = 50 * torch.finfo(intensity.dtype).eps * intensity.sum(dim=1)
    return torch.where(value.abs() > noise, value, torch.zeros_like(value))


def net_number(moments: Tensor) -> Tensor:
    """I_+ - I_- [B], the integral of G, from four-fluxes [B, 4, 4] of (e, ebar, x, xbar)."""
    return _difference(density(moments))


def crossing_frames(moments: Tensor, closure: Minerbo) -> Tensor:
    """[B, 3, 3] frames fixed by the state itself, so that nothing computed in them depends on the axes of the input.

    The polar axis is D = Z_e - Z_ebar for identical heavy flavors, about which the crossing is a circle; else the centre of
    the smaller side, found in the frame of the lepton-number flux. `moments` is [B, 4, 4] of (e, ebar, x, xbar).
    """
    current, seconds = _difference(flux(moments)), flux(moments)
    directions, weights = Product(16, 32)(lambda n: n, frames(current, seconds))
    side = torch.where(net_number(moments) >= 0, -1.0, 1.0).to(moments)
    smaller = weights * (lepton_excess(closure.along(directions)) * side[:, None]).clamp(min=0.0)
    centre = (smaller[:, None] @ directions)[:, 0]
    centre = torch.where(length(centre)[:, None] > 1e-6 * smaller.sum(dim=1, keepdim=True), centre, current)
    centre = centre / length(centre).clamp(min=1e-30)[:, None]
    return frames(torch.where(alike(moments)[:, None], closure.z[:, 0] - closure.z[:, 1], centre), seconds)


def alike(moments: Tensor) -> Tensor:
    """[B]: heavy neutrinos and antineutrinos have the same four-flux, in units of N."""
    tolerance = 1e-13 if moments.dtype == torch.float64 else 1e-7
    return (moments[:, 2] - moments[:, 3]).abs().amax(dim=1) < tolerance


def _with_one(directions: Tensor) -> Tensor:
    return torch.cat([directions, torch.ones_like(directions[..., :1])], dim=-1)


def _towards(moments: Tensor) -> Tensor:
    """[B, 1]: the sign of G on the smaller side."""
    return torch.where(net_number(moments) >= 0, -1.0, 1.0).to(moments)[:, None]


def inside_moments(intensity: Callable[[Tensor], Tensor], moments: Tensor, frame: Tensor, rule: Rule) -> Tensor:
    """Four-fluxes [B, 4, 4] that the species have on the smaller side alone."""
    directions, weights = rule(lambda n: lepton_excess(intensity(n)), frame)
    value = intensity(directions)
    inside = torch.where(lepton_excess(value) * _towards(moments) > 0, weights, torch.zeros_like(weights))
    return (value * inside[:, None]) @ _with_one(directions)


def jump(inside: Tensor, moments: Tensor, p0: float = 1 / 3) -> Conversion:
    """Box3D, from the species' four-fluxes [B, 4, 4] on the smaller side and on the whole sphere."""
    smaller = _difference(density(inside)) * _towards(moments)[:, 0]
    none = _NONE if moments.dtype == torch.float64 else 1e-6
    unstable = smaller > none
    larger = smaller.clamp(min=0) + net_number(moments).abs()
    ratio = torch.where(unstable, smaller, torch.zeros_like(smaller)) / torch.where(unstable, larger, torch.ones_like(larger))
    share = ratio[:, None, None]
    change = share * (moments[:, 2:] - moments[:, :2]) + (1 - share) * (inside[:, 2:] - inside[:, :2])
    change = torch.where(unstable[:, None, None], (1 - p0) * change, torch.zeros_like(change))
    return Conversion(change, torch.where(unstable, smaller, torch.zeros_like(smaller)), larger, 1 - (1 - p0) * ratio, unstable)


def convert(
    intensity: Callable[[Tensor], Tensor], moments: Tensor, frame: Tensor, rule: Rule, smooth: bool = False, p0: float = 1 / 3
) -> Conversion:
    """Mix (e, ebar, x, xbar): intensities [B, 4, K] along directions [B, K, 3], whose four-fluxes are `moments` [B, 4, 4]."""
    if not smooth:
        return jump(inside_moments(intensity, moments, frame, rule), moments, p0)
    directions, weights = rule(lambda n: lepton_excess(intensity(n)), frame)
    value = intensity(directions)
    excess = lepton_excess(value) * _towards(moments)
    outside = weights * (-excess).clamp(min=0)
    smaller = (weights * excess.clamp(min=0)).sum(dim=1)
    unstable = smaller > _NONE
    part = weights * torch.where(excess > 0, torch.ones_like(excess), _spread(excess, outside, weights, smaller))
    change = (1 - p0) * ((part[:, None] * (value[:, 2:] - value[:, :2])) @ _with_one(directions))
    change = torch.where(unstable[:, None, None], change, torch.zeros_like(change))
    larger = smaller + net_number(moments).abs()
    smaller = torch.where(unstable, smaller, torch.zeros_like(smaller))
    return Conversion(change, smaller, larger, 1 - (1 - p0) * smaller / larger.clamp(min=1e-30), unstable)


def _spread(excess: Tensor, outside: Tensor, weights: Tensor, smaller: Tensor, steps: int = 16) -> Tensor:
    """h(G) = (1 + (G/a)^2)^(-1/2) on the larger side [B, K], with a such that the integral of h |G| there is I_<.

    Newton's method for g = ln of their ratio to I_> in ln a, which is concave: from the left it rises to the root without
    passing it. Where h is close to 1, g falls with a^-2, and the step is taken from that. The last factor takes out the rest.
    """
    size = excess.abs()
    tiny = torch.finfo(excess.dtype).tiny
    area = torch.where(excess < 0, weights, torch.zeros_like(weights)).sum(dim=1).clamp(min=tiny)
    larger = outside.sum(dim=1).clamp(min=tiny)
    aim = torch.log(smaller / larger).clamp(max=-tiny)
    a = (smaller / area).clamp(min=tiny)  # h |G| <= a
    for _ in range(steps):
        h = torch.rsqrt(1 + (size / a[:, None]) ** 2)
        part = outside * h
        total = part.sum(dim=1)
        g = torch.log(total / larger).clamp(max=-tiny)
        slope = (part * (1 - h**2)).sum(dim=1) / total.clamp(min=tiny)
        step = torch.where(slope < 0.1, torch.log(g / aim) / 2, (aim - g) / slope)
        a = a * torch.exp(step.clamp(min=-3.0, max=3.0))
    h = torch.rsqrt(1 + (size / a[:, None]) ** 2)
    return h * (smaller / (outside * h).sum(dim=1).clamp(min=tiny))[:, None]
