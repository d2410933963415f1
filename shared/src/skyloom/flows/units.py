"""A flow that speaks the units of its user: data transforms in front, densities corrected for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from zuko.distributions import NormalizingFlow
from zuko.lazy import LazyDistribution

from skyloom.flows.transforms import DataTransform

__all__ = ["InUserUnits", "UserUnitsDistribution"]


class InUserUnits(LazyDistribution):
    """`p(y | x)` in the units of `y`, from a flow `p(z | w)` with `z = target(y; x)` and `w = context(x)`.

    Arguments:
        flow: A module with `flow(w) -> distribution` of vectors, such as `GlowCoupling` or any of zuko's flows.
        target: From the user's `y` `[..., D]` to what the flow models.
        context: From the user's `x` `[..., C]` to what the flow is conditioned on.

    >>> from skyloom.flows import GlowCoupling, Log, Standardise
    >>> flow = InUserUnits(GlowCoupling(2, 1, blocks=2), target=Log(), context=Standardise([3.0], [0.5]))
    >>> masses = flow(torch.tensor([[2.5], [3.5]])).sample((100,))
    >>> bool((masses > 0).all()), flow(torch.tensor([[2.5]])).log_prob(torch.tensor([[-1.0, 2.0]]))
    (True, tensor([-inf], grad_fn=<WhereBackward0>))
    """

    def __init__(self, flow: LazyDistribution, target: DataTransform, context: DataTransform) -> None:
        super().__init__()
        self.flow, self.target, self.context = flow, target, context

    def forward(self, c: Tensor | None = None) -> UserUnitsDistribution:
        if c is None:
            raise ValueError("this flow is conditional: call it with the context, in the user's units")
        scaled, _ = self.context(c)
        return UserUnitsDistribution(self.flow(scaled.to(_dtype(self.flow))), self.target, c)


class UserUnitsDistribution(Distribution):
    """The distribution of `y` whose transformed `z` follows `scaled`."""

    has_rsample = True
    arg_constraints: dict = {}  # noqa: RUF012 - torch's name and shape for it

    def __init__(self, scaled: Distribution | NormalizingFlow, target: DataTransform, context: Tensor) -> None:
        super().__init__(scaled.batch_shape, scaled.event_shape, validate_args=False)
        self.scaled, self.target, self.context = scaled, target, context

    def log_probs(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """`ln p(y | x)` per user unit and `ln p(z | w)` per scaled unit, both `[...]`; -inf outside the support."""
        inside = self.target.supports(y, self.context)
        z, ladj = self.target(y, self.context)
        z = torch.where(inside, z, torch.zeros_like(z))
        ladj = torch.where(inside, ladj, torch.zeros_like(ladj))
        scaled = self.scaled.log_prob(z)
        nothing = torch.full_like(scaled, -torch.inf)
        within = inside.all(-1)
        return torch.where(within, scaled + ladj.sum(-1), nothing), torch.where(within, scaled, nothing)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.log_probs(value)[0]

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.target.inverse(self.scaled.rsample(torch.Size(sample_shape)), self.context)


def _dtype(module: torch.nn.Module) -> torch.dtype:
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())
