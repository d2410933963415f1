"""Random numbers by counting: each is a function of a row's seed and of its own name or place, and of nothing else.

So a row is the same in a batch of one or of a thousand, in any worker, and on any device up to the rounding of logarithms; and
a number added to a scene moves no other. The generators are those of Steele, Lea and Flood (2014; splitmix64) for the numbers
of a scene and a 32-bit mixer of the same kind (Wellons 2018, "prospecting for hash functions") for the noise of pixels.
"""

import hashlib
import math

import torch
from torch import Tensor

__all__ = ["Uniforms", "normals"]


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >= 1 << (bits - 1) else value


_GOLDEN = _signed(0x9E3779B97F4A7C15, 64)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9, 64), _signed(0x94D049BB133111EB, 64)


def _mix(z: Tensor) -> Tensor:
    """The finalizer of splitmix64; int64 products wrap."""
    z = (z ^ ((z >> 30) & ((1 << 34) - 1))) * _FIRST
    z = (z ^ ((z >> 27) & ((1 << 37) - 1))) * _SECOND
    return z ^ ((z >> 31) & ((1 << 33) - 1))


def _key(name: str) -> int:
    return _signed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"), 64)


class Uniforms:
    """Uniform numbers of rows with seeds [B], by name.

    >>> u = Uniforms(torch.tensor([3, 4]))
    >>> bool((u("theta_e") == Uniforms(torch.tensor([9, 3, 4]))("theta_e")[1:]).all())
    True
    """

    def __init__(self, seeds: Tensor):
        self.seeds = seeds

    def __call__(self, name: str, count: int | None = None) -> Tensor:
        """[B], or [B, count], in double precision, strictly between 0 and 1."""
        places = torch.arange(1 if count is None else count, device=self.seeds.device)
        bits = _mix(_mix(self.seeds ^ _key(name))[:, None] + (places + 1) * _GOLDEN)
        values = (((bits >> 11) & ((1 << 53) - 1)).double() + 0.5) * 2.0**-53
        return values[:, 0] if count is None else values

    def between(self, name: str, low: float, high: float, count: int | None = None) -> Tensor:
        return low + (high - low) * self(name, count)

    def counts(self, name: str, mean: float, most: int) -> Tensor:
        """[B] Poisson numbers, cut off at `most`."""
        terms = [math.exp(-mean) * mean**k / math.factorial(k) for k in range(most)]
        edges = torch.tensor(terms, dtype=torch.float64, device=self.seeds.device).cumsum(0)
        return torch.searchsorted(edges, self(name))


def normals(seeds: Tensor, count: int, name: str) -> Tensor:
    """[B, count] unit normal numbers in single precision: 24-bit uniforms through Box and Muller (1958), to 5.8 sigma."""
    keys = _mix(seeds ^ _key(name))
    first, second = (keys >> 32).int()[:, None], ((keys << 32) >> 32).int()[:, None]
    half = (count + 1) // 2
    v = torch.arange(2 * half, dtype=torch.int32, device=seeds.device) * _signed(0x9E3779B1, 32) + first
    v ^= (v >> 16) & 0xFFFF
    v *= 0x21F0AAAD
    v += second
    v ^= (v >> 15) & 0x1FFFF
    v *= 0x735A2D97
    v ^= (v >> 15) & 0x1FFFF
    u = ((v >> 8) & 0xFFFFFF).float().add_(0.5).mul_(2.0**-24)
    radius = torch.sqrt(torch.log(u[:, :half]).mul_(-2))
    angle = u[:, half:] * (2 * math.pi)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :count]
