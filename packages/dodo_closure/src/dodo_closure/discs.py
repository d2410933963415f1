r"""The smaller side of the sphere for four unlike distributions: discs about their own centres, cut where G changes sign.

The zeros of G = (f_e - f_ebar) - (f_x - f_xbar) are closed curves, nearly always one or two. Inside a curve that is star-shaped
about a point, every meridian from there first crosses it at r_c(p), and the moments

    \int f d\Omega = \int dp \int_0^{r_c(p)} 4 r f dr,   r = \sin(t / 2), t the polar angle, p the azimuth,

are smooth in r, and smooth and periodic in p: equal azimuths and Gauss-Jacobi nodes converge exponentially. (r needs no sine:
cos t = 1 - 2 r^2, sin t = 2 r \sqrt{1 - r^2}.) Fixed points in float32, the scout, tell where discs are; the smaller side is
the sum of discs in which G has its sign, or the sphere less discs in which it has not, and the scout tells when all are found.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from scipy.special import eval_jacobi, roots_jacobi
from torch import Tensor

from dodo_closure.conversion import net_number
from dodo_closure.fluxes import flux
from dodo_closure.minerbo import Minerbo
from dodo_closure.quadrature import CrossingAware, frames, lebedev

__all__ = ["Discs", "disc_moments"]

_NEAR = 0.08  # of r: a scout's point so close to a curve says nothing
_MOST = 4  # discs of one state
_NODES = 1 << 16  # held at once: what the cache holds
_SEEN = 1 << 16  # of the scout's points likewise
_COARSE = 1e-5  # a tolerance above it needs no more than float32
_FAR = 0.9999  # of r: where a meridian ends


@dataclass(frozen=True)
class Discs:
    """How finely discs are integrated; those whose error is too large, twice as finely, and so on.

    Args:
        azimuths: meridians of a disc, an even number
        nodes: of a meridian
        samples: points of a meridian at which its first crossing is looked for
        scout: order of the Lebedev rule that finds the discs
        tolerance: of a disc's moments, in units of N
        doublings: of azimuths, at most
        others: rule for the few states that are no such discs, and for the smooth variant
        beams: rule for states with a flux factor above 0.9, which need more nodes
    """

    azimuths: int = 16
    nodes: int = 6
    samples: int = 12
    scout: int = 17
    tolerance: float = 1e-4
    doublings: int = 2
    others: CrossingAware = field(default_factory=lambda: CrossingAware(32, 5, 12, 3, 3))
    beams: CrossingAware = field(default_factory=CrossingAware)

    @property
    def coarse(self) -> bool:
        """Whether float32 is precise enough."""
        return self.tolerance > _COARSE


class _Sky(NamedTuple):
    """Logarithms eta + z . n of four distributions: eta [B, 4], z [B, 4, 3]."""

    eta: Tensor
    z: Tensor

    def take(self, rows: Tensor) -> "_Sky":
        return _Sky(self.eta[rows], self.z[rows])

    def single(self) -> "_Sky":
        return _Sky(self.eta.float(), self.z.float())

    def exchanged(self, which: Tensor) -> "_Sky":
        """Neutrinos for antineutrinos in some rows [B], so that G changes its sign."""
        return _Sky(
            torch.where(which[:, None], self.eta[:, [1, 0, 3, 2]], self.eta),
            torch.where(which[:, None, None], self.z[:, [1, 0, 3, 2]], self.z),
        )

    def peak(self) -> Tensor:
        """[B]: no sum of the distributions exceeds it."""
        return torch.exp(self.eta + self.z.norm(dim=-1)).sum(dim=1)

    def excess(self, directions: Tensor) -> Tensor:
        """G [B, K] along directions [K, 3], or [B, K, 3]."""
        return _excess(torch.exp_(torch.matmul(self.z, directions.transpose(-1, -2)).add_(self.eta[..., None])))


class _Disc(NamedTuple):
    """A region in which G > 0."""

    moments: Tensor
    """[B, 2, 4] of f_e - f_x and f_ebar - f_xbar inside."""
    complete: Tensor
    """[B]: G > 0 at the centre, and every meridian crosses."""
    alone: Tensor
    """[B]: no meridian crosses again."""
    error: Tensor
    """[B] estimate for the moments."""
    edge: Tensor
    """[B, azimuths] the value of r at which a meridian crosses."""
    frame: Tensor
    """[B, 3, 3] with the centre as third column."""


def _excess(f: Tensor) -> Tensor:
    """G, exactly zero where electron and heavy flavors are alike, and where neutrinos and antineutrinos are."""
    return (f[:, 0] - f[:, 2]).sub_(f[:, 1] - f[:, 3])


@lru_cache
def _azimuths(count: int) -> Tensor:
    """[2, count]: cosines and sines."""
    phi = (torch.arange(count, dtype=torch.float64) + 0.5) * (2 * math.pi / count)
    return torch.stack([torch.cos(phi), torch.sin(phi)])


@lru_cache
def _highest(count: int) -> Tensor:
    """[count, 3]: the harmonic of order count / 2, and both of the order below."""
    turns = _azimuths(count)
    return ((-1.0) ** torch.arange(count) * torch.cat([torch.ones_like(turns[:1]), turns])).T


@lru_cache
def _lattice(azimuths: int, samples: int) -> tuple[Tensor, Tensor]:
    """Values of r [samples + 1] from 0 on, and directions [(samples + 1) azimuths, 3] about the z axis."""
    t = torch.arange(samples + 1, dtype=torch.float64) * (math.pi / samples)
    across = torch.sin(t)[:, None, None] * _azimuths(azimuths)
    along = torch.cos(t)[:, None, None].expand(-1, 1, azimuths)
    directions = torch.cat([across, along], dim=1).transpose(1, 2).reshape(-1, 3)
    return torch.sin(t / 2).clamp(max=_FAR).float(), directions.float()


@lru_cache
def _radii(nodes: int) -> tuple[Tensor, Tensor]:
    """Gauss-Jacobi nodes x on [0, 1] for the weight x, and [4, nodes]: weights times 1, x^2, the highest polynomial, and x."""
    y, w = roots_jacobi(nodes, 0, 1)
    highest = torch.as_tensor(eval_jacobi(nodes - 1, 0, 1, y) * math.sqrt(nodes))  # of mean square 1
    x, w = torch.as_tensor((y + 1) / 2), torch.as_tensor(w / 4)
    return x, torch.stack([w, w * x * x, w * highest, w * x])


def _scout(order: int, like: Tensor) -> tuple[Tensor, Tensor]:
    points, weights = lebedev(order)
    return points.to(like.device).float(), weights.to(like.device).float()


def disc_moments(closure: Minerbo, moments: Tensor, how: Discs) -> tuple[Tensor, Tensor]:
    """[B, 4, 4] whose differences e - x and ebar - xbar are those of the four-fluxes on the smaller side, and [B]: found.

    Everything happens in a frame that the state itself defines, so that it commutes with rotations, and after an exchange of
    neutrinos and antineutrinos where that makes G > 0 the smaller side.
    """
    current = (moments[:, 0] - moments[:, 1]) - (moments[:, 2] - moments[:, 3])
    swap = net_number(moments) >= 0
    own = frames(torch.where(swap[:, None], -flux(current), flux(current)), flux(moments))
    sky = _Sky(torch.log(closure.peak.clamp(min=1e-30)) - closure.steepness, closure.z @ own).exchanged(swap)
    whole = moments[:, :2] - moments[:, 2:]
    whole = torch.where(swap[:, None, None], whole.flip(1), whole)
    whole = torch.cat([flux(whole) @ own, whole[..., 3:]], dim=-1)
    if how.coarse:
        sky, whole = sky.single(), whole.float()
    found, clear = _smaller_side(sky, whole, how)
    found = found.to(moments)
    found = torch.cat([flux(found) @ own.transpose(1, 2), found[..., 3:]], dim=-1)
    found = torch.where(swap[:, None, None], found.flip(1), found)
    return torch.cat([found, torch.zeros_like(found)], dim=1), clear


def _smaller_side(sky: _Sky, whole: Tensor, how: Discs) -> tuple[Tensor, Tensor]:
    """Moments [B, 2, 4] where G > 0, in most states a single disc, and whether they were found."""
    points, _ = _scout(how.scout, sky.z)
    sizes = range(0, len(sky.eta), _SEEN // len(points))
    looks = [_look(_Sky(*(x[k : k + _SEEN // len(points)] for x in sky)), how) for k in sizes]
    centre, seen = (torch.cat(columns) for columns in zip(*looks, strict=True))
    unseen = torch.nonzero(~seen)[:, 0]
    stable = torch.zeros_like(seen)
    if len(unseen):  # a cap between the scout's points, or none at all
        centre[unseen] = _summit(sky.take(unseen), centre[unseen])
        stable[unseen] = sky.take(unseen).excess(centre[unseen, None])[:, 0] <= 1e-13 * sky.take(unseen).peak()
    disc = _disc(sky, centre, how)
    moments = torch.where(stable[:, None, None], torch.zeros_like(disc.moments), disc.moments)
    good = disc.complete & (disc.error < how.tolerance)
    found = stable | (good & disc.alone)
    rows = torch.nonzero(~found)[:, 0]
    if len(rows) == 0:
        return moments, found
    others, value = sky.take(rows), sky.take(rows).single().excess(points)
    within, near = _within(_Disc._make(part[rows] for part in disc), points)
    good, whole = good[rows], whole[rows]
    one, four = good[:, None], good[:, None, None]
    everything = torch.ones_like(within)
    for start, inside, clear in (  # a disc is known to belong, or none; then the other way round
        (torch.where(four, moments[rows], whole), torch.where(one, within, everything), ~(near & one)),
        (torch.where(four, whole, torch.zeros_like(whole)), everything * one, torch.ones_like(near)),
    ):
        left = torch.nonzero(~found[rows])[:, 0]
        if len(left):
            piece = _pieces(others.take(left), value[left], start[left], inside[left], clear[left], how)
            moments[rows[left]], found[rows[left]] = piece
    return moments, found


def _look(sky: _Sky, how: Discs) -> tuple[Tensor, Tensor]:
    """The middle [B, 3] of where the scout sees G > 0, and whether it sees any [B]; else the point at which G is largest."""
    points, weights = _scout(how.scout, sky.z)
    value = sky.single().excess(points)
    positive = value.clamp(min=0)
    share = positive / (positive + 0.05 * value.abs().mean(dim=1, keepdim=True).clamp(min=1e-30))
    highest, where = value.max(dim=1)
    seen = highest > 1e-6 * sky.peak().float()
    return torch.where(seen[:, None], (share * weights) @ points, points[where]).to(sky.z), seen


def _pieces(sky: _Sky, value: Tensor, start: Tensor, inside: Tensor, clear: Tensor, how: Discs) -> tuple[Tensor, Tensor]:
    """Add and take away discs until the scout's points [B, P] lie inside where their value of G is positive.

    Args:
        start: moments [B, 2, 4] of what is inside already
        clear: points far enough from the edges
    """
    points, weights = _scout(how.scout, sky.z)
    moments, failed = start.clone(), torch.zeros_like(value[:, 0], dtype=torch.bool)
    for _ in range(_MOST):
        wrong = ((value > 0).float() - inside) * clear
        rows = torch.nonzero((wrong != 0).any(dim=1) & ~failed)[:, 0]
        if len(rows) == 0:
            break
        best = (weights * value * wrong).abs()[rows].argmax(dim=1)
        kind = wrong[rows].gather(1, best[:, None])
        near = (points[best] @ points.T).clamp(min=0) ** 2 * weights * (wrong[rows] == kind)
        missing = sky.take(rows).exchanged(kind[:, 0] < 0)
        disc = _disc(missing, (near @ points).to(sky.z), how)
        other = kind[:, :, None] < 0
        moments[rows] += kind[:, :, None].to(moments) * torch.where(other, disc.moments.flip(1), disc.moments)
        failed[rows] |= ~disc.complete | ~(disc.error < how.tolerance)
        within, close = _within(disc, points)
        inside[rows] += kind * within
        clear[rows] &= ~close
    return moments, ~failed & ~(((value > 0).float() != inside) & clear).any(dim=1)


def _within(disc: _Disc, points: Tensor) -> tuple[Tensor, Tensor]:
    """[B, P]: 1 where points [P, 3] lie in the disc, and whether they are too near its edge to tell."""
    local = points @ disc.frame.float()
    r = torch.sqrt(((1 - local[..., 2]) / 2).clamp(min=0))
    count = disc.edge.shape[1]
    place = torch.atan2(local[..., 1], local[..., 0]) * (count / (2 * math.pi)) + 0.5  # 1 at the first meridian
    place = torch.where(place < 0, place + count, place)
    low = place.floor()
    edges = torch.cat([disc.edge[:, -1:], disc.edge, disc.edge[:, :1]], dim=1).float()
    left, right = (edges.gather(1, (low.long() + k).clamp(max=count + 1)) for k in (0, 1))
    edge = torch.lerp(left, right, place - low)
    return (r < edge).float(), (r - edge).abs() < _NEAR


def _disc(sky: _Sky, centre: Tensor, how: Discs) -> _Disc:
    """Integrate about `centre` [B, 3]; what has not converged, again about the disc's own middle."""
    disc = _integrated(sky, centre, how.azimuths, how.nodes, how.samples)
    rows = torch.nonzero(disc.complete & ~(disc.error < how.tolerance))[:, 0]
    middle = _middle(disc.edge[rows], disc.frame[rows])
    for k in range(1, how.doublings + 1):
        if len(rows) == 0:
            break
        fine = _integrated(sky.take(rows), middle, how.azimuths << k, how.nodes + 2 * k, how.samples + 4 * k)
        better = fine.complete & (fine.error < disc.error[rows])
        for place, new in zip((disc.moments, disc.error, disc.alone), (fine.moments, fine.error, fine.alone), strict=True):
            place[rows[better]] = new[better]
        left = ~(disc.error[rows] < how.tolerance)
        rows, middle = rows[left], middle[left]
    return disc


def _middle(edge: Tensor, frame: Tensor) -> Tensor:
    """[B, 3]: the centre of area, from r at the edge [B, N]."""
    cosine, sine = 1 - 2 * edge**2, 2 * edge * torch.sqrt(1 - edge**2)
    across = (2 * torch.asin(edge) - sine * cosine) @ _azimuths(edge.shape[1]).to(edge).T
    return (frame @ torch.cat([across, (sine**2).sum(dim=1, keepdim=True)], dim=1)[..., None])[..., 0]


def _integrated(sky: _Sky, centre: Tensor, azimuths: int, nodes: int, samples: int) -> _Disc:
    size = max(_NODES // (azimuths * nodes), 1)
    sizes = range(0, max(len(centre), 1), size)
    parts = [_part(_Sky(*(x[k : k + size] for x in sky)), centre[k : k + size], azimuths, nodes, samples) for k in sizes]
    return _Disc._make(torch.cat(columns) for columns in zip(*parts, strict=True))


def _part(sky: _Sky, centre: Tensor, azimuths: int, nodes: int, samples: int) -> _Disc:
    frame = _about(centre)
    z = sky.z @ frame
    turns = _azimuths(azimuths).to(z)
    local = _Meridians(sky.eta[..., None], z[..., 2:], z[..., :2] @ turns)
    low, high, edge, complete, alone = _first_crossing(_Sky(sky.eta, z).single(), azimuths, samples)
    single = local.single()
    for _ in range(2):
        edge, _ = single.newton(edge, low, high)
    edge, step = local.newton(edge.to(z), low.to(z), high.to(z))
    x, weights = (part.to(z) for part in _radii(nodes))
    square = (edge * edge)[:, None]
    root = torch.sqrt(1 - square * (x * x)[:, None])  # cos(t / 2)
    f = local.densities(edge[:, None] * x[:, None], root)
    value = f[:, :2] - f[:, 2:]
    number, bend, ripple = (weights[:3] @ value).unbind(dim=2)
    measure = square * (8 * math.pi / azimuths)
    along = (number - 2 * square * bend) * measure  # cos t = 1 - 2 x^2 edge^2
    across = (weights[3] @ value.mul_(root[:, None])) * (2 * edge[:, None] * measure)
    number = number * measure
    inside = torch.cat([across @ turns.T, along.sum(dim=-1, keepdim=True)], dim=-1) @ frame.transpose(1, 2)
    moments = torch.cat([inside, number.sum(dim=-1, keepdim=True)], dim=-1)
    # what the highest harmonics and polynomials that the nodes resolve amount to, h: where that falls off exponentially, the
    # mean errs by h^2
    rest = torch.maximum((number @ _highest(azimuths).to(z)).abs().amax(dim=2), (ripple * measure).abs().sum(dim=2))
    size = number.abs().sum(dim=2).amax(dim=1).clamp(min=1e-30)
    loose = step.abs().amax(dim=1) ** 2  # the next step of Newton's method would be about as long
    return _Disc(moments, complete, alone, rest.amax(dim=1) ** 2 / size + loose, edge, frame)


def _about(centre: Tensor) -> Tensor:
    """Rotations [B, 3, 3] with the direction of `centre` [B, 3] as third column (Duff et al. 2017, JCGT 6, 1)."""
    x, y, z = (centre / centre.norm(dim=1, keepdim=True).clamp(min=1e-30)).unbind(dim=1)
    sign = torch.where(z >= 0, 1.0, -1.0).to(z)
    a = -1 / (sign + z)
    b = x * y * a
    columns = (1 + sign * x * x * a, sign * b, -sign * x, b, sign + y * y * a, -y, x, y, z)
    return torch.stack(columns, dim=1).reshape(-1, 3, 3).transpose(1, 2)


class _Meridians(NamedTuple):
    """Logarithms eta + alpha cos t + beta sin t about a centre: eta [B, 4, 1], alpha [B, 4, 1], beta [B, 4, N]."""

    eta: Tensor
    alpha: Tensor
    beta: Tensor

    def single(self) -> "_Meridians":
        return _Meridians(self.eta.float(), self.alpha.float(), self.beta.float())

    def densities(self, r: Tensor, root: Tensor) -> Tensor:
        """[B, 4, K, N] at r = sin(t / 2) and cos(t / 2) [B, K, N]."""
        exponent = torch.addcmul(self.eta[..., None], self.alpha[..., None], (1 - 2 * r * r)[:, None])
        return torch.exp_(exponent.addcmul_(self.beta[:, :, None], (2 * r * root)[:, None]))

    def newton(self, r: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """A step towards G = 0 that stays between `low` and `high`: r [B, N] and its change."""
        square = r * r
        root = torch.sqrt(1 - square)
        c, s = 1 - 2 * square, 2 * r * root
        f = torch.exp_(torch.addcmul(self.eta, self.alpha, c[:, None]).addcmul_(self.beta, s[:, None]))
        value = _excess(f)
        slope = _excess(f.mul_(torch.addcmul((-4 * r)[:, None] * self.alpha, self.beta, (2 * c / root)[:, None])))
        new = r - value / slope
        half = (r + torch.where(value > 0, high, low)) / 2
        new = torch.where((new >= low) & (new <= high), new, half)
        return new, new - r


def _first_crossing(sky: _Sky, azimuths: int, samples: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Bounds and a guess [B, azimuths] of where meridians from the pole first leave G > 0; complete, alone [B]."""
    r, directions = (part.to(sky.z.device) for part in _lattice(azimuths, samples))
    value = sky.excess(directions).reshape(-1, samples + 1, azimuths)
    outside = value <= 0
    order = torch.arange(samples + 1, 0, -1, dtype=value.dtype, device=value.device)[:, None]
    last = (outside * order).amax(dim=1, keepdim=True)  # large where the crossing comes early, 0 where there is none
    first = (samples + 1 - last).long().clamp(min=1, max=samples)
    alone = ~(outside[:, :-1] & ~outside[:, 1:]).flatten(1).any(dim=1)
    complete = (last.amin(dim=2)[:, 0] > 0) & ~outside[:, 0, 0]
    before, after = value.gather(1, first - 1)[:, 0], value.gather(1, first)[:, 0]
    first = first[:, 0]
    low, high = r[first - 1], r[first]
    part = (before / (before - after)).nan_to_num(nan=0.5).clamp(0.0, 1.0)
    part = torch.where(first == 1, torch.sqrt(part), part)  # near the top G falls with r^2
    return low, high, low + (high - low) * part.clamp(0.02, 0.98), complete, alone


def _summit(sky: _Sky, start: Tensor, steps: int = 10) -> Tensor:
    """The direction [B, 3] in which G is largest near `start`, by Newton's method on the sphere."""
    n = start
    signs = start.new_tensor([1.0, -1.0, -1.0, 1.0])
    for _ in range(steps):
        axes = _about(n)
        z = sky.z @ axes
        f = signs * torch.exp(sky.eta + z[..., 2])
        gradient = (f[..., None] * z[..., :2]).sum(dim=1)
        xx, yy, xy = ((f * (z[..., a] * z[..., b] - (a == b) * z[..., 2])).sum(dim=1) for a, b in ((0, 0), (1, 1), (0, 1)))
        determinant = xx * yy - xy * xy
        newton = torch.stack([xy * gradient[:, 1] - yy * gradient[:, 0], xy * gradient[:, 0] - xx * gradient[:, 1]], dim=1)
        concave = (determinant > 0) & (xx < 0)
        step = newton / torch.where(concave, determinant, torch.ones_like(determinant))[:, None]
        uphill = 0.2 * gradient / gradient.norm(dim=1, keepdim=True).clamp(min=1e-30)
        step = torch.where(concave[:, None], step, uphill)
        step = step * (0.3 / step.norm(dim=1, keepdim=True).clamp(min=0.3))
        n = n + (axes[..., :2] @ step[..., None])[..., 0]
        n = n / n.norm(dim=1, keepdim=True)
    return n
