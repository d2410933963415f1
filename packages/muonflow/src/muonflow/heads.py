"""What a count may be: four distributions of the multiplicity, each made of the features by a small network.

`HurdleHead` is what the physics asks for: most primaries send nothing, and showers fluctuate. The others stand beside it for
comparison: a Poisson distribution fluctuates too little, a truncated one knows nothing of empty events, and the regression of
ln(1 + N) of earlier work does not fluctuate at all.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from muonflow.counts import Hurdle, log_zero_truncated, sample_zero_truncated

__all__ = ["HurdleHead", "MeanHead", "Poisson", "PoissonHead", "Rounded", "Truncated", "TruncatedHead"]


class _Head(nn.Module):
    numbers: int

    def __init__(self, features: int, hidden: int = 48) -> None:
        super().__init__()
        self.network = nn.Sequential(
            *(nn.Linear(features, hidden), nn.ELU()),
            *(nn.Linear(hidden, hidden), nn.ELU()),
            nn.Linear(hidden, self.numbers),
        )


class HurdleHead(_Head):
    """Does any muon arrive (logistic)? How many, if any (zero-truncated negative binomial)?"""

    numbers = 3

    def forward(self, features: Tensor) -> Hurdle:
        logit, log_mean, log_shape = self.network(features).unbind(-1)
        return Hurdle(logit.clamp(-30, 30), log_mean.clamp(-15, 15), log_shape.clamp(-5, 8))


class PoissonHead(_Head):
    """One rate: a shower never fluctuates."""

    numbers = 1

    def forward(self, features: Tensor) -> "Poisson":
        return Poisson(self.network(features)[..., 0].clamp(-30, 15))


class TruncatedHead(_Head):
    """Zero-truncated negative binomial, for tables without empty events: every bundle that it draws has a muon."""

    numbers = 2

    def forward(self, features: Tensor) -> "Truncated":
        log_mean, log_shape = self.network(features).unbind(-1)
        return Truncated(log_mean.clamp(-15, 15), log_shape.clamp(-5, 8))


class MeanHead(_Head):
    """ln(1 + N) by least squares, weight 0.1: the count is the rounded prediction, the same for all showers of a kind."""

    numbers = 1

    def forward(self, features: Tensor) -> "Rounded":
        return Rounded(self.network(features)[..., 0].clamp(0, 15))


class Poisson(NamedTuple):
    """Poisson distributions, one per event.

    >>> round(float(Poisson(torch.tensor([0.0])).log_prob(torch.tensor([2])).exp()), 4)   # exp(-1) / 2
    0.1839
    """

    log_mean: Tensor
    log_kept: Tensor | float = 0.0  # share of the empty events in the table

    @property
    def survival(self) -> Tensor:
        return -torch.expm1(-self.log_mean.exp())

    def log_prob(self, count: Tensor) -> Tensor:
        n = count.to(self.log_mean.dtype)
        plain = n * self.log_mean - self.log_mean.exp() - torch.lgamma(n + 1)
        thinned = torch.where(count == 0, torch.as_tensor(self.log_kept), 0.0)
        kept = torch.as_tensor(self.log_kept).exp()
        return plain + thinned - torch.log(self.survival + (1 - self.survival) * kept)

    def mass_of_positive(self, largest: int) -> Tensor:
        n = torch.arange(1, largest, device=self.log_mean.device, dtype=self.log_mean.dtype)
        mean = self.log_mean[:, None]
        log_mass = n * mean - mean.exp() - torch.lgamma(n + 1) - self.survival.clamp(min=1e-30).log()[:, None]
        mass = log_mass.exp().clamp(max=1.0)
        return torch.cat([mass, (1 - mass.sum(1, keepdim=True)).clamp(min=0.0)], 1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return torch.poisson(self.log_mean.exp(), generator=generator).to(torch.int64)

    def among_kept(self, kept: Tensor) -> "Poisson":
        return self._replace(log_kept=kept.log())


class Truncated(NamedTuple):
    """P(N | N >= 1) alone; an event without muons says nothing and costs nothing."""

    log_mean: Tensor
    log_shape: Tensor

    @property
    def survival(self) -> Tensor:
        return torch.ones_like(self.log_mean)

    def log_prob(self, count: Tensor) -> Tensor:
        positive = log_zero_truncated(count.clamp(min=1).to(self.log_mean.dtype), self.log_mean, self.log_shape)
        return torch.where(count > 0, positive, 0.0)

    def mass_of_positive(self, largest: int) -> Tensor:
        return Hurdle(torch.zeros_like(self.log_mean), self.log_mean, self.log_shape).mass_of_positive(largest)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return sample_zero_truncated(self.log_mean, self.log_shape, generator)

    def among_kept(self, kept: Tensor) -> "Truncated":
        return self


class Rounded(NamedTuple):
    """N = round(exp(prediction) - 1), and nothing else. `log_prob` is the score of a unit normal of ln(1 + N), times 0.2: what
    least squares with weight 0.1 minimizes. It is no probability of counts."""

    prediction: Tensor

    @property
    def rounded(self) -> Tensor:
        return torch.expm1(self.prediction).round().to(torch.int64)

    @property
    def survival(self) -> Tensor:
        return (self.rounded > 0).to(self.prediction.dtype)

    def log_prob(self, count: Tensor) -> Tensor:
        return -0.1 * (self.prediction - torch.log1p(count.to(self.prediction.dtype))).square()

    def mass_of_positive(self, largest: int) -> Tensor:
        """All on one count; on 1 where the rounded prediction is 0, as if asked what it would be if any came."""
        return torch.nn.functional.one_hot((self.rounded.clamp(1, largest) - 1), largest).to(self.prediction.dtype)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.rounded

    def among_kept(self, kept: Tensor) -> "Rounded":
        return self
