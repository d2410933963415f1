"""Conditional GLOW: affine couplings with a soft clamp, mixed between blocks.

A block splits `y` into halves `y1`, `y2` and transforms both, with `c(s) = clamp * 0.636 * arctan(s)` (0.636 is 2/pi):

    u1 = y1 exp(c(s2)) + t2,   (s2, t2) = subnet2([y2, x])
    u2 = y2 exp(c(s1)) + t1,   (s1, t1) = subnet1([u1, x])
    ln |det| = sum c(s2) + sum c(s1)

so one block stretches a dimension by at most `exp(clamp)`, and `n` blocks by `exp(n * clamp)`. Blocks, clamp and subnets are
FrEIA's modules (their `forward` gives the same numbers); the passes here run over columns, and share the context's part over
draws.

References: Kingma and Dhariwal 2018 (arXiv 1807.03039); Ardizzone et al. 2019 (arXiv 1907.02392).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from skyloom.flows.bases import Base
from skyloom.flows.bound import Given, Step
from skyloom.flows.conditioner import Conditioner
from skyloom.flows.density import Flow
from skyloom.flows.mixing import ActNorm, LearnedRotation, Permutation, Rotation

try:
    from FrEIA.modules import GLOWCouplingBlock
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("GLOW couplings need FrEIA: pip install 'skyloom[flows]'") from error

__all__ = ["AffineCoupling", "GlowCoupling"]

MIXINGS = {"permutation": Permutation, "rotation": Rotation, "learned": LearnedRotation}


class GlowCoupling(Flow):
    """A conditional GLOW flow `p(y | x)` of vectors: `flow(x)` is a distribution with `log_prob` and `sample`.

    Arguments:
        features: Dimensions D of `y`.
        context: Dimensions of the conditioning vector `x`; 0 for none.
        blocks: Coupling blocks; the mixing after block `k` is seeded by `k`.
        hidden: Width of the one hidden layer of a subnet, or the widths of several.
        clamp: Largest |ln stretch| of a dimension in one block.
        dropout: Share of hidden units silenced during training only.
        identity_start: Begin as the identity (up to the mixing), whose NLL on standardised targets is `D / 2 (1 + ln 2 pi)`.
        mixing: "permutation" of the dimensions; random "rotation"; or a rotation that is "learned".
        actnorm: A learned scale and shift per dimension before each block, set by the first training batch.
        base: Builds the base distribution, `base(features, context)`: normal if not given.
        embed: Builds a network in front of the context, `embed(context)`.
        tails: Builds a tail transform in front of the layers, `tails(features)`.

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
        context: int = 0,
        blocks: int = 12,
        hidden: int | Sequence[int] = 128,
        clamp: float = 2.0,
        dropout: float = 0.0,
        identity_start: bool = False,
        mixing: str = "permutation",
        actnorm: bool = False,
        base: Callable[..., Base] | None = None,
        embed: Callable[[int], Any] | None = None,
        tails: Callable[[int], Step] | None = None,
    ) -> None:
        if features < 2:
            raise ValueError(f"a coupling needs at least 2 features to split in halves, found {features}")
        if mixing not in MIXINGS:
            raise ValueError(f"mixing={mixing!r} must be one of {', '.join(MIXINGS)}")
        network = embed(context) if embed is not None and context else None
        width = context if network is None else network.outputs
        widths = (hidden,) if isinstance(hidden, int) else tuple(hidden)
        steps: list[Step] = [] if tails is None else [tails(features)]
        for k in range(blocks):
            if actnorm:
                steps.append(ActNorm(features))
            steps.append(AffineCoupling(features, width, widths, clamp, dropout, identity_start))
            steps.append(MIXINGS[mixing](features, k))
        super().__init__(steps, features, context, base, network)


class AffineCoupling(Step):
    """One block: FrEIA's `GLOWCouplingBlock`, run over columns."""

    def __init__(
        self,
        features: int,
        context: int,
        hidden: Sequence[int] = (128,),
        clamp: float = 2.0,
        dropout: float = 0.0,
        identity_start: bool = False,
    ) -> None:
        super().__init__()
        subnet = partial(_subnet, context=context, hidden=hidden, dropout=dropout, zero_output=identity_start)
        given = [(context,)] if context else []
        self.block = GLOWCouplingBlock([(features,)], given, subnet_constructor=subnet, clamp=float(clamp))

    def of_context(self) -> tuple[Tensor, Tensor]:
        weights, biases = zip(self.block.subnet1.of_context(), self.block.subnet2.of_context(), strict=True)
        return torch.cat(weights), torch.cat(biases)

    def _halves(self, given: Given | None) -> tuple[Given | None, Given | None]:
        """What each of the two subnets knows of the context."""
        if given is None or not given.ready:
            return given, given
        first, second = given.value.chunk(2)
        return Given(first, True), Given(second, True)

    def _stretch_and_shift(self, subnet: Conditioner, y: Tensor, given: Given | None) -> tuple[Tensor, Tensor]:
        s, t = subnet.columns(y, given).chunk(2)
        return torch.atan(s) * (0.636 * self.block.clamp), t

    def forward(self, y: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        first, second = self._halves(given)
        y1, y2 = y.split([self.block.split_len1, self.block.split_len2])
        s2, t2 = self._stretch_and_shift(self.block.subnet2, y2, second)
        u1 = torch.addcmul(t2, y1, s2.exp())
        s1, t1 = self._stretch_and_shift(self.block.subnet1, u1, first)
        u2 = torch.addcmul(t1, y2, s1.exp())
        return torch.cat([u1, u2]), torch.cat([s2, s1])

    def inverse(self, z: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        first, second = self._halves(given)
        u1, u2 = z.split([self.block.split_len1, self.block.split_len2])
        s1, t1 = self._stretch_and_shift(self.block.subnet1, u1, first)
        y2 = (u2 - t1) * (-s1).exp()
        s2, t2 = self._stretch_and_shift(self.block.subnet2, y2, second)
        y1 = (u1 - t2) * (-s2).exp()
        return torch.cat([y1, y2]), torch.cat([s2, s1])


def _subnet(inputs: int, outputs: int, context: int, **rest: Any) -> Conditioner:
    return Conditioner(inputs - context, context, outputs, **rest)
