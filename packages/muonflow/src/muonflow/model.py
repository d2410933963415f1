"""The network: conditions to a context, the context to a flow of muons, the conditions to a distribution of counts."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from muonflow.heads import HurdleHead
from skyloom.flows import ContextMLP, Flow, SplineAutoregressive, TailTransform
from skyloom.flows.fitting import from_json
from skyloom.flows.transforms import DataTransform, Identity

__all__ = ["BundleFlow"]

embedding = partial(ContextMLP, outputs=16, hidden=(48,))
small_spline = partial(SplineAutoregressive, transforms=2, bins=8, hidden=(48, 48))


class BundleFlow(nn.Module):
    """A conditional normalizing flow of muons and a count head, from parts of `skyloom.flows`.

    Args:
        features: what the conditions are described by
        targets: fitted data transforms by name, as JSON; `transform` picks one
        tail_index: Hill's estimates [2, 2] of the standardised coordinates, where `hill_tails` begins
        transform: "standardise", "quantile" or "yeo_johnson", with its Jacobian in the likelihood
        embed: builds the context network, `embed(features)`; it runs once per event, however many muons that has
        flow: builds the flow, `flow(2, width of the context)`, with any base
        counts: builds the count head, `counts(features)`
        latent: builds the latent of an event, `latent(features)`; None makes the muons independent given the condition
        hill_tails: put a `TailTransform` first, started at the training split's own tails

    >>> network = BundleFlow(7)
    >>> context = network.embed(torch.zeros(3, 7))
    >>> network.log_prob(torch.zeros(5, 2), context[torch.tensor([0, 0, 0, 2, 2])]).shape
    torch.Size([5])
    """

    def __init__(
        self,
        features: int,
        targets: Mapping[str, Any] | None = None,
        tail_index: Sequence[Sequence[float]] | None = None,
        transform: str = "standardise",
        embed: Callable[[int], Any] = embedding,
        flow: Callable[..., Flow] = small_spline,
        counts: Callable[[int], nn.Module] = HurdleHead,
        latent: Callable[[int], Any] | None = None,
        hill_tails: bool = False,
    ) -> None:
        super().__init__()
        self.target: DataTransform = Identity() if targets is None else from_json(targets[transform])
        self.embed = embed(features)
        self.latent = None if latent is None else latent(features)
        width = self.embed.outputs + (0 if self.latent is None else self.latent.size)
        tails = {"tails": partial(TailTransform, shape=0.25 if tail_index is None else tail_index)} if hill_tails else {}
        self.flow = flow(2, width, **tails)
        self.count_head = counts(features)

    def log_prob(self, y: Tensor, context: Tensor) -> Tensor:
        """ln p(y | context) [M] of coordinates [M, 2] (see `coordinates.to_flow`), each with its own context [M, D]."""
        z, log_jacobian = self.target(y)
        return self.flow(context).log_prob(z) + log_jacobian.sum(-1)

    def sample(self, context: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw [M, 2] for each context [M, D]."""
        return self.target.inverse(self.flow(context).sample((), generator))

    def counts(self, features: Tensor) -> Any:
        """How many muons arrive, for features [B, C]."""
        return self.count_head(features)
