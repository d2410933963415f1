"""What stands between couplings, so that every coordinate meets every other: permutations, rotations, a scale for each."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from skyloom.flows.bound import Given, Step

__all__ = ["ActNorm", "LearnedRotation", "Permutation", "Rotation"]


class Permutation(Step):
    """Coordinates in another order, which the seed decides (NumPy's legacy generator, as FrEIA draws it)."""

    order: Tensor
    back: Tensor

    def __init__(self, features: int, seed: int) -> None:
        super().__init__()
        order = np.random.RandomState(seed).permutation(features)
        self.register_buffer("order", torch.as_tensor(order), persistent=False)
        self.register_buffer("back", torch.as_tensor(np.argsort(order)), persistent=False)

    def forward(self, y: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        return y.index_select(0, self.order), None

    def inverse(self, z: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        return z.index_select(0, self.back), None


class Rotation(Step):
    """`z = R y` with a random rotation (Haar), which the seed decides; the inverse is the transpose, to the last digit stable.

    The matrix is kept in float64 and rounded once, to the dtype it meets.
    """

    matrix: Tensor

    def __init__(self, features: int, seed: int) -> None:
        super().__init__()
        gauss = np.random.default_rng(seed).standard_normal((features, features))
        q, r = np.linalg.qr(gauss)
        q = q * np.sign(np.diag(r))
        q[:, 0] *= np.sign(np.linalg.det(q))
        self.register_buffer("matrix", torch.as_tensor(q), persistent=False)

    def _apply(self, fn, recurse: bool = True) -> Rotation:  # type: ignore[no-untyped-def]
        kept = self.matrix
        super()._apply(fn, recurse)
        self.matrix = kept.to(self.matrix.device)
        return self

    def rotation(self, like: Tensor) -> Tensor:
        return self.matrix.to(like.dtype)

    def forward(self, y: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        return _times(self.rotation(y), y), None

    def inverse(self, z: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        return _times(self.rotation(z).T, z), None


class LearnedRotation(Rotation):
    """`z = exp(A - A^T) R y`: the invertible 1x1 mixing of GLOW, learned from a random start.

    Kingma and Dhariwal factor the matrix as P L U, whose triangular solves lose digits where L or U grows; a rotation cannot,
    and the stretch it leaves out is that of `ActNorm` and of the couplings.
    """

    def __init__(self, features: int, seed: int) -> None:
        super().__init__(features, seed)
        self.generator = nn.Parameter(torch.zeros(features, features))

    def rotation(self, like: Tensor) -> Tensor:
        with torch.autocast(like.device.type, enabled=False):
            skew = (self.generator - self.generator.T).double()  # in float32 the exponential is orthogonal to 1e-5 only
            return (torch.linalg.matrix_exp(skew) @ self.matrix).to(like.dtype)


class ActNorm(Step):
    """`z = exp(a) (y + b)` per coordinate; the first training batch sets it so that `z` has mean 0 and deviation 1.

    Whether that has happened is part of the saved state, so that a reloaded flow is not set anew, and a coordinate that does
    not vary in the first batch keeps its scale.
    """

    started: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.register_buffer("started", torch.tensor(False))

    @torch.no_grad()
    def _start(self, y: Tensor) -> None:
        flat = y.detach().reshape(len(y), -1)
        if flat.shape[1] < 2:
            return
        deviation = flat.std(1)
        self.shift.copy_(-flat.mean(1))
        self.log_scale.copy_(torch.where(deviation > 1e-6, -deviation.clamp(min=1e-6).log(), torch.zeros_like(deviation)))
        self.started.fill_(True)

    def forward(self, y: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        if self.training and not torch.compiler.is_compiling() and not bool(self.started):
            self._start(y)
        scale = self.log_scale.clamp(-10, 10)
        return (y + _column(self.shift, y)) * _column(scale.exp(), y), scale.sum().to(y.dtype).expand(1, *y.shape[1:])

    def inverse(self, z: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        scale = self.log_scale.clamp(-10, 10)
        return z * _column((-scale).exp(), z) - _column(self.shift, z), scale.sum().to(z.dtype).expand(1, *z.shape[1:])


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(-1, *[1] * (like.dim() - 1))


def _times(matrix: Tensor, y: Tensor) -> Tensor:
    with torch.autocast(y.device.type, enabled=False):
        return torch.mm(matrix, y.reshape(len(y), -1)).view_as(y)
