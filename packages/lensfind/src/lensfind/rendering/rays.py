"""Light through lenses: rays from the cells of a cutout to the source, more of them where the source is seen.

One ray per cell where the source is faint and smooth, a Gauss-Legendre rule of k x k rays in each cell that looks at its bright
part. Rays are laid on the canvas with cubic B-splines, so that a ray counts where it is and not where its cell is; what the
spline smooths, `Plane.spline` undoes.
"""

from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
from torch import Tensor

from lensfind.lensing.power_law import epl_deflection
from lensfind.light.sersic import sersic_amplitude, sersic_b
from lensfind.rendering.fourier import Plane

__all__ = ["CLUMPS", "Lensed", "lay_rays"]

CLUMPS = 5  # in a source, at most
_FAINT = 2e-3  # of the central brightness: where a source is fainter, one ray per cell is enough
_NEAR = (2.5, 1.3, 0.75)  # cells from the centre of the source within which finer rules are used: profiles have a cusp
_COARSE = 0.2  # cells per half-light radius; on finer grids than this one ray per cell is enough where a source is bright, too
_STRETCH = 20.0  # at most, of what a cell near the centre of a lens sees of the source
_TERMS = 24  # of the series of a power law: for q >= 0.3 they reach the rounding of single precision


@dataclass
class Lensed:
    """Sources behind power-law ellipsoids with shear, both about (x, y): columns [B], angles in arcsec and radians.

    A source is a Sersic profile of which clumps take some light; with `stamps` it is an image instead, r_e half its side.
    """

    x: Tensor
    y: Tensor
    theta_e: Tensor
    q: Tensor
    angle: Tensor
    gamma1: Tensor
    gamma2: Tensor
    slope: Tensor  # 2 is isothermal
    source_x: Tensor  # from (x, y)
    source_y: Tensor
    r_e: Tensor
    n: Tensor
    source_q: Tensor
    source_angle: Tensor
    clumps: Tensor  # [B, CLUMPS, 4]: place (two, in half-light radii), width, share of the light
    stamp: Tensor  # index into the stamps

    def rows(self, index: Tensor) -> "Lensed":
        return Lensed(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def _parameters(s: Lensed, cell: float, isothermal: bool) -> Tensor:
    """[18, B]: what the rays of a row need, in the frame of the lens and in units of the source's half-light ellipse."""
    f = torch.sqrt(((1 - s.q) * (1 + s.q)).clamp(min=1e-6))
    c2, s2 = torch.cos(2 * s.angle), torch.sin(2 * s.angle)
    g1, g2 = c2 * s.gamma1 + s2 * s.gamma2, c2 * s.gamma2 - s2 * s.gamma1  # shear along the axes of the lens
    turn = s.source_angle - s.angle
    cos, sin = torch.cos(turn), torch.sin(turn)
    long, short = torch.sqrt(s.source_q) / s.r_e, 1 / (torch.sqrt(s.source_q) * s.r_e)
    cl, sl = torch.cos(s.angle), torch.sin(s.angle)
    bx, by = cl * s.source_x + sl * s.source_y, cl * s.source_y - sl * s.source_x
    scale = s.theta_e * torch.sqrt(s.q) / f if isothermal else torch.ones_like(f)
    rows = []
    for ex, ey in ((long * cos, long * sin), (-short * sin, short * cos)):
        rows += [ex * (1 - g1) - ey * g2, ey * (1 + g1) - ex * g2, -ex * scale, -ey * scale, -(ex * bx + ey * by)]
    amplitude = sersic_amplitude(s.r_e, s.n) + 2 * np.log(cell) + torch.log1p(-s.clumps[..., 3].sum(dim=1))
    return torch.stack([s.q**2, f, *rows, amplitude, -sersic_b(s.n), 0.5 / s.n, s.theta_e, s.q, s.slope])


def _source_plane(x: Tensor, y: Tensor, p: Tensor, isothermal: bool) -> tuple[Tensor, Tensor]:
    """Where rays at (x, y), in the frame of the lens, meet the source, in units of its half-light ellipse."""
    q2, f, m00, m01, n00, n01, c0, m10, m11, n10, n11, c1 = p[:12]
    if isothermal:
        g = f / torch.sqrt(torch.addcmul(y * y, x * x, q2) + 1e-12)
        ax, ay = torch.atan(x * g), torch.atanh(y * g)
    else:
        theta_e, q, slope = p[15:18]
        ax, ay = epl_deflection(x, y, theta_e, q, torch.zeros_like(q), slope, _TERMS)
    u = torch.addcmul(torch.addcmul(torch.addcmul(torch.addcmul(c0, x, m00), y, m01), ax, n00), ay, n01)
    v = torch.addcmul(torch.addcmul(torch.addcmul(torch.addcmul(c1, x, m10), y, m11), ax, n10), ay, n11)
    return u, v


def _brightness(r2: Tensor, p: Tensor) -> Tensor:
    """Flux per cell of a Sersic source at squared radius r2 (in half-light radii)."""
    amplitude, minus_b, half = p[12:15]
    exponent = torch.addcmul(amplitude, minus_b, torch.exp(torch.log(r2 + 1e-12) * half))
    return torch.exp(exponent.clamp_(min=-80))  # denormal numbers are slow


def _clump_light(u: Tensor, v: Tensor, clumps: Tensor, area: Tensor) -> Tensor:
    """Flux per cell of Gaussian clumps at (u, v) [k^2, P], for clumps [P, CLUMPS, 4]; `area` [P] is that of a cell in r_e^2."""
    total = torch.zeros_like(u)
    for k in range(CLUMPS):
        at_u, at_v, width, share = clumps[:, k].unbind(dim=-1)
        weight = share * area / (2 * torch.pi * width**2)
        total += weight * torch.exp(((u - at_u) ** 2 + (v - at_v) ** 2) * (-0.5 / width**2))
    return total


def _stamp_light(u: Tensor, v: Tensor, stamps: Tensor, which: Tensor, area: Tensor) -> Tensor:
    """Flux per cell of images [K, N, N] of unit sum at (u, v), bilinear; their sides lie at -1 and 1."""
    n = stamps.shape[-1]
    total = torch.zeros_like(u)
    column, row = (((w + 1) * n - 1) / 2 for w in (u, v))
    left, top = column.floor(), row.floor()
    flat = stamps.reshape(len(stamps), -1)
    for dx in (0, 1):
        for dy in (0, 1):
            i, j = left + dx, top + dy
            weight = (1 - (column - i).abs()) * (1 - (row - j).abs())
            inside = (i >= 0) & (i < n) & (j >= 0) & (j < n)
            place = (j.clamp(0, n - 1) * n + i.clamp(0, n - 1)).long()
            total += weight * inside * flat[which.expand_as(place), place]
    return total * area * (n * n / 4)


@cache
def _rule(k: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets (x, y) of k x k rays in a cell of side 1, and the [25, k^2] weights that lay them on the 5 x 5 cells about it."""
    nodes, weights = np.polynomial.legendre.leggauss(k)
    nodes, weights = nodes / 2, weights / 2
    d = np.abs(np.arange(-2, 3)[:, None] - nodes)
    spline = np.where(d < 1, 2 / 3 - d**2 + d**3 / 2, np.where(d < 2, (2 - d) ** 3 / 6, 0.0)) * weights
    lay = np.einsum("ai,bj->abij", spline, spline).reshape(25, k * k)
    y, x = np.meshgrid(nodes, nodes, indexing="ij")
    tensors = [torch.from_numpy(np.ascontiguousarray(a)).to(device=device, dtype=dtype) for a in (x.ravel(), y.ravel(), lay)]
    return tensors[0], tensors[1], tensors[2]


def _limits(s: Lensed, cell: float) -> list[Tensor]:
    """Squared radii (in half-light radii) within which each of the rules is used."""
    reach = cell / s.r_e  # what a cell sees of a source that is not magnified
    core = reach ** (1 / s.n)  # the core is no brighter than this for its rays
    faint = (_FAINT * (_COARSE / reach).clamp(min=1) ** 4).clamp(max=0.3)
    outer = (core - torch.log(faint) / sersic_b(s.n)) ** s.n + 0.75 * reach
    within = torch.where((s.clumps[..., 3] > 0).any(dim=1), 1.6, 0.0).to(reach)  # where clumps are
    fine = torch.maximum(_NEAR[1] * reach, within * (reach > 0.4))
    middle = torch.maximum(_NEAR[0] * reach, within * (reach > 0.12))
    return [limit**2 for limit in (torch.maximum(outer, within), middle, fine, _NEAR[2] * reach)]


def _fanned(s: Lensed, from_centre: Tensor, r2: Tensor, cell: float) -> Tensor:
    """Cells near the centre of a lens, where the deflection turns so fast that one ray per cell sees the source in leaps.

    Across a cell at distance r it turns by cell/r, and a ray moves over the source by theta_E cell/r.
    """
    reach = cell / s.r_e
    core = reach ** (1 / s.n)
    seen = ((core - np.log(_FAINT) / sersic_b(s.n)) ** s.n + 0.75 * _STRETCH * reach) ** 2
    radius = torch.minimum(s.theta_e * reach / _COARSE, 0.5 * s.theta_e).clamp(min=_NEAR[1] * cell)
    return (from_centre < (radius**2)[:, None, None]) & (r2 < seen[:, None, None])


def _smooth(canvas: Tensor) -> Tensor:
    """The cubic B-spline at its nodes, 1/6, 4/6, 1/6 along both axes: what laying a ray on a node does; 2 cells wider."""
    padded = torch.nn.functional.pad(canvas, (2, 2, 2, 2))
    down = padded * (4 / 36)
    down[:, 1:-1].add_(padded[:, :-2], alpha=1 / 36).add_(padded[:, 2:], alpha=1 / 36)
    result = down * 4
    result[:, :, 1:-1].add_(down[:, :, :-2]).add_(down[:, :, 2:])
    return result


def lay_rays(s: Lensed, plane: Plane, rays: int = 4, stamps: Tensor | None = None) -> Tensor:
    """Canvases [B, canvas, canvas] of lensed sources of unit (unmagnified) flux.

    `rays` on a side of a cell where the source is bright, half as many around, up to five times as many at its cusp, and
    two and a half times as many where the deflection jumps, at the centre of the lens.
    """
    isothermal = (s.slope - 2).abs() < 1e-6
    if bool(isothermal.all()) or not bool(isothermal.any()):
        return _lay(s, plane, rays, stamps, bool(isothermal.all()))
    canvas = torch.empty(len(s.x), plane.canvas, plane.canvas, dtype=plane.dtype, device=plane.device)
    for rows, which in ((torch.nonzero(isothermal)[:, 0], True), (torch.nonzero(~isothermal)[:, 0], False)):
        canvas[rows] = _lay(s.rows(rows), plane, rays, stamps, which)
    return canvas


def _lay(s: Lensed, plane: Plane, rays: int, stamps: Tensor | None, isothermal: bool) -> Tensor:
    p = _parameters(s, plane.cell, isothermal)
    line = plane.line()
    x, y = line - s.x[:, None], line - s.y[:, None]
    c, sn = torch.cos(s.angle)[:, None], torch.sin(s.angle)[:, None]
    tx = (c * x)[:, None, :] + (sn * y)[:, :, None]
    ty = (c * y)[:, :, None] - (sn * x)[:, None, :]
    u, v = _source_plane(tx, ty, p[:, :, None, None], isothermal)
    r2 = torch.addcmul(u * u, v, v)
    limits = _limits(s, plane.cell) if stamps is None else [torch.full_like(s.x, v) for v in (4.0, 4.0, 0.0, 0.0)]
    # where the deflection jumps, rays of one cell go all around the lens: its centre need not see the source
    from_centre = torch.addcmul(tx * tx, ty, ty)
    bright = (r2 < limits[0][:, None, None]) | (from_centre < (_NEAR[1] * plane.cell) ** 2)
    if stamps is None:
        bright |= _fanned(s, from_centre, r2, plane.cell)
    smooth = _brightness(r2, p[:, :, None, None]).masked_fill_(bright, 0.0) if stamps is None else torch.zeros_like(r2)
    canvas = _smooth(smooth)
    cells = bright.view(-1).nonzero().squeeze(1)
    count = line.numel()
    row = torch.div(cells, count * count, rounding_mode="floor")
    tx, ty, r2, from_centre = (of.view(-1)[cells] for of in (tx, ty, r2, from_centre))
    # a cell near the centre fans out on the source
    wide = (s.theta_e[row] / torch.sqrt(from_centre + 1e-12) - 1).clamp(min=1, max=_STRETCH)
    level = torch.stack([r2 < limit[row] * (wide * wide) for limit in limits[1:]]).sum(dim=0)
    for least, reach in ((2, _NEAR[1]), (3, _NEAR[2])):  # the jump is in one of these
        level = torch.where(from_centre < (reach * plane.cell) ** 2, level.clamp(min=least), level)
    within = cells - row * (count * count)
    start = row * (count + 4) ** 2 + torch.div(within, count, rounding_mode="floor") * 4 + within
    for which, k in enumerate((max(2, rays // 2), rays, 5 * rays // 2, 5 * rays)):
        some = (level == which).nonzero().squeeze(1)
        for part in some.split(max(1, 2**22 // (k * k))):  # a source as large as the cutout must not fill the memory
            rows = row[part]
            at_x, at_y, lay = _offsets(k, plane, tx[part], ty[part], c[rows, 0], sn[rows, 0])
            at = p[:, rows]
            u, v = _source_plane(at_x, at_y, at, isothermal)
            if stamps is None:
                light = _brightness(torch.addcmul(u * u, v, v), at)
                clumpy = (s.clumps[rows, 0, 3] > 0).nonzero().squeeze(1)
                if len(clumpy):
                    own = rows[clumpy]
                    light[:, clumpy] += _clump_light(u[:, clumpy], v[:, clumpy], s.clumps[own], (plane.cell / s.r_e[own]) ** 2)
            else:
                light = _stamp_light(u, v, stamps, s.stamp[rows] % len(stamps), (plane.cell / s.r_e[rows]) ** 2)
            _put(canvas, start[part], lay @ light)
    return canvas


def _offsets(k: int, plane: Plane, x: Tensor, y: Tensor, c: Tensor, sn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """k x k rays of cells about (x, y) [P], in the frame of the lens: [k^2, P] each, and the weights that lay them."""
    ox, oy, lay = _rule(k, plane.device, plane.dtype)
    ox, oy = ox[:, None] * plane.cell, oy[:, None] * plane.cell
    return torch.addcmul(x + ox * c, oy, sn), torch.addcmul(y + oy * c, ox, -sn), lay


def _put(canvas: Tensor, start: Tensor, light: Tensor) -> None:
    """Adds light [25, P] to the 5 x 5 cells of the canvases that begin at `start` [P]."""
    side = canvas.shape[-1]
    steps = (torch.arange(5, device=start.device)[:, None] * side + torch.arange(5, device=start.device)).reshape(25, 1)
    canvas.view(-1).index_add_(0, (start + steps).view(-1), light.reshape(-1))
