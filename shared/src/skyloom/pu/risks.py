"""Risks of a binary classifier estimated from labelled positives P and unlabeled samples U, on logits.

The setting is that of two samples (case-control): P is drawn from the positives, U from the whole population, in which the
share of positives is the class prior pi. With a surrogate l(z, +-1),

    R_P+ = mean over P of l(z, +1),   R_P- = mean over P of l(z, -1),   R_U- = mean over U of l(z, -1),

the risk of a classifier over the population is pi R_P+ + (1 - pi) R_N-, and since U is a mixture,
(1 - pi) R_N- = R_U- - pi R_P- on average (du Plessis, Niu and Sugiyama 2015). A flexible network drives that difference
below zero, which no risk can be; the non-negative estimator stops it there (Kiryo, Niu, du Plessis and Sugiyama 2017, NeurIPS,
arXiv:1703.00593).

Every function returns `{"loss": what to minimize, **terms to watch}`. The mean over P and over U is taken within a batch,
which may hold them in any proportion; how often P turns up in batches does not change the risk.

At a small prior almost all of the risk is about negatives, and networks settle on "nothing is positive". `target_prior` pi'
asks for the risk over a population with the share pi' of positives instead, pi' R_P+ + (1 - pi')/(1 - pi) [R_U- - pi R_P-]
(Su, Chen and Xu 2021, IJCAI, doi:10.24963/ijcai.2021/412). With the logistic surrogate the logits are then those at prior pi';
`prior_shift` takes them to pi.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from skyloom.errors import ConfigError, nearest

__all__ = ["Surrogate", "nnpu", "pn", "prior_shift", "upu"]

Surrogate = Literal["sigmoid", "logistic"]

# l(z, +1) of each surrogate; l(z, -1) = l(-z, +1).
_SURROGATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda z: torch.sigmoid(-z),
    "logistic": lambda z: softplus(-z),
}


def _loss(name: str) -> Callable[[Tensor], Tensor]:
    if name not in _SURROGATES:
        raise ConfigError(f"there is no surrogate loss {name!r}.{nearest(name, _SURROGATES)}")
    return _SURROGATES[name]


def _weights(prior: float, target_prior: float | None) -> tuple[float, float]:
    """The weights of R_P+ and of (1 - pi) R_N- in the risk at the target prior."""
    if target_prior is None:
        return prior, 1.0
    if not 0 < target_prior < 1:
        raise ConfigError(f"the target prior lies in (0, 1), not at {target_prior}.")
    return target_prior, (1 - target_prior) / (1 - prior)


def prior_shift(prior: float, target_prior: float | None) -> float:
    """What to add to logits learned at the target prior to have those at the prior: logit(pi) - logit(pi').

    >>> round(prior_shift(0.1, 0.5), 4), prior_shift(0.1, None)
    (-2.1972, 0.0)
    """
    if target_prior is None:
        return 0.0
    return math.log(prior / (1 - prior)) - math.log(target_prior / (1 - target_prior))


def _check(logits: Tensor, labels: Tensor, prior: float) -> None:
    if logits.shape != labels.shape or logits.ndim != 1:
        raise ValueError(f"logits and labels must both be [B], not {list(logits.shape)} and {list(labels.shape)}.")
    if not 0 < prior < 1:
        raise ConfigError(f"the class prior is the share of positives among the unlabeled, in (0, 1), not {prior}.")


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean over the chosen rows; 0 where there are none."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


def _terms(logits: Tensor, labelled: Tensor, surrogate: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """R_P+, R_P-, R_U- and whether the batch holds any P, any U. In float32 at least: differences of means cancel."""
    z = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    loss = _loss(surrogate)
    p = (labelled > 0.5).to(z.dtype)
    u = 1 - p
    return _mean(loss(z), p), _mean(loss(-z), p), _mean(loss(-z), u), p.sum() > 0, u.sum() > 0


def pn(
    logits: Tensor, labels: Tensor, prior: float, surrogate: Surrogate = "logistic", target_prior: float | None = None
) -> dict[str, Tensor]:
    """Supervised risk pi R_P+ + (1 - pi) R_N-, for labels 1 (positive) and 0 (negative) in any proportion."""
    _check(logits, labels, prior)
    on_p, on_n = _weights(prior, target_prior)
    positive, _, negative, _, _ = _terms(logits, labels, surrogate)
    loss = on_p * positive + on_n * (1 - prior) * negative
    return {"loss": loss, "risk_p+": positive.detach(), "risk_n-": negative.detach()}


def upu(
    logits: Tensor, labels: Tensor, prior: float, surrogate: Surrogate = "logistic", target_prior: float | None = None
) -> dict[str, Tensor]:
    """Unbiased risk pi R_P+ + R_U- - pi R_P-, for labels 1 (labelled positive) and 0 (unlabeled). It may turn negative."""
    _check(logits, labels, prior)
    on_p, on_n = _weights(prior, target_prior)
    positive, p_minus, u_minus, _, _ = _terms(logits, labels, surrogate)
    loss = on_p * positive + on_n * (u_minus - prior * p_minus)
    return {"loss": loss, "risk_p+": positive.detach(), "risk_u-": u_minus.detach(), "risk_p-": p_minus.detach()}


def nnpu(
    logits: Tensor,
    labels: Tensor,
    prior: float,
    surrogate: Surrogate = "sigmoid",
    beta: float = 0.0,
    gamma: float = 1.0,
    target_prior: float | None = None,
) -> dict[str, Tensor]:
    """Non-negative risk pi R_P+ + max(0, r), r = R_U- - pi R_P-, with the step of Algorithm 1 of Kiryo et al. (2017).

    Where r >= -beta the gradient is that of pi R_P+ + r. Where r < -beta it is that of -gamma r alone: the positive risk is
    left out of the step, which climbs out of the overfitted region; automatic differentiation of max(0, r) would do something
    else. The value is pi R_P+ + max(r, -beta) throughout.

    A batch without unlabeled rows has no r: its step is on pi R_P+. A batch without labelled rows steps on R_U-.

    >>> z = torch.tensor([4.0, -4.0], requires_grad=True)     # one labelled, one unlabeled, both fitted by heart
    >>> terms = nnpu(z, torch.tensor([1, 0]), prior=0.5)
    >>> terms["clipped"].item(), round(terms["negative_risk"].item(), 4)
    (1.0, -0.473)
    """
    _check(logits, labels, prior)
    on_p, on_n = _weights(prior, target_prior)
    positive, p_minus, u_minus, any_p, any_u = _terms(logits, labels, surrogate)
    negative = torch.where(any_u, u_minus - prior * p_minus, torch.zeros_like(u_minus))
    clipped = any_p & any_u & (negative < -beta)
    step = torch.where(clipped, -gamma * on_n * negative, on_p * positive + on_n * negative)
    value = on_p * positive + on_n * negative.clamp(min=-beta)
    return {
        "loss": step + (value - step).detach(),
        "risk_p+": positive.detach(),
        "risk_u-": u_minus.detach(),
        "risk_p-": p_minus.detach(),
        "negative_risk": negative.detach(),
        "clipped": clipped.to(positive.dtype),
    }
