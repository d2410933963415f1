"""A latent that all muons of an event share: what makes them more alike than their condition does.

    p(x_1 … x_N | c) = E_u prod_i p(x_i | c, u),   u ~ N(0, I)

`q(u | x, c)` is a network on sums over the muons (Deep Sets; Zaheer et al. 2017, arXiv 1703.06114). Training maximizes the
evidence lower bound; what is reported is the tighter bound of several weighted draws (Burda et al. 2016, arXiv 1509.00519).
"""

import math

import torch
from torch import Tensor, nn

__all__ = ["EventLatent"]


class EventLatent(nn.Module):
    """q(u | muons, features): normal, with mean and deviation from the event's summed muons; it begins as the prior.

    >>> latent = EventLatent(7)
    >>> latent(torch.zeros(2, 7), torch.zeros(3, 2), torch.tensor([0, 0, 1]))[0].shape
    torch.Size([2, 2])
    """

    def __init__(self, features: int, size: int = 2, hidden: int = 32, draws: int = 8) -> None:
        super().__init__()
        self.size, self.hidden, self.draws = size, hidden, draws
        self.each = nn.Sequential(nn.Linear(2, hidden), nn.ELU(), nn.Linear(hidden, hidden), nn.ELU())
        self.whole = nn.Sequential(nn.Linear(hidden + 1 + features, hidden), nn.ELU(), nn.Linear(hidden, 2 * size))
        nn.init.zeros_(self.whole[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.whole[-1].bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, z: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and ln deviation [B, size] for features [B, C] and standardised muons [M, 2]; the prior for empty events."""
        events = len(features)
        count = torch.zeros(events, device=z.device, dtype=z.dtype).index_add(0, owner, torch.ones_like(z[:, 0]))
        total = z.new_zeros(events, self.hidden).index_add(0, owner, self.each(z))
        mean_of = total / count.clamp(min=1)[:, None]
        mean, log_scale = self.whole(torch.cat([mean_of, torch.log1p(count)[:, None], features], 1)).chunk(2, 1)
        some = (count > 0)[:, None]
        return torch.where(some, mean, 0.0), torch.where(some, log_scale.clamp(-6, 2), 0.0)

    def prior(self, events: int, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """u [B, size]."""
        return torch.randn(events, self.size, generator=generator, device=like.device, dtype=like.dtype)


def divergence(mean: Tensor, log_scale: Tensor) -> Tensor:
    """KL(N(mean, scale^2) || N(0, I)) [B], nats."""
    return (0.5 * (mean.square() + torch.exp(2 * log_scale) - 1) - log_scale).sum(1)


def log_normal(u: Tensor, mean: Tensor | float = 0.0, log_scale: Tensor | float = 0.0) -> Tensor:
    """ln N(u; mean, scale) summed over the last axis."""
    log_scale = torch.as_tensor(log_scale, dtype=u.dtype, device=u.device)
    standard = (u - mean) * torch.exp(-log_scale)
    return (-0.5 * standard.square() - log_scale - 0.5 * math.log(2 * math.pi)).expand_as(u).sum(-1)
