"""Conditional GLOW: affine couplings with a soft clamp, and a fixed permutation after each block.

A block splits `y` into halves `y1`, `y2` and transforms both, with `c(s) = clamp * 0.636 * arctan(s)` (0.636 is 2/pi):

    u1 = y1 exp(c(s2)) + t2,   (s2, t2) = subnet2([y2, x])
    u2 = y2 exp(c(s1)) + t1,   (s1, t1) = subnet1([u1, x])
    ln |det| = sum c(s2) + sum c(s1)

so one block stretches a dimension by at most `exp(clamp)`, and `n` blocks by `exp(n * clamp)`. The couplings are FrEIA's.

References: Kingma and Dhariwal 2018 (arXiv 1807.03039); Ardizzone et al. 2019 (arXiv 1907.02392).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints
from zuko.distributions import DiagNormal
from zuko.lazy import Flow, LazyTransform, UnconditionalDistribution

try:
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import GLOWCouplingBlock, InvertibleModule
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("GLOW couplings need FrEIA: pip install 'skyloom[flows]'") from error

__all__ = ["GlowCoupling"]


class GlowCoupling(Flow):
    """A conditional GLOW flow `p(y | x)` of vectors: `flow(x)` is a distribution with `log_prob` and `sample`.

    Arguments:
        features: Dimensions D of `y`.
        context: Dimensions of the conditioning vector `x`, appended to the input of every subnet.
        blocks: Coupling blocks; after block `k` the channels are permuted, the permutation being seeded by `k`.
        hidden: Width of the one hidden layer of a subnet.
        clamp: Largest |ln stretch| of a dimension in one block.
        dropout: Share of hidden units silenced during training only.
        identity_start: Begin as the identity (up to the permutations), whose NLL on standardised targets is
            `D / 2 (1 + ln 2 pi)`.

    >>> flow = GlowCoupling(features=6, context=7, blocks=12, hidden=128, clamp=2.0)
    >>> sum(p.numel() for p in flow.parameters())
    52368
    >>> posterior = flow(torch.zeros(5, 7))
    >>> posterior.log_prob(torch.zeros(5, 6)).shape, posterior.sample((300,)).shape
    (torch.Size([5]), torch.Size([300, 5, 6]))
    """

    def __init__(
        self,
        features: int,
        context: int,
        blocks: int = 12,
        hidden: int = 128,
        clamp: float = 2.0,
        dropout: float = 0.0,
        identity_start: bool = False,
    ) -> None:
        if features < 2:
            raise ValueError(f"a coupling needs at least 2 features to split in halves, found {features}")
        base = UnconditionalDistribution(DiagNormal, torch.zeros(features), torch.ones(features), buffer=True)
        super().__init__(_Couplings(features, context, blocks, hidden, clamp, dropout, identity_start), base)


class _Couplings(LazyTransform):
    """The blocks; called with a context `[..., C]`, it gives the transform `y [..., D] -> z [..., D]`."""

    def __init__(
        self, features: int, context: int, blocks: int, hidden: int, clamp: float, dropout: float, identity_start: bool
    ) -> None:
        super().__init__()

        def subnet(inputs: int, outputs: int) -> nn.Sequential:
            last = nn.Linear(hidden, outputs)
            if identity_start:
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
            return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), last)

        self.blocks = SequenceINN(features)
        for index in range(blocks):
            self.blocks.append(GLOWCouplingBlock, cond=0, cond_shape=(context,), subnet_constructor=subnet, clamp=float(clamp))
            self.blocks.append(_FixedPermutation, seed=index)

    def forward(self, c: Tensor | None = None) -> Transform:
        if c is None:
            raise ValueError("this flow is conditional: call it with the context")
        return _Bound(self.blocks, c)


class _Bound(Transform):
    """The couplings at a given context. Leading axes of `y` broadcast against those of the context."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, blocks: SequenceINN, context: Tensor) -> None:
        super().__init__()
        self.blocks, self.context = blocks, context

    def _run(self, y: Tensor, rev: bool) -> tuple[Tensor, Tensor]:
        shape = torch.broadcast_shapes(y.shape[:-1], self.context.shape[:-1])
        rows = y.expand(*shape, y.shape[-1]).reshape(-1, y.shape[-1])
        context = self.context.to(y.dtype).expand(*shape, -1).reshape(-1, self.context.shape[-1])
        out, ladj = self.blocks(rows, c=[context], rev=rev)
        return out.reshape(*shape, -1), ladj.reshape(shape)

    def _call(self, x: Tensor) -> Tensor:
        return self._run(x, rev=False)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self._run(y, rev=True)[0]

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._run(x, rev=False)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self._run(x, rev=False)[1]


class _FixedPermutation(InvertibleModule):
    """FrEIA's `PermuteRandom`, with buffers for parameters and without reseeding NumPy's global generator."""

    order: Tensor
    back: Tensor

    def __init__(self, dims_in: list[tuple[int, ...]], dims_c: list | None = None, seed: int = 0) -> None:
        super().__init__(dims_in, dims_c)
        order = np.random.RandomState(seed).permutation(dims_in[0][0])
        self.register_buffer("order", torch.as_tensor(order), persistent=False)
        self.register_buffer("back", torch.as_tensor(np.argsort(order)), persistent=False)

    def forward(
        self, x: tuple[Tensor], rev: bool = False, jac: bool = True, c: list[Tensor] | None = None
    ) -> tuple[tuple[Tensor], float]:
        return (x[0][:, self.back if rev else self.order],), 0.0

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        return input_dims
