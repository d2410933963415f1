r"""Box3D: where a cell's neutrinos stand after the fast flavor instability, from four-fluxes alone.

With G = (f_e - f_ebar) - (f_x - f_xbar) over the sphere, I_< and I_> the smaller and the larger of the integrals of
max(G, 0) and max(-G, 0), electron flavor survives with P = p0 = 1/3 (equipartition) where G has the sign of I_<, and with
1 - P = (1 - p0) I_< / I_> elsewhere, which keeps the net electron number:

    f_e' = P f_e + (1 - P) f_x,   f_x' = (1 - P)/2 f_e + (1 + P)/2 f_x,   likewise for antineutrinos.

Richers, Froustey, Ghosh, Foucart and Gomez 2024, Phys. Rev. D 110, 103019 (arXiv:2409.04405), section III, after Zaizen and
Nagakura 2023. The smooth variant replaces the jump of P at the crossing: on the larger side
1 - P = (1 - p0) (1 + (G/a)^2)^(-1/2), with a > 0 from the net electron number (after Xiong et al. 2023, arXiv:2307.11129).

Only the change is integrated, and on the smaller side alone: the larger side is the whole (known exactly) less the smaller.
So the flavor-traced four-fluxes and the net flavor numbers are kept to round-off by every rule.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dodo_closure.conserve import limit
from dodo_closure.fluxes import density, flux, flux_factor, heavy_average, is_physical, length, total_density
from dodo_closure.minerbo import Minerbo, maximum_entropy
from dodo_closure.quadrature import CrossingAware, Product, Rule, frames
from skyloom.errors import DataError

__all__ = ["STEEPEST", "Conversion", "Diagnostics", "asymptotic_state", "convert", "crossing_frames"]

STEEPEST = 0.98  # flux factor that the default rule still resolves; steeper beams are integrated as this steep
_NONE = 1e-12  # of N: a smaller side below this is round-off, and the state is stable
_NODES = 1 << 18  # sphere nodes held at once
_SIGNS = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)  # of (e, ebar, x, xbar) in G


class Diagnostics(NamedTuple):
    """Per row, in units of N where it has a unit."""

    smaller: Tensor
    """I_<; 0 where there is no crossing."""
    larger: Tensor
    """I_>; |net| where there is no crossing."""
    survival: Tensor
    """P on the larger side (its mean, weighted by |G|, for the smooth variant); 1 where stable."""
    unstable: Tensor
    """Whether the electron-minus-heavy lepton number changes sign over the sphere."""
    unreliable: Tensor
    """Some flux factor exceeds 0.98: the angular integrals use a broader beam."""
    valid: Tensor
    """Finite, not empty, n >= 0 and |flux| <= n; other rows come back as NaN."""

    @property
    def growth(self) -> Tensor:
        """Estimate sqrt(I_< I_>) of the growth rate; times N and sqrt(2) G_F / hbar = 1.92552e-22 cm^3/s it is in 1/s."""
        return torch.sqrt(self.smaller * self.larger)


class Conversion(NamedTuple):
    """The change of electron-flavor four-fluxes [B, 2, 4] (nu_e, nubar_e) and what it rests on, in units of N."""

    change: Tensor
    smaller: Tensor
    larger: Tensor
    survival: Tensor
    unstable: Tensor


def lepton_excess(intensity: Tensor) -> Tensor:
    """G [B, K] from intensities [B, 4, K] of (e, ebar, x, xbar); round-off of the terms counts as zero."""
    value = torch.einsum("s,bsk->bk", _SIGNS.to(intensity), intensity)
    return torch.where(value.abs() > 1e-14 * intensity.sum(dim=1), value, torch.zeros_like(value))


def crossing_frames(moments: Tensor, closure: Minerbo) -> Tensor:
    """[B, 3, 3] frames fixed by the state itself, so that nothing computed in them depends on the axes of the input.

    The polar axis is D = Z_e - Z_ebar for identical heavy flavors, about which the crossing is a circle; else the centre of
    the smaller side, found in the frame of the lepton-number flux. `moments` is [B, 4, 4] of (e, ebar, x, xbar).
    """
    signs = _SIGNS.to(moments)
    current = torch.einsum("s,bsi->bi", signs, flux(moments))
    seconds = flux(moments)
    coarse = frames(current, seconds)
    directions, weights = Product(16, 32)(lambda n: n, coarse)
    side = torch.where(torch.einsum("s,bs->b", signs, density(moments)) >= 0, -1.0, 1.0)
    smaller = weights * (lepton_excess(closure.along(directions)) * side[:, None]).clamp(min=0.0)
    centre = torch.einsum("bk,bki->bi", smaller, directions)
    centre = torch.where(length(centre)[:, None] > 1e-6 * smaller.sum(dim=1, keepdim=True), centre, current)
    centre = centre / length(centre).clamp(min=1e-30)[:, None]
    alike = (moments[:, 2] - moments[:, 3]).abs().amax(dim=1) < 1e-13
    return frames(torch.where(alike[:, None], closure.z[:, 0] - closure.z[:, 1], centre), seconds)


def convert(
    intensity: Callable[[Tensor], Tensor], moments: Tensor, frame: Tensor, rule: Rule, smooth: bool = False, p0: float = 1 / 3
) -> Conversion:
    """Mix (e, ebar, x, xbar): intensities [B, 4, K] along directions [B, K, 3], whose four-fluxes are `moments` [B, 4, 4]."""
    directions, weights = rule(lambda n: lepton_excess(intensity(n)), frame)
    value = intensity(directions)
    net = torch.einsum("s,bs->b", _SIGNS.to(moments), density(moments))
    towards = torch.where(net >= 0, -1.0, 1.0).to(moments)[:, None]  # the sign of G on the smaller side
    excess = lepton_excess(value) * towards
    inside, outside = (weights * excess.clamp(min=0)), (weights * (-excess).clamp(min=0))
    smaller = inside.sum(dim=1)
    larger = smaller + net.abs()
    unstable = (smaller > _NONE) & (outside.sum(dim=1) > _NONE)
    to_electron = value[:, 2:] - value[:, :2]  # f_x - f_e, f_xbar - f_ebar
    ones = torch.cat([directions, torch.ones_like(directions[..., :1])], dim=-1)
    ratio = smaller / torch.where(unstable, larger, torch.ones_like(larger))
    if smooth:
        spread = _spread(excess, outside, smaller)
        part = torch.where(excess > 0, weights, weights * spread)
        change = (part[:, None] * to_electron) @ ones
    else:
        part = torch.where(excess > 0, weights, torch.zeros_like(weights))
        small_side = (part[:, None] * to_electron) @ ones
        share = ratio[:, None, None]
        change = share * (moments[:, 2:] - moments[:, :2]) + (1 - share) * small_side
    change = torch.where(unstable[:, None, None], (1 - p0) * change, torch.zeros_like(change))
    survival = torch.where(unstable, 1 - (1 - p0) * ratio, torch.ones_like(ratio))
    return Conversion(change, torch.where(unstable, smaller, torch.zeros_like(smaller)), larger, survival, unstable)


def _spread(excess: Tensor, outside: Tensor, smaller: Tensor) -> Tensor:
    """h(G) = (1 + (G/a)^2)^(-1/2) on the larger side [B, K], with a such that the integral of h |G| there is I_<.

    Bisection in ln a; the last factor takes out what bisection and round-off leave.
    """
    size = excess.abs()
    scale = size.amax(dim=1, keepdim=True).clamp(min=1e-300)
    low, high = torch.full_like(scale, -60.0), torch.full_like(scale, 25.0)
    for _ in range(56):
        middle = (low + high) / 2
        total = (outside * torch.rsqrt(1 + (size / (scale * middle.exp())) ** 2)).sum(dim=1, keepdim=True)
        above = total > smaller[:, None]
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    h = torch.rsqrt(1 + (size / (scale * high.exp())) ** 2)
    total = (outside * h).sum(dim=1)
    return h * (smaller / torch.where(total > 0, total, torch.ones_like(total)))[:, None]


def asymptotic_state(
    F: Tensor,
    rule: Rule | None = None,
    *,
    smooth: bool = False,
    average_heavies: bool = False,
    p0: float = 1 / 3,
) -> tuple[Tensor, Diagnostics]:
    """Four-fluxes [..., 2, 3, 4] after fast flavor conversion, in the unit of `F`, and diagnostics [...].

    Stable rows come back unchanged; rows that no state can have come back as NaN with `valid` false.

    Args:
        rule: over the sphere; None is `CrossingAware()`
        smooth: the variant whose survival probability is continuous at the crossing
        average_heavies: give mu and tau the same final four-flux, which does not keep their net numbers apart; else each
            changes by the mean's change (the same thing where they are equal), shortened if one has too little to give
        p0: survival on the smaller side; 1/n for n mixed flavors

    >>> beam = torch.zeros(2, 3, 4, dtype=torch.float64)
    >>> beam[0, 0], beam[1, 0] = torch.tensor([0, 0, 1 / 3, 1.0]), torch.tensor([0, 0, -1 / 3, 1.0])
    >>> after, _ = asymptotic_state(beam)
    >>> after[0, :, 3].tolist()     # a third of the neutrinos in each flavor
    [0.33333333333333..., 0.33333333333333..., 0.33333333333333...]
    """
    if F.shape[-3:] != (2, 3, 4):
        raise DataError(
            f"four-fluxes must have shape [..., 2, 3, 4] (nu/nubar, flavor, xyzt), not {list(F.shape)}; a public file's "
            "[N, 4, 2, 3] is put in order by dodo_closure.fluxes.from_public."
        )
    rows = F.double().reshape(-1, 2, 3, 4)
    valid = is_physical(rows)
    filler = torch.ones_like(rows) * torch.tensor([0.0, 0, 0, 1], dtype=rows.dtype, device=rows.device)
    total = torch.where(valid, total_density(rows), torch.ones_like(rows[:, 0, 0, 0]))
    states = torch.where(valid[:, None, None, None], rows / total[:, None, None, None], filler / 6)
    size = _chunk_rows(rule)
    with torch.no_grad():
        parts = [_normalised(part, rule or CrossingAware(), smooth, average_heavies, p0) for part in states.split(size)]
    final = torch.cat([final for final, _ in parts]) * total[:, None, None, None]
    kept = torch.cat([conversion.unstable for _, conversion in parts])[:, None, None, None] & valid[:, None, None, None]
    final = torch.where(kept, final, torch.where(valid[:, None, None, None], rows, torch.full_like(rows, torch.nan)))
    smaller, larger, survival, unstable = (torch.cat([c[k] for _, c in parts]) for k in range(1, 5))
    steep = flux_factor(states).amax(dim=(-2, -1)) > STEEPEST
    shape = F.shape[:-3]
    columns = (column.reshape(shape) for column in (smaller, larger, survival, unstable, steep, valid))
    return final.reshape(F.shape), Diagnostics._make(columns)


def _chunk_rows(rule: Rule | None) -> int:
    rule = rule or CrossingAware()
    per_row = rule.azimuths * max(3 * rule.panel, rule.samples) if isinstance(rule, CrossingAware) else 2048
    return max(_NODES // per_row, 1)


def _normalised(F: Tensor, rule: Rule, smooth: bool, average_heavies: bool, p0: float) -> tuple[Tensor, Conversion]:
    """`asymptotic_state` of physical rows [B, 2, 3, 4] with N = 1; stable rows are the caller's business."""
    moments = heavy_average(F)
    closure = maximum_entropy(moments, STEEPEST)
    conversion = convert(closure.along, moments, crossing_frames(moments, closure), rule, smooth, p0)
    start = F
    if average_heavies:
        start = torch.cat([F[..., :1, :], moments[:, 2:, None, :].expand(-1, -1, 2, -1)], dim=-2)
    electron = conversion.change[:, :, None]
    change = torch.cat([electron, -electron / 2, -electron / 2], dim=-2)
    return limit(start, start + change), conversion
