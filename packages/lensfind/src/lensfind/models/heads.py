"""From features [B, D] to named outputs; every head gives `logit` [B]."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["HeteroscedasticHead", "LinearHead", "RadiusHead", "logit_normal", "sampled_probability"]


def logit_normal(mean: Tensor, variance: Tensor) -> Tensor:
    r"""The logit whose sigmoid is nearly the mean of sigmoid(N(mean, variance)): $z / \sqrt{1 + \pi v / 8}$
    (MacKay 1992, Neural Computation 4, 720).

    >>> z = logit_normal(torch.tensor(2.0), torch.tensor(0.5))
    >>> round(float(torch.sigmoid(z)), 4)
    0.8616
    """
    return mean / torch.sqrt(1 + torch.pi * variance / 8)


def sampled_probability(mean: Tensor, variance: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """The mean of sigmoid(N(mean, variance)) over `draws`: what `logit_normal` approximates."""
    noise = torch.randn(draws, *mean.shape, generator=generator, dtype=mean.dtype)
    return torch.sigmoid(mean + variance.sqrt() * noise).mean(dim=0)


class LinearHead(nn.Module):
    r"""Dropout on the features and one linear layer.

    Dropout keeps each feature with probability 1 - p, so that over its draws the logit has mean b + w x and variance
    $\frac{p}{1-p} \sum_j (w_j x_j)^2$, exactly: Monte-Carlo dropout needs no sampling here (Gal and Ghahramani 2016,
    arXiv:1506.02142, for the idea). It is given as `dropout_variance` where p > 0.
    """

    def __init__(self, width: int, dropout: float = 0.2):
        super().__init__()
        self.drop, self.linear = nn.Dropout(dropout), nn.Linear(width, 1)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        out = {"logit": self.linear(self.drop(features))[:, 0]}
        if self.drop.p > 0:
            spread = ((features * self.linear.weight[0]) ** 2).sum(dim=1)
            out["dropout_variance"] = self.drop.p / (1 - self.drop.p) * spread.detach()
        return out


class HeteroscedasticHead(nn.Module):
    """A logit and how uncertain the image itself leaves it: mean mu and log variance s, learned together under any risk.

    The logit given is `logit_normal(mu, exp s)`: an image of which little can be told is drawn towards even odds without the
    features having to say so (Kendall and Gal 2017, arXiv:1703.04977, who sample instead). s is bounded smoothly to
    [low, high], so that its gradient never dies.
    """

    def __init__(self, width: int, dropout: float = 0.2, low: float = -10.0, high: float = 3.0, start: float = -2.0):
        super().__init__()
        self.drop, self.mean, self.spread = nn.Dropout(dropout), nn.Linear(width, 1), nn.Linear(width, 1)
        self.low, self.high = low, high
        nn.init.xavier_uniform_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)
        nn.init.normal_(self.spread.weight, std=0.01)
        share = (start - low) / (high - low)
        nn.init.constant_(self.spread.bias, math.log(share / (1 - share)))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        x = self.drop(features)
        log_variance = self.low + (self.high - self.low) * torch.sigmoid(self.spread(x)[:, 0])
        variance = log_variance.exp()
        return {"logit": logit_normal(self.mean(x)[:, 0], variance), "aleatoric_variance": variance}


class RadiusHead(nn.Module):
    """A logit, and the natural logarithm of the Einstein radius in arcsec, should the image hold a lens.

    The radius is learned from labelled lenses whose radius is known (`LensFinder(radius_weight=...)`), by a Huber loss.
    """

    def __init__(self, width: int, dropout: float = 0.2):
        super().__init__()
        self.head = LinearHead(width, dropout)
        self.radius = nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, 1))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {**self.head(features), "log_theta_E": self.radius(features)[:, 0]}

    @staticmethod
    def loss(log_radius: Tensor, theta_e: Tensor, known: Tensor) -> Tensor:
        """Mean Huber loss (0.1 dex-like units of ln) over the rows where the radius is known; 0 where none is."""
        target = torch.where(known, theta_e, torch.ones_like(theta_e)).clamp(min=1e-3).log()
        error = F.huber_loss(log_radius.float(), target.float(), reduction="none", delta=0.2)
        return (error * known).sum() / known.sum().clamp(min=1)
