"""How many muons arrive: a hurdle (does any?) and a zero-truncated negative binomial (how many, if any).

    P(0) = 1 - q,    P(N) = q NB(N; m, k) / (1 - NB(0; m, k))  for N >= 1,

with q the survival probability, and NB of mean m and variance m + m^2 / k. A regression to the mean of ln(1 + N) has no
fluctuations at all; a Poisson distribution has too few, since showers themselves fluctuate.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["Hurdle", "log_negative_binomial", "log_zero_truncated", "sample_zero_truncated"]


def log_negative_binomial(count: Tensor, log_mean: Tensor, log_shape: Tensor) -> Tensor:
    """ln NB(N; m, k) with mean m and shape k:  lnG(N+k) - lnG(k) - lnG(N+1) + k ln(k/(k+m)) + N ln(m/(k+m)).

    >>> mass = log_negative_binomial(torch.arange(200.0).double(), torch.tensor(1.0), torch.tensor(0.5)).exp()
    >>> round(float(mass.sum()), 6)
    1.0
    """
    k = log_shape.exp()
    ratio = log_mean - log_shape
    zero = -k * torch.nn.functional.softplus(ratio)
    coefficient = torch.lgamma(count + k) - torch.lgamma(k) - torch.lgamma(count + 1)
    return coefficient + zero + count * logsigmoid(ratio)


def log_zero_truncated(count: Tensor, log_mean: Tensor, log_shape: Tensor) -> Tensor:
    """ln P(N | N >= 1) for N >= 1: ln NB(N) - ln(1 - NB(0)), accurate where almost nothing survives."""
    zero = -log_shape.exp() * torch.nn.functional.softplus(log_mean - log_shape)
    return log_negative_binomial(count, log_mean, log_shape) - _log1mexp(zero)


def sample_zero_truncated(log_mean: Tensor, log_shape: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draws N >= 1, exactly and without rejection, however small the mean.

    Take N as the arrivals of a Poisson process on [0, 1] with a gamma-distributed rate. The first arrival T, given that
    there is one, follows from inverting P(T > t) = (1 + m t / k)^-k; given T the rate is Gamma(k + 1, k / m + T), and
    the arrivals after T are Poisson.
    """
    k, m = log_shape.double().exp(), log_mean.double().exp()
    some = -torch.expm1(-k * torch.log1p(m / k))
    u = torch.rand(k.shape, generator=generator, dtype=torch.float64, device=k.device)
    first = (k / m * torch.expm1(-torch.log1p(-u * some) / k)).clamp(0.0, 1.0)
    rate = torch._standard_gamma(k + 1, generator=generator) / (k / m + first)
    return 1 + torch.poisson(rate * (1 - first), generator=generator).to(torch.int64)


class Hurdle(NamedTuple):
    """Distributions of counts, one per event: each [B].

    >>> odds = Hurdle(torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([0.0]))
    >>> float(odds.log_prob(torch.tensor([0.0])).exp())
    0.5
    """

    logit: Tensor  # of the survival probability q
    log_mean: Tensor  # of the untruncated m
    log_shape: Tensor  # of k

    @property
    def survival(self) -> Tensor:
        """P(N >= 1) [B]."""
        return torch.sigmoid(self.logit)

    def log_prob(self, count: Tensor) -> Tensor:
        positive = log_zero_truncated(count.clamp(min=1).to(self.logit.dtype), self.log_mean, self.log_shape)
        return torch.where(count > 0, logsigmoid(self.logit) + positive, logsigmoid(-self.logit))

    def mass_of_positive(self, largest: int) -> Tensor:
        """[B, largest]: P(N | N >= 1) for N = 1 … largest - 1, and last P(N >= largest | N >= 1)."""
        n = torch.arange(1, largest, device=self.logit.device, dtype=self.logit.dtype)
        mass = log_zero_truncated(n, self.log_mean[:, None], self.log_shape[:, None]).exp()
        return torch.cat([mass, (1 - mass.sum(1, keepdim=True)).clamp(min=0.0)], 1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[B] int64."""
        u = torch.rand(self.logit.shape, generator=generator, device=self.logit.device)
        survives = u < torch.sigmoid(self.logit)
        return torch.where(survives, sample_zero_truncated(self.log_mean, self.log_shape, generator), 0)

    def among_kept(self, kept: Tensor) -> "Hurdle":
        """The same in a table that holds only a share `kept` [B] of the empty events: its odds of survival are larger by
        1 / kept. (Case-control sampling; Prentice and Pyke 1979, doi:10.1093/biomet/66.3.403.)"""
        return self._replace(logit=self.logit - torch.log(kept))


def _log1mexp(x: Tensor) -> Tensor:
    """ln(1 - exp(x)) for x < 0, accurate at both ends (Maechler 2012)."""
    x = x.clamp(max=-torch.finfo(x.dtype).tiny)
    near = x > -0.6931
    return torch.where(
        near,
        torch.log(-torch.expm1(torch.where(near, x, -0.5))),
        torch.log1p(-torch.exp(torch.where(near, -1.0, x))),
    )
