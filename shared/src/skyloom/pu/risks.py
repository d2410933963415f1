"""Risks of a binary classifier estimated from labelled positives P and unlabeled samples U, on logits.

With a surrogate l(z, +-1),

    R_P+ = mean over P of l(z, +1),   R_P- = mean over P of l(z, -1),   R_U- = mean over U of l(z, -1),

the risk of a classifier over the population is pi R_P+ + (1 - pi) R_N-, pi the class prior. In the setting of two samples
(`skyloom.pu.settings`) U is a mixture, so (1 - pi) R_N- = R_U- - pi R_P- on average (du Plessis, Niu and Sugiyama 2015). In
that of one sample, of which the share a is labelled, (1 - pi) R_N- = (1 - a) R_U- - (pi - a) R_P-. A flexible network drives
the difference below zero, which no risk can be; the non-negative estimator stops it there (Kiryo, Niu, du Plessis and Sugiyama
2017, NeurIPS, arXiv:1703.00593).

Every function returns `{"loss": what to minimize, **terms to watch}`. The means are those of the whole optimizer step, over all
processes and accumulated parts (`skyloom.training.whole_step`), and the sign of the negative risk is decided there, once; P and
U may stand in any proportion, and how often P turns up in batches does not change the risk.

At a small prior almost all of the risk is about negatives, and networks settle on "nothing is positive". `target_prior` pi'
asks for the risk over a population with the share pi' of positives instead, pi' R_P+ + (1 - pi')/(1 - pi) [R_U- - pi R_P-]
(imbalanced nnPU: Su, Chen and Xu 2021, IJCAI, doi:10.24963/ijcai.2021/412). With the logistic surrogate the logits are then
those at prior pi'; `prior_shift` takes them to pi.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from skyloom.calibration.calibrator import shift_prevalence
from skyloom.errors import ConfigError
from skyloom.pu.settings import check_prior, check_share
from skyloom.pu.surrogates import Surrogate, surrogate_loss
from skyloom.training.whole_step import step_means

__all__ = ["Surrogate", "nnpu", "pn", "prior_shift", "upu"]


def prior_shift(prior: float, target_prior: float | None) -> float:
    """What to add to logits learned at the target prior to have those at the prior: logit(pi) - logit(pi'), the shift of
    `skyloom.calibration.shift_prevalence`.

    >>> round(prior_shift(0.1, 0.5), 4), prior_shift(0.1, None)
    (-2.1972, 0.0)
    """
    if target_prior is None:
        return 0.0
    return float(shift_prevalence(0.0, target_prior, prior))


def importances(prior: float, target_prior: float | None) -> tuple[float, float]:
    """The weights of R_P+ and of (1 - pi) R_N- in the risk at the target prior."""
    if target_prior is None:
        return prior, 1.0
    if not 0 < target_prior < 1:
        raise ConfigError(f"the target prior lies in (0, 1), not at {target_prior}.")
    return target_prior, (1 - target_prior) / (1 - prior)


def checked(logits: Tensor, labels: Tensor) -> Tensor:
    """The logits, in float32 at least: differences of means cancel."""
    if logits.shape != labels.shape or logits.ndim != 1:
        raise ValueError(f"logits and labels must both be [B], not {list(logits.shape)} and {list(labels.shape)}.")
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def kept_from_below(risk: Tensor, beta: float, gamma: float, apply: Tensor | bool = True) -> tuple[Tensor, Tensor]:
    """max(risk, -beta) with the rule of Kiryo et al. for its step, -gamma risk where risk < -beta; and whether it applied."""
    low = (risk < -beta) & apply
    step = torch.where(low, -gamma * risk, risk)
    return step + (risk.clamp(min=-beta) - step).detach(), low


class Terms(NamedTuple):
    positive: Tensor  # R_P+
    p_minus: Tensor  # R_P-
    u_minus: Tensor  # R_U-, or R_N- where the rest is negative
    both: Tensor  # whether the step holds both P and U
    any_u: Tensor


def terms_of(z: Tensor, labelled: Tensor, surrogate: Surrogate) -> Terms:
    """The three risks over the whole step, and what it holds."""
    loss = surrogate_loss(surrogate)
    p = (labelled > 0.5).to(z.dtype)
    against = loss(-z)
    means, counts = step_means(torch.stack([loss(z), against, against]), torch.stack([p, p, 1 - p]))
    return Terms(means[0], means[1], means[2], (counts[0] > 0) & (counts[2] > 0), counts[2] > 0)


def pn(
    logits: Tensor, labels: Tensor, prior: float, surrogate: Surrogate = "logistic", target_prior: float | None = None
) -> dict[str, Tensor]:
    """Supervised risk pi R_P+ + (1 - pi) R_N-, for labels 1 (positive) and 0 (negative) in any proportion."""
    z = checked(logits, labels)
    on_p, on_n = importances(check_prior(prior), target_prior)
    terms = terms_of(z, labels, surrogate)
    loss = on_p * terms.positive + on_n * (1 - prior) * terms.u_minus
    return {"loss": loss, "risk_p+": terms.positive.detach(), "risk_n-": terms.u_minus.detach()}


def upu(
    logits: Tensor,
    labels: Tensor,
    prior: float,
    surrogate: Surrogate = "logistic",
    target_prior: float | None = None,
    labelled_share: float | None = None,
) -> dict[str, Tensor]:
    """Unbiased risk pi R_P+ + R_U- - pi R_P-, for labels 1 (labelled positive) and 0 (unlabeled). It may turn negative.

    With a `labelled_share` a the setting is that of one sample: pi R_P+ + (1 - a) R_U- - (pi - a) R_P-.
    """
    z = checked(logits, labels)
    on_p, on_n = importances(check_prior(prior), target_prior)
    a = check_share(prior, labelled_share)
    terms = terms_of(z, labels, surrogate)
    negative = (1 - a) * terms.u_minus - (prior - a) * terms.p_minus
    return {"loss": on_p * terms.positive + on_n * negative, **watched(terms, negative)}


def nnpu(
    logits: Tensor,
    labels: Tensor,
    prior: float,
    surrogate: Surrogate = "sigmoid",
    beta: float = 0.0,
    gamma: float = 1.0,
    target_prior: float | None = None,
    labelled_share: float | None = None,
) -> dict[str, Tensor]:
    """Non-negative risk pi R_P+ + max(0, r), r = R_U- - pi R_P-, with the step of Algorithm 1 of Kiryo et al. (2017).

    Where r >= -beta the gradient is that of pi R_P+ + r. Where r < -beta it is that of -gamma r alone: the positive risk is
    left out of the step, which climbs out of the overfitted region; automatic differentiation of max(0, r) would do something
    else. The value is pi R_P+ + max(r, -beta) throughout. With a `labelled_share` a, r = (1 - a) R_U- - (pi - a) R_P-.

    A step without unlabeled rows has no r: it is on pi R_P+. One without labelled rows is on R_U-.

    >>> z = torch.tensor([4.0, -4.0], requires_grad=True)     # one labelled, one unlabeled, both fitted by heart
    >>> terms = nnpu(z, torch.tensor([1, 0]), prior=0.5)
    >>> terms["clipped"].item(), round(terms["negative_risk"].item(), 4)
    (1.0, -0.473)
    """
    z = checked(logits, labels)
    on_p, on_n = importances(check_prior(prior), target_prior)
    a = check_share(prior, labelled_share)
    terms = terms_of(z, labels, surrogate)
    negative = (1 - a) * terms.u_minus - (prior - a) * terms.p_minus
    negative = torch.where(terms.any_u, negative, torch.zeros_like(negative))
    kept, clipped = kept_from_below(negative, beta, gamma, terms.both)
    on_positive = on_p * terms.positive
    step = torch.where(clipped, on_n * kept, on_positive + on_n * kept)
    value = on_positive + on_n * kept
    return {
        "loss": step + (value - step).detach(),
        **watched(terms, negative),
        "clipped": clipped.to(z.dtype),
    }


def watched(terms: Terms, negative: Tensor) -> dict[str, Tensor]:
    return {
        "risk_p+": terms.positive.detach(),
        "risk_u-": terms.u_minus.detach(),
        "risk_p-": terms.p_minus.detach(),
        "negative_risk": negative.detach(),
    }
