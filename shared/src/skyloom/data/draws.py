"""Random numbers that belong to a sample: a pure function of (seed, epoch, sample, counter).

Augmentation that draws from here cannot depend on the number of workers, the batch size, the order, or a restart. The
generator is SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195) used as a counter-based hash.
"""

import torch
from torch import Tensor

from skyloom.run.seeds import derive

__all__ = ["SampleDraws"]


def _signed(value: int) -> int:
    """The 64-bit pattern of an unsigned integer as the signed one torch stores."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN, _MIX1, _MIX2 = (_signed(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shift(value: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's own is arithmetic)."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _shift(value, 30)) * _MIX1
    value = (value ^ _shift(value, 27)) * _MIX2
    return value ^ _shift(value, 31)


class SampleDraws:
    """Draws for the samples `index` [B] of one epoch; every call takes fresh counters.

    >>> a = SampleDraws(seed=1, epoch=3, index=torch.tensor([7, 8, 9])).uniform(2)
    >>> b = SampleDraws(seed=1, epoch=3, index=torch.tensor([9])).uniform(2)
    >>> torch.equal(a[2:], b)
    True
    """

    def __init__(self, seed: int, epoch: int, index: Tensor):
        self._state = _mix(index.to(torch.int64) * _GOLDEN + _signed(derive(seed, "augment", epoch)))
        self._counter = 0

    def uniform(self, k: int) -> Tensor:
        """[B, k] float32, uniform on [0, 1)."""
        counters = torch.arange(self._counter + 1, self._counter + k + 1, device=self._state.device)
        self._counter += k
        bits = _mix(self._state[:, None] + counters * _GOLDEN)
        return _shift(bits, 40).to(torch.float32) * 2.0**-24

    def normal(self, k: int) -> Tensor:
        """[B, k] float32, standard normal (inverse of the normal distribution function)."""
        return torch.special.ndtri(self.uniform(k).double() + 2.0**-25).to(torch.float32)
