"""A flow that speaks the units of its user: data transforms in front, densities corrected for them."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from zuko.lazy import LazyDistribution

from skyloom.flows.mode import highest
from skyloom.flows.support import OutsideSupport, TrainingSupport
from skyloom.flows.transforms import DataTransform, Identity

__all__ = ["InUserUnits", "UserUnitsDistribution"]


class InUserUnits(LazyDistribution):
    """`p(y | x)` in the units of `y`, from a flow `p(z | w)` with `z = target(y; x)` and `w = context(x)`.

    Whatever the flow says, draws obey the bounds of `target` (a logit, a logarithm): nothing leaks out of the support, so
    nothing is rejected, and a draw costs the same however narrow the support is.

    Arguments:
        flow: A module with `flow(w) -> distribution` of vectors, such as `GlowCoupling`.
        target: From the user's `y` `[..., D]` to what the flow models.
        context: From the user's `x` `[..., C]` to what the flow is conditioned on; None for a flow without context.
        support: What contexts looked like in training. If given, a flow in evaluation mode warns of those unlike it.

    >>> from skyloom.flows import GlowCoupling, Log, Standardise
    >>> flow = InUserUnits(GlowCoupling(2, 1, blocks=2), target=Log(), context=Standardise([3.0], [0.5]))
    >>> masses = flow(torch.tensor([[2.5], [3.5]])).sample((100,))
    >>> bool((masses > 0).all()), flow(torch.tensor([[2.5]])).log_prob(torch.tensor([[-1.0, 2.0]]))
    (True, tensor([-inf], grad_fn=<WhereBackward0>))
    """

    def __init__(
        self,
        flow: nn.Module,
        target: DataTransform,
        context: DataTransform | None = None,
        support: TrainingSupport | None = None,
    ) -> None:
        super().__init__()
        self.flow, self.target, self.context, self.support = flow, target, context or Identity(), support

    def forward(self, c: Tensor | None = None) -> UserUnitsDistribution:
        if c is None:
            return UserUnitsDistribution(self.flow(), self.target, None)
        if self.support is not None and not self.training and not torch.compiler.is_compiling():
            self._look_at(c)
        scaled, _ = self.context(c)
        return UserUnitsDistribution(self.flow(scaled.to(_dtype(self.flow))), self.target, c)

    def familiar(self, c: Tensor) -> Tensor:
        """Whether each context `[..., C]` resembles the training split."""
        if self.support is None:
            raise ValueError("this flow was not told what contexts looked like in training: give it `support`")
        return self.support.familiar(c.reshape(-1, c.shape[-1])).view(c.shape[:-1])

    def _look_at(self, c: Tensor) -> None:
        assert self.support is not None
        strange = int((~self.familiar(c)).sum())
        rows = c[..., 0].numel()
        if strange > 2 * self.support.alarm * rows + 1:  # the alarm itself may be raised by chance
            warnings.warn(
                f"{strange} of {rows} contexts are unlike the training split ({self.support.alarm:.1%} by chance): "
                "their posteriors are extrapolations; `familiar` tells which.",
                OutsideSupport,
                stacklevel=3,
            )


class UserUnitsDistribution(Distribution):
    """The distribution of `y` whose transformed `z` follows `scaled`."""

    has_rsample = True
    arg_constraints: dict = {}  # noqa: RUF012 - torch's name and shape for it

    def __init__(self, scaled: Any, target: DataTransform, context: Tensor | None) -> None:
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

    def rsample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        return self.from_scaled(self.scaled.rsample(torch.Size(sample_shape), generator))

    @torch.no_grad()
    def sample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        return self.rsample(sample_shape, generator)

    def rsample_and_log_prob(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draws and their `ln p` per user unit, by one pass through the flow."""
        z, log_prob = self.scaled.rsample_and_log_prob(torch.Size(sample_shape), generator)
        y = self.from_scaled(z)
        return y, log_prob + self.target(y, self.context)[1].sum(-1)

    @torch.no_grad()
    def sample_and_log_prob(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return self.rsample_and_log_prob(sample_shape, generator)

    def map_estimate(self, draws: int = 1000, steps: int = 50, generator: torch.Generator | None = None) -> Tensor:
        """The maximum of `p(y | x)` in the user's units, inside the support (see `skyloom.flows.mode`)."""
        return highest(self, draws, steps, generator)

    def frozen(self) -> UserUnitsDistribution:
        return UserUnitsDistribution(self.scaled.frozen(), self.target, self.context)

    def from_scaled(self, z: Tensor) -> Tensor:
        """`y` of scaled `z`."""
        return self.target.inverse(z, self.context)

    def log_prob_at_scaled(self, z: Tensor) -> Tensor:
        """`ln p(y | x)` per user unit at the `y` of a scaled `z`, differentiable in `z`."""
        ladj = self.target(self.from_scaled(z), self.context)[1].sum(-1)
        return self.scaled.log_prob(z) + ladj


def _dtype(module: torch.nn.Module) -> torch.dtype:
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())
