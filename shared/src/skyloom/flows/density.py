"""The one interface: a flow is a module, and `flow(context)` is a distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from zuko.lazy import LazyDistribution

from skyloom.flows.bases import Base, Normal
from skyloom.flows.bound import Bound, Step, run
from skyloom.flows.mode import highest

__all__ = ["Flow", "FlowDistribution"]


class Flow(LazyDistribution):
    """`p(y | c)` of vectors `[..., D]`: layers from data to latent, and a base distribution of the latent.

    Arguments:
        steps: The layers, first to last from data to latent.
        features: Dimensions D of `y`.
        context: Dimensions of `c`; 0 for a flow without context, which is called as `flow()`.
        base: Builds the base distribution, `base(features, context)`.
        embed: Builds a network in front of the context, `embed(context)`, with an attribute `outputs`.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        features: int,
        context: int = 0,
        base: Callable[..., Base] | None = None,
        embed: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.features, self.context = features, context
        self.embed = embed
        self.steps = nn.ModuleList(steps)
        width: Any = context if embed is None else embed.outputs
        self.base = (base or Normal)(features, width)
        self._runner: Callable = run

    def forward(self, c: Tensor | None = None) -> FlowDistribution:
        """The distribution at a context `[..., C]`."""
        self._check(c)
        if c is not None and self.embed is not None:
            c = self.embed(c)
        steps: Any = list(self.steps)
        return FlowDistribution(Bound(steps, [c] * len(steps), self._runner), self.base(c))

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the passes through the layers (torch.compile); the first calls are slow, the results the same to rounding."""
        options.setdefault("dynamic", True)

        def fresh(steps: Any, parts: Any, y: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
            return run(steps, parts, y, inverse)

        self._runner = torch.compile(fresh, *args, **options)

    def _check(self, c: Tensor | None) -> None:
        if c is None and self.context:
            raise ValueError(f"this flow is conditional: call it with the context, {self.context} numbers for each object")
        if c is not None and not self.context:
            raise ValueError("this flow has no context: call it without one")
        if c is not None and c.shape[-1] != self.context:
            raise ValueError(f"the context has {c.shape[-1]} columns, this flow was built for {self.context}")


class FlowDistribution(Distribution):
    """What `flow(context)` gives: densities, draws, both at once, and the most probable point.

    Draws come as `[*sample_shape, *batch_shape, D]`. Where no gradient is asked for they are made in blocks that fit the cache,
    and what the network makes of each context is computed once, whatever the number of draws.
    """

    has_rsample = True
    arg_constraints: dict = {}  # noqa: RUF012 - torch's name and shape for it

    def __init__(self, transform: Bound, base: Any) -> None:
        batch = torch.broadcast_shapes(transform.batch, base.batch_shape)
        super().__init__(torch.Size(batch), base.event_shape, validate_args=False)
        self.transform, self.base = transform, base

    def log_prob(self, value: Tensor) -> Tensor:
        """`ln p(y | c)`, natural logarithm, per unit of `y`."""
        z, ladj = self.transform.to_latent(value)
        return self.base.log_prob(z) + ladj

    def rsample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws through which gradients reach the parameters."""
        return self.transform.to_data(self._noise(sample_shape, generator))[0]

    @torch.no_grad()
    def sample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws `[*sample_shape, *batch_shape, D]`."""
        return self.rsample(sample_shape, generator)

    def rsample_and_log_prob(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draws and their `ln p`, by one pass."""
        z = self._noise(sample_shape, generator)
        y, ladj = self.transform.to_data(z)
        return y, self.base.log_prob(z) + ladj

    @torch.no_grad()
    def sample_and_log_prob(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The same, without gradients."""
        return self.rsample_and_log_prob(sample_shape, generator)

    def map_estimate(self, draws: int = 1000, steps: int = 50, generator: torch.Generator | None = None) -> Tensor:
        """The point of highest density `[*batch_shape, D]`: the best of many draws, then a climb (`skyloom.flows.mode`)."""
        return highest(self, draws, steps, generator)

    def frozen(self) -> FlowDistribution:
        """The same distribution, what it knows of the context computed once and for all."""
        return FlowDistribution(self.transform.frozen(), self.base)

    def _noise(self, sample_shape: Any, generator: torch.Generator | None) -> Tensor:
        shape = torch.Size(sample_shape)
        missing = len(self.batch_shape) - len(self.base.batch_shape)
        return self.base.rsample(shape + self.batch_shape[:missing] if missing else shape, generator)

    @property
    def dimensions(self) -> int:
        return math.prod(self.event_shape)
