"""The network: conditions to a context, the context to a spline flow of muons, the conditions to a distribution of counts."""

import torch
import zuko
from torch import Tensor, nn

from muonflow.counts import Hurdle
from skyloom.errors import ConfigError

__all__ = ["SplineBundle"]


class SplineBundle(nn.Module):
    """A conditional neural spline flow (Durkan et al. 2019, arXiv 1906.04032) and a hurdle model of the multiplicity.

    Args:
        features: what the conditions are described by
        context: width of the embedding that the flow sees; made once per event, however many muons it has
        embedding: hidden units on the way there
        bins: of each spline, which covers [-5, 5] in standardised coordinates; the identity continues it outside
        transforms: splines one after another, in alternating order of energy and distance
        hidden: units of both hidden layers of a transform
        count_hidden: units of both hidden layers of the count head

    >>> network = SplineBundle(7)
    >>> context = network.embed(torch.zeros(3, 7))
    >>> network.log_prob(torch.zeros(5, 2), context[torch.tensor([0, 0, 0, 2, 2])]).shape
    torch.Size([5])
    """

    def __init__(
        self,
        features: int,
        context: int = 16,
        embedding: int = 48,
        bins: int = 8,
        transforms: int = 2,
        hidden: int = 48,
        count_hidden: int = 48,
    ) -> None:
        super().__init__()
        if bins < 4 or transforms < 1:
            raise ConfigError(f"a spline flow needs bins >= 4 and transforms >= 1, found bins={bins}, transforms={transforms}.")
        self.embed = nn.Sequential(nn.Linear(features, embedding), nn.ELU(), nn.Linear(embedding, context), nn.ELU())
        self.flow = zuko.flows.NSF(2, context, bins=bins, transforms=transforms, hidden_features=[hidden, hidden])
        self.count_head = nn.Sequential(
            *(nn.Linear(features, count_hidden), nn.ELU()),
            *(nn.Linear(count_hidden, count_hidden), nn.ELU()),
            nn.Linear(count_hidden, 3),
        )

    def log_prob(self, y: Tensor, context: Tensor) -> Tensor:
        """ln p(y | context) [M] of standardised coordinates [M, 2], each with its own context [M, D]."""
        return self.flow(context).log_prob(y)

    def sample(self, context: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw [M, 2] for each context [M, D]."""
        noise = torch.randn(len(context), 2, generator=generator, device=context.device, dtype=context.dtype)
        return self.flow(context).transform.inv(noise)

    def counts(self, features: Tensor) -> Hurdle:
        """How many muons arrive, for features [B, C]."""
        logit, log_mean, log_shape = self.count_head(features).unbind(-1)
        return Hurdle(logit.clamp(-30, 30), log_mean.clamp(-15, 15), log_shape.clamp(-5, 8))
