r"""Rules over the sphere whose weights are all positive: integrals of positive functions stay positive.

A rule is called as `rule(excess, frame)`: `frame` [B, 3, 3] has the rows' own x, y and z axes as columns, `excess` is the
function whose sign change a rule may follow, from directions [B, M, 3] to [B, M]. It returns directions [B, K, 3] and
weights [B, K] that sum to 4 pi in every row.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dodo_closure.fluxes import length
from skyloom.errors import ConfigError

__all__ = ["CrossingAware", "Lebedev", "Product", "Ring", "Rule", "frames", "gauss", "lebedev"]

Excess = Callable[[Tensor], Tensor]
Rule = Callable[[Excess, Tensor], tuple[Tensor, Tensor]]

_MOST_ROOTS = 8  # of one meridian; more are round-off of two equal distributions


def frames(axis: Tensor, seconds: Tensor) -> Tensor:
    """[B, 3, 3] rotations whose columns are x, y, z: z along `axis` [B, 3], x towards the one of `seconds` [B, S, 3] that
    stands out most from it. An axis shorter than 1e-9 is replaced by the longest of `seconds`, and that by a fixed one."""
    longest = _row(seconds, length(seconds).argmax(dim=1))
    fixed = torch.eye(3, dtype=axis.dtype, device=axis.device)
    z = axis
    for other in (longest, fixed[2].expand_as(axis)):
        z = torch.where(length(z)[:, None] > 1e-9, z, other)
    z = z / length(z)[:, None]
    across = seconds - (seconds @ z[:, :, None]) * z[:, None, :]
    x = _row(across, length(across).argmax(dim=1))
    least = fixed[z.abs().argmin(dim=1)]
    x = torch.where(length(x)[:, None] > 1e-9, x, least - (least * z).sum(dim=1, keepdim=True) * z)
    x = x / length(x)[:, None]
    x = x - (x * z).sum(dim=1, keepdim=True) * z
    x = x / length(x)[:, None]
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=2)


def _row(vectors: Tensor, which: Tensor) -> Tensor:
    """[B, 3]: one of the vectors [B, S, 3] of each row."""
    return vectors.gather(1, which[:, None, None].expand(-1, 1, 3))[:, 0]


@lru_cache
def gauss(nodes: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return torch.as_tensor((x + 1) / 2), torch.as_tensor(w / 2)


@lru_cache
def lebedev(order: int) -> tuple[Tensor, Tensor]:
    """Points [K, 3] and positive weights [K] that sum to 4 pi."""
    from scipy.integrate import lebedev_rule

    try:
        points, weights = lebedev_rule(order)
    except NotImplementedError as error:
        raise ConfigError(f"there is no Lebedev rule of order {order}; 11, 17, 29 and 47 exist.") from error
    if weights.min() <= 0:
        raise ConfigError(
            f"the Lebedev rule of order {order} has negative weights, with which a positive distribution can integrate to "
            "less than nothing: take 11, 17, 29 or 47."
        )
    return torch.as_tensor(points.T.copy()), torch.as_tensor(weights)


def _sphere(theta: Tensor, phi: Tensor, frame: Tensor) -> Tensor:
    """Directions [B, ..., 3] at polar angles [B, ...] and azimuths that broadcast to them, in the rows' own frames."""
    sine = torch.sin(theta)
    local = torch.stack([sine * torch.cos(phi), sine * torch.sin(phi), torch.cos(theta)], dim=-1)
    return (local.flatten(1, -2) @ frame.transpose(1, 2)).reshape(local.shape)


def _azimuths(count: int, like: Tensor) -> Tensor:
    return (torch.arange(count, dtype=like.dtype, device=like.device) + 0.5) * (2 * math.pi / count)


@dataclass(frozen=True)
class Lebedev:
    """The same points for every row. Orders 13, 25 and 27 have negative weights and are refused."""

    order: int = 29

    def __call__(self, excess: Excess, frame: Tensor) -> tuple[Tensor, Tensor]:
        points, weights = (part.to(frame) for part in lebedev(self.order))
        return points.expand(frame.shape[0], -1, -1), weights.expand(frame.shape[0], -1)


@dataclass(frozen=True)
class Product:
    """Gauss-Legendre in the polar cosine times equal azimuths, in the row's own frame: exactly equivariant."""

    polar: int = 32
    azimuths: int = 64

    def __call__(self, excess: Excess, frame: Tensor) -> tuple[Tensor, Tensor]:
        x, w = (part.to(frame) for part in gauss(self.polar))
        theta = torch.arccos(2 * x - 1)[None, :, None].expand(frame.shape[0], -1, self.azimuths)
        directions = _sphere(theta, _azimuths(self.azimuths, frame), frame).flatten(1, 2)
        weights = (w * 4 * math.pi / self.azimuths)[:, None].expand(-1, self.azimuths).flatten()
        return directions, weights.expand(frame.shape[0], -1)


@dataclass(frozen=True)
class CrossingAware:
    """Every meridian is cut where `excess` changes sign, with Gauss-Legendre in the polar angle on each piece.

    A function that jumps at the sign change is smooth on each piece. Where the crossing is a curve around the polar axis,
    as it is for identical heavy flavors about D = Z_e - Z_ebar, the rule converges exponentially.

    Args:
        azimuths: meridians
        panel: nodes of each piece of a meridian
        samples: points of a meridian at which a change of sign is looked for
        cuts: of a meridian at most; None is as many as the rows at hand need, which depends on them
        steps: by which the place of a cut is refined
    """

    azimuths: int = 48
    panel: int = 24
    samples: int = 64
    cuts: int | None = None
    steps: int = 12

    def __call__(self, excess: Excess, frame: Tensor) -> tuple[Tensor, Tensor]:
        phi = _azimuths(self.azimuths, frame)[:, None]
        x, w = (part.to(frame) for part in gauss(self.panel))
        cuts = self._cut(excess, frame, phi)
        start, span = cuts[..., :-1, None], cuts.diff(dim=-1)[..., None]
        theta = (start + span * x).flatten(2)
        measure = span * w * (2 * math.pi / self.azimuths)
        weights = torch.sin(theta) * measure.flatten(2)
        weights = weights.flatten(1)
        weights = weights * (4 * math.pi / weights.sum(dim=1, keepdim=True))
        return _sphere(theta, phi, frame).flatten(1, 2), weights

    def _cut(self, excess: Excess, frame: Tensor, phi: Tensor) -> Tensor:
        """[B, azimuths, R + 2]: 0, the roots in order, pi; rows with fewer than R roots repeat pi."""

        def along(theta: Tensor) -> Tensor:
            return excess(_sphere(theta, phi, frame).flatten(1, 2)).reshape(theta.shape)

        grid = torch.linspace(0, math.pi, self.samples + 1, dtype=frame.dtype, device=frame.device)
        values = along(grid.expand(frame.shape[0], self.azimuths, -1))
        left, right = values[..., :-1], values[..., 1:]
        change = (left >= 0) != (right >= 0)
        roots = self.cuts or min(max(int(change.sum(dim=-1).max()), 1), _MOST_ROOTS)
        found, where = change.to(torch.int8).topk(roots, dim=-1, sorted=True)
        where, order = torch.where(found > 0, where, self.samples).sort(dim=-1)
        found = found.gather(-1, order) > 0
        where = where.clamp(max=self.samples - 1)
        theta = _regula_falsi(along, grid[where], grid[where + 1], left.gather(-1, where), right.gather(-1, where), self.steps)
        theta = torch.where(found, theta, torch.full_like(theta, math.pi))
        ends = theta.new_zeros(theta.shape[:-1])[..., None]
        return torch.cat([ends, theta, ends + math.pi], dim=-1)


@dataclass(frozen=True)
class Ring:
    """Every meridian is cut at the one polar angle where `excess` changes sign along the first: for crossings that are circles
    about the polar axis, as they are for identical heavy flavors.

    Args:
        azimuths: meridians
        panel: nodes of each of the two pieces of a meridian
    """

    azimuths: int = 24
    panel: int = 12

    def __call__(self, excess: Excess, frame: Tensor) -> tuple[Tensor, Tensor]:
        end = CrossingAware(1, 1, 64, 1)._cut(excess, frame, _azimuths(1, frame)[:, None])[:, 0, 1, None]
        x, w = (part.to(frame) for part in gauss(self.panel))
        theta = torch.cat([end * x, end + (math.pi - end) * x], dim=1)
        measure = torch.cat([end * w, (math.pi - end) * w], dim=1) * torch.sin(theta)
        measure = measure * (4 * math.pi / self.azimuths / measure.sum(dim=1, keepdim=True))
        theta = theta[:, :, None].expand(-1, -1, self.azimuths)
        directions = _sphere(theta, _azimuths(self.azimuths, frame), frame).flatten(1, 2)
        return directions, measure[:, :, None].expand(-1, -1, self.azimuths).flatten(1)


def _regula_falsi(f: Excess, a: Tensor, b: Tensor, fa: Tensor, fb: Tensor, steps: int) -> Tensor:
    """Roots between a and b where f changes sign, by the Illinois method (order 1.44, always bracketed)."""
    for _ in range(steps):
        gap = fb - fa
        x = b - fb * (b - a) / torch.where(gap == 0, torch.ones_like(gap), gap)
        fx = f(x)
        same = fx * fb > 0
        a, fa, b, fb = torch.where(same, a, b), torch.where(same, fa / 2, fb), x, fx
    return b
