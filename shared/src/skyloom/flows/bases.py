"""Base distributions of the latent: normal, Student-T, a mixture of Gaussians, a box.

A flow of Lipschitz layers (affine couplings with a clamp, splines with linear tails) keeps the kind of tail that its base has
(Jaini et al. 2020, arXiv 1907.04481): a normal base cannot describe power laws at any depth. `TailTransform` can add them.

Each is a module, built as `base(features, context)`; called with the context it is a distribution of vectors `[..., D]`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import softplus

__all__ = ["Base", "Box", "GaussianMixture", "Normal", "StudentT"]

LOG_2PI = math.log(2 * math.pi)


class Base(nn.Module):
    """Makes the distribution of the latent `z` `[..., D]` at a context."""

    def __init__(self, features: int, context: int = 0) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("like", torch.zeros(()), persistent=False)  # tells device and dtype

    def forward(self, c: Tensor | None = None) -> Latent:
        return Latent(self, c)

    def log_density(self, z: Tensor, c: Tensor | None) -> Tensor:
        raise NotImplementedError

    def draw(self, shape: torch.Size, c: Tensor | None, generator: torch.Generator | None) -> Tensor:
        raise NotImplementedError

    def _filled(self, shape: torch.Size) -> dict[str, Any]:
        like = self.like
        assert isinstance(like, Tensor)
        return {"size": (*shape, self.features), "dtype": like.dtype, "device": like.device}


class Latent(Distribution):
    """The distribution that a base makes at a context."""

    has_rsample = True
    arg_constraints: dict = {}  # noqa: RUF012 - torch's name and shape for it

    def __init__(self, base: Base, c: Tensor | None) -> None:
        super().__init__(torch.Size(() if c is None else c.shape[:-1]), torch.Size([base.features]), validate_args=False)
        self._base, self._c = base, c

    def log_prob(self, value: Tensor) -> Tensor:
        return self._base.log_density(value, self._c)

    def rsample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        return self._base.draw(torch.Size(sample_shape) + self.batch_shape, self._c, generator)


class Normal(Base):
    """`N(0, I)`: in two dimensions its mean -ln p is 2.838 nats.

    >>> -round(Normal(6)().log_prob(torch.zeros(6)).item(), 4)
    5.5136
    """

    def log_density(self, z: Tensor, c: Tensor | None) -> Tensor:
        return -0.5 * (z.square().sum(-1) + z.shape[-1] * LOG_2PI)

    def draw(self, shape: torch.Size, c: Tensor | None, generator: torch.Generator | None) -> Tensor:
        return torch.randn(generator=generator, **self._filled(shape))


class StudentT(Base):
    """Student's T of location 0 and scale 1 (or a learned one), with `P(|z| > t) ~ t^-dof`.

    `ln p(z) = ln G((v + 1) / 2) - ln G(v / 2) - ln(v pi) / 2 - (v + 1) / 2 ln(1 + z^2 / v)` per coordinate, or for all of them
    together (the multivariate T, of which a large coordinate makes the others large too).

    Arguments:
        dof: Degrees of freedom `v`: small is heavy; 1 is Cauchy's distribution. 3 to 5 suit most catalogues.
        learned: Learn one `v` for each coordinate (for all together if `joint`), as `least + softplus`.
        joint: The multivariate T instead of independent coordinates.
        least: Smallest `v` that can be learned.
        scaled: Learn a scale for each coordinate as well. Splines leave what lies outside their box where it is, so that the
            base alone must say how much does, and how it falls: one number cannot say both.
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        dof: float = 4.0,
        learned: bool = False,
        joint: bool = False,
        least: float = 0.5,
        scaled: bool = False,
    ) -> None:
        super().__init__(features, context)
        if not dof > least > 0:
            raise ValueError(f"a Student-T needs dof > least > 0, found dof={dof} and least={least}")
        self.joint, self.least = joint, least
        raw = torch.full((1 if joint else features,), math.log(math.expm1(dof - least)))
        self.raw = nn.Parameter(raw, requires_grad=learned)
        self.log_scale = nn.Parameter(torch.zeros(features)) if scaled else None

    @property
    def dof(self) -> Tensor:
        """Degrees of freedom `[D]`, or `[1]` for all together."""
        return self.least + softplus(self.raw)

    def log_density(self, z: Tensor, c: Tensor | None) -> Tensor:
        if self.log_scale is None:
            return self._at_scale_one(z)
        log_scale = self.log_scale.to(z.dtype)
        return self._at_scale_one(z * torch.exp(-log_scale)) - log_scale.sum()

    def _at_scale_one(self, z: Tensor) -> Tensor:
        v, n = self.dof.to(z.dtype), (z.shape[-1] if self.joint else 1)
        constant = torch.lgamma((v + n) / 2) - torch.lgamma(v / 2) - n / 2 * torch.log(v * math.pi)
        if self.joint:
            return (constant - (v + n) / 2 * torch.log1p(z.square().sum(-1, keepdim=True) / v)).squeeze(-1)
        return (constant - (v + 1) / 2 * torch.log1p(z.square() / v)).sum(-1)

    def draw(self, shape: torch.Size, c: Tensor | None, generator: torch.Generator | None) -> Tensor:
        normal = torch.randn(generator=generator, **self._filled(shape))
        half = (self.dof / 2).to(normal.dtype).expand(*shape, len(self.raw)).contiguous()
        gamma = torch._standard_gamma(half, generator)  # carries its implicit reparametrised gradient
        draws = normal * torch.rsqrt(gamma.clamp(min=torch.finfo(gamma.dtype).tiny) / half)
        return draws if self.log_scale is None else draws * torch.exp(self.log_scale)


class GaussianMixture(Base):
    """`sum_k w_k N(m_k, diag s_k^2)` with learned weights, means and scales; it starts close to `N(0, I)`.

    Arguments:
        components: How many.
        by_context: Let the weights depend on the context, linearly before the softmax.
        spread: Deviation of the initial means.
        seed: Decides the initial means.
    """

    def __init__(
        self, features: int, context: int = 0, components: int = 4, by_context: bool = False, spread: float = 0.5, seed: int = 0
    ) -> None:
        super().__init__(features, context)
        means = spread * torch.randn(components, features, generator=torch.Generator().manual_seed(seed))
        self.means = nn.Parameter(means)
        self.log_scales = nn.Parameter(torch.zeros(components, features))
        self.logits = nn.Parameter(torch.zeros(components))
        self.of_context = nn.Linear(context, components, bias=False) if by_context and context else None
        if self.of_context is not None:
            nn.init.zeros_(self.of_context.weight)

    def log_weights(self, c: Tensor | None) -> Tensor:
        """`ln w` `[..., K]`."""
        logits = self.logits if c is None or self.of_context is None else self.logits + self.of_context(c).to(self.logits.dtype)
        return torch.log_softmax(logits, -1)

    def log_density(self, z: Tensor, c: Tensor | None) -> Tensor:
        log_scales = self.log_scales.clamp(-7, 7).to(z.dtype)
        u = (z.unsqueeze(-2) - self.means.to(z.dtype)) * torch.exp(-log_scales)
        each = -0.5 * (u.square().sum(-1) + z.shape[-1] * LOG_2PI) - log_scales.sum(-1)
        return torch.logsumexp(self.log_weights(c).to(z.dtype) + each, -1)

    def draw(self, shape: torch.Size, c: Tensor | None, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn(generator=generator, **self._filled(shape))
        weights = self.log_weights(c).exp().detach()
        rows = weights.expand(*shape, weights.shape[-1]).reshape(-1, weights.shape[-1])
        chosen = torch.multinomial(rows, 1, replacement=True, generator=generator).view(shape)
        return self.means[chosen] + noise * self.log_scales.clamp(-7, 7).exp()[chosen]


class Box(Base):
    """Uniform on `(-bound, bound)` in every coordinate, nothing outside.

    For layers that map the box onto itself, as splines do, behind a data transform that maps the data into it: a hard edge is
    then an edge, with no tail to approximate it.
    """

    def __init__(self, features: int, context: int = 0, bound: float = 5.0) -> None:
        super().__init__(features, context)
        self.bound = bound

    def log_density(self, z: Tensor, c: Tensor | None) -> Tensor:
        inside = (z.abs() <= self.bound).all(-1)
        level = torch.zeros_like(z).sum(-1) - z.shape[-1] * math.log(2 * self.bound)
        return torch.where(inside, level, torch.full_like(level, -torch.inf))

    def draw(self, shape: torch.Size, c: Tensor | None, generator: torch.Generator | None) -> Tensor:
        return self.bound * (2 * torch.rand(generator=generator, **self._filled(shape)) - 1)
