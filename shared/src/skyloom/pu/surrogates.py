"""Surrogates of the 0-1 loss on a logit: l(z, +1); of the other class l(z, -1) = l(-z, +1).

| name | l(z, +1) | minimizer over a population |
|---|---|---|
| logistic | log(1 + exp(-z)) | the log odds |
| sigmoid | 1 / (1 + exp(z)) | only their sign (bounded, so forgiving of outliers and of wrong priors) |
| focal | (1 - s(z))^gamma log(1 + exp(-z)) | an increasing function of the log odds (`log_odds` inverts it) |

s is the logistic function; the focal loss is of Lin et al. (2017, arXiv:1708.02002).
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from skyloom.errors import ConfigError, nearest

__all__ = ["Surrogate", "focal", "log_odds", "surrogate_loss"]

Loss = Callable[[Tensor], Tensor]
Surrogate = Literal["sigmoid", "logistic", "focal"] | Loss


def _focal(z: Tensor, gamma: float) -> Tensor:
    return torch.exp(-gamma * softplus(z)) * softplus(-z)


def focal(gamma: float = 2.0) -> Loss:
    """The focal loss l(z, +1) = (1 - s(z))^gamma (-log s(z)); gamma = 0 is the logistic loss.

    >>> float(focal(0.0)(torch.tensor(0.0)))
    0.6931471824645996
    """
    if gamma < 0:
        raise ConfigError(f"the exponent gamma of the focal loss is not negative, but {gamma} was given.")
    return partial(_focal, gamma=gamma)


_NAMED: dict[str, Loss] = {
    "sigmoid": lambda z: torch.sigmoid(-z),
    "logistic": lambda z: softplus(-z),
    "focal": focal(2.0),
}


def surrogate_loss(surrogate: Surrogate) -> Loss:
    """l(z, +1) of a surrogate named, or the function given."""
    if callable(surrogate):
        return surrogate
    if surrogate not in _NAMED:
        raise ConfigError(f"there is no surrogate loss {surrogate!r}.{nearest(surrogate, _NAMED)}")
    return _NAMED[surrogate]


def log_odds(z: Tensor, gamma: float) -> Tensor:
    """The log odds that a logit trained with the focal loss stands for: log l'(-z) - log l'(z).

    At the minimum of eta l(z) + (1 - eta) l(-z) the odds eta / (1 - eta) are l'(-z) / l'(z); for the focal loss
    -l'(z) = (1 - p)^gamma [(1 - p) - gamma p log p], p = s(z) (Charoenphakdee et al. 2021, arXiv:2011.09172). A focal logit
    read as log odds is too close to zero.

    >>> log_odds(torch.tensor([0.0, 1.0], dtype=torch.float64), gamma=0.0).round(decimals=12).tolist()
    [0.0, 1.0]
    """

    def log_slope(v: Tensor) -> Tensor:  # ln(-l') = (1 + gamma) ln q + ln(1 - gamma p ln p / q); -ln p / q is 1 where q is 0
        tail = torch.where(v > 15, 1.0, softplus(-v) / torch.sigmoid(-v.clamp(max=15)))
        return (1 + gamma) * logsigmoid(-v) + torch.log1p(gamma * torch.sigmoid(v) * tail)

    return log_slope(-z) - log_slope(z)
