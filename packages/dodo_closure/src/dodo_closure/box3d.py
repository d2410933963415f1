r"""Box3D: where a cell's neutrinos stand after the fast flavor instability, from four-fluxes alone.

    f_e' = P f_e + (1 - P) f_x,   f_x' = (1 - P)/2 f_e + (1 + P)/2 f_x,   likewise for antineutrinos,

with x the mean of mu and tau, and the survival probability P(n) of `dodo_closure.conversion`. Variants: `box`, in which P jumps
where G changes sign; `smooth`, in which it does not; `pairwise`, in which every pair of flavors mixes where the difference of
their lepton numbers crosses, so that all permutations of flavors commute with it and crossings of mu and tau count:

    df_i = \sum_j \kappa m_{ij} (f_j - f_i),   m_ij = 1 on the smaller side of G_ij, I_< / I_> on the larger, 0 if none crosses,

kappa = 1/2 if one pair crosses, else 1/3: two or three flavors mix to equipartition, never beyond.

Richers, Froustey, Ghosh, Foucart and Gomez 2024, Phys. Rev. D 110, 103019 (arXiv:2409.04405), section III, after Zaizen and
Nagakura 2023; the smooth variant after Xiong et al. 2023, arXiv:2307.11129.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from dodo_closure.caps import cap_moments
from dodo_closure.conserve import limit
from dodo_closure.conversion import Conversion, alike, convert, crossing_frames, inside_moments, jump
from dodo_closure.discs import Discs, disc_moments
from dodo_closure.fluxes import flux, flux_factor, heavy_average, is_physical, total_density
from dodo_closure.minerbo import maximum_entropy
from dodo_closure.quadrature import CrossingAware, Ring, Rule, frames
from skyloom.errors import ConfigError, DataError, nearest

__all__ = ["STEEPEST", "Adaptive", "Diagnostics", "Integrator", "Variant", "asymptotic_state", "electron_change"]

Variant = Literal["box", "smooth", "pairwise"]
STEEPEST = 0.98  # flux factor that the default rule still resolves; steeper beams are integrated as this steep
_NODES = 1 << 18  # sphere nodes held at once
_BEAM = 10.5  # Z, a little above that of a flux factor of 0.9: steeper distributions are cut into finer pieces
_ROWS = 1 << 13  # states cut into discs together
_PAIRS = ((0, 1), (0, 2), (1, 2))


@dataclass(frozen=True)
class Adaptive:
    """The best way for each state: a cap in closed form for identical heavy flavors, a rule for the others.

    Args:
        nodes: of the cap; 48 leave round-off up to flux factors of 0.98, 16 an error of 1e-7 up to 0.8
        others: for states whose heavy neutrinos and antineutrinos differ
    """

    nodes: int = 48
    others: "CrossingAware | Discs" = field(default_factory=CrossingAware)


Integrator = Rule | Adaptive | Discs


class Diagnostics(NamedTuple):
    """Per row, in units of N where it has a unit. Of `pairwise`: the fastest-growing pair's."""

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


_FLOAT32 = Adaptive(12, Discs())


def asymptotic_state(
    F: Tensor,
    rule: Integrator | None = None,
    *,
    variant: Variant = "box",
    average_heavies: bool = False,
    p0: float = 1 / 3,
) -> tuple[Tensor, Diagnostics]:
    """Four-fluxes [..., 2, 3, 4] after fast flavor conversion, in the unit of `F`, and diagnostics [...].

    Stable rows come back unchanged; rows that no state can have come back as NaN with `valid` false.

    Args:
        rule: over the sphere; None is `Adaptive()`, exact for identical heavy flavors
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
    if variant not in get_args(Variant):
        raise ConfigError(f"there is no variant {variant!r} of Box3D.{nearest(variant, get_args(Variant))}")
    rows = F.double().reshape(-1, 2, 3, 4)
    valid = is_physical(rows)
    four = valid[:, None, None, None]
    filler = torch.ones_like(rows) * torch.tensor([0.0, 0, 0, 1], dtype=rows.dtype, device=rows.device)
    total = torch.where(valid, total_density(rows), torch.ones_like(rows[:, 0, 0, 0]))
    states = torch.where(four, rows / total[:, None, None, None], filler / 6)
    with torch.no_grad():
        mixed = _pairwise if variant == "pairwise" else _electron
        change, conversion = mixed(states, rule, variant == "smooth", p0)
    start = torch.cat([states[..., :1, :], heavy_average(states)[:, 2:, None].expand(-1, -1, 2, -1)], dim=-2)
    start = start if average_heavies else states
    final = limit(start, start + change) * total[:, None, None, None]
    final = torch.where(
        conversion.unstable[:, None, None, None] & four, final, torch.where(four, rows, torch.full_like(rows, torch.nan))
    )
    steep = flux_factor(states).amax(dim=(-2, -1)) > STEEPEST
    columns = (column.reshape(F.shape[:-3]) for column in (*conversion[1:], steep, valid))
    return final.reshape(F.shape), Diagnostics._make(columns)


def electron_change(moments: Tensor, rule: Integrator | None, smooth: bool = False, p0: float = 1 / 3) -> Conversion:
    """Conversion of (e, ebar, x, xbar) [B, 4, 4] with N = 1, by a rule, or by the best one for each row."""
    if rule is None:
        rule = Adaptive() if moments.dtype == torch.float64 else _FLOAT32
    if isinstance(rule, Discs):
        if smooth:  # which needs the larger side too
            return electron_change(moments, rule.others, smooth, p0)
        return _joined([_by_discs(part, rule, p0) for part in moments.split(_ROWS)])
    if not isinstance(rule, Adaptive):
        size = _rows_at_once(rule)
        return _joined([_by_rule(part, rule, smooth, p0) for part in moments.split(size)])
    same = alike(moments)
    result = Conversion(
        torch.zeros_like(moments[:, :2]),
        torch.zeros_like(moments[:, 0, 0]),
        torch.zeros_like(moments[:, 0, 0]),
        torch.zeros_like(moments[:, 0, 0]),
        torch.zeros_like(same),
    )
    for which, best in ((same, Ring() if smooth else None), (~same, rule.others)):
        rows = torch.nonzero(which)[:, 0]
        if len(rows):
            own = moments[rows]
            found = _by_caps(own, rule.nodes, p0) if best is None else electron_change(own, best, smooth, p0)
            for place, value in zip(result, found, strict=True):
                place[rows] = value
    return result


def _by_rule(moments: Tensor, rule: Rule, smooth: bool, p0: float) -> Conversion:
    closure = maximum_entropy(moments, STEEPEST)
    about_circle = isinstance(rule, Ring)
    frame = frames(closure.z[:, 0] - closure.z[:, 1], flux(moments)) if about_circle else crossing_frames(moments, closure)
    return convert(closure.along, moments, frame, rule, smooth, p0)


def _by_discs(moments: Tensor, rule: Discs, p0: float) -> Conversion:
    closure = maximum_entropy(moments, STEEPEST)
    inside, found = disc_moments(closure, moments, rule)
    beams = closure.steepness.amax(dim=1) > _BEAM
    kind = torch.float32 if rule.coarse else moments.dtype
    for which, other, as_kind in ((beams, rule.beams, moments.dtype), (~beams & ~found, rule.others, kind)):
        for rows in torch.nonzero(which)[:, 0].split(_rows_at_once(other)):
            if len(rows):
                inside[rows] = _inside(moments[rows].to(as_kind), other).to(moments)
    return jump(inside, moments, p0)


def _inside(moments: Tensor, rule: Rule) -> Tensor:
    closure = maximum_entropy(moments, STEEPEST)
    return inside_moments(closure.along, moments, crossing_frames(moments, closure), rule)


def _by_caps(moments: Tensor, nodes: int, p0: float) -> Conversion:
    parts = moments.split(_NODES // (6 * nodes))
    return _joined([jump(cap_moments(maximum_entropy(part, STEEPEST), part, nodes), part, p0) for part in parts])


def _joined(parts: list[Conversion]) -> Conversion:
    return Conversion._make(torch.cat(columns) for columns in zip(*parts, strict=True))


def _rows_at_once(rule: Rule) -> int:
    if isinstance(rule, Ring):
        return max(_NODES // (2 * rule.azimuths * rule.panel), 1)
    per_row = rule.azimuths * max(3 * rule.panel, rule.samples) if isinstance(rule, CrossingAware) else 2048
    return max(_NODES // per_row, 1)


def _electron(F: Tensor, rule: Integrator | None, smooth: bool, p0: float) -> tuple[Tensor, Conversion]:
    """Changes [B, 2, 3, 4] where electron flavor mixes with the mean of mu and tau."""
    conversion = electron_change(heavy_average(F), rule, smooth, p0)
    electron = conversion.change[:, :, None]
    return torch.cat([electron, -electron / 2, -electron / 2], dim=-2), conversion


def _pairwise(F: Tensor, rule: Integrator | None, smooth: bool, p0: float) -> tuple[Tensor, Conversion]:
    """Changes [B, 2, 3, 4] where each pair of flavors mixes on its own crossing."""
    found = [electron_change(torch.cat([F[:, :, i], F[:, :, j]], dim=1), rule, False, 0.0) for i, j in _PAIRS]
    crossing = torch.stack([pair.unstable for pair in found])
    one = torch.ones_like(F[:, :1, 0])
    kappa = torch.where((crossing.sum(dim=0) == 1)[:, None, None], one / 2, one / 3)
    change = torch.zeros_like(F)
    for (i, j), pair in zip(_PAIRS, found, strict=True):
        change[:, :, i] += kappa * pair.change
        change[:, :, j] -= kappa * pair.change
    fastest = torch.stack([pair.smaller * pair.larger for pair in found]).argmax(dim=0, keepdim=True)
    columns = (torch.stack([pair[k] for pair in found]).gather(0, fastest)[0] for k in range(1, 5))
    smaller, larger, _, _ = columns
    ratio = smaller / larger.clamp(min=1e-30)
    survival = torch.where(crossing.any(dim=0), 1 - (1 - p0) * ratio, torch.ones_like(ratio))
    return change, Conversion(change, smaller, larger, survival, crossing.any(dim=0))
