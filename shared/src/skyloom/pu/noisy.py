"""Non-negative risks where labels are not to be trusted: impure labelled positives, and doubtful votes on the unlabeled.

Both rest on one idea: a sample in which the share t of rows is positive has the risk t R_+ + (1 - t) R_-, so two samples of
known, different shares tell R_+ and R_- (unlabeled-unlabeled learning: Lu et al. 2019, ICLR, arXiv:1808.10585; the partial
risks kept non-negative: Lu et al. 2020, AISTATS, arXiv:1910.08974).
"""

import torch
from torch import Tensor

from skyloom.errors import ConfigError
from skyloom.pu.risks import checked, importances, kept_from_below, terms_of, watched
from skyloom.pu.settings import check_prior
from skyloom.pu.surrogates import Surrogate, surrogate_loss
from skyloom.training.whole_step import step_means

__all__ = ["nnpu_impure", "nnpu_votes", "share_given_vote"]


def nnpu_impure(
    logits: Tensor,
    labels: Tensor,
    prior: float,
    purity: float,
    surrogate: Surrogate = "sigmoid",
    beta: float = 0.0,
    gamma: float = 1.0,
    target_prior: float | None = None,
) -> dict[str, Tensor]:
    """Non-negative risk where only the share `purity` t of the labelled is truly positive (two samples).

    P = t p + (1 - t) n and U = pi p + (1 - pi) n give p = [(1 - pi) P - (1 - t) U] / (t - pi), n = [t U - pi P] / (t - pi):

        pi R_+ = pi [(1 - pi) R_P+ - (1 - t) R_U+] / (t - pi),    (1 - pi) R_- = (1 - pi) [t R_U- - pi R_P-] / (t - pi),

    each kept above -beta as in `nnpu`, with a step on -gamma times the offender alone. Purity 1 is nnPU.
    Grade C candidates in a lens catalogue are of this kind.
    """
    z = checked(logits, labels)
    on_p, on_n = importances(check_prior(prior), target_prior)
    if not prior < purity <= 1:
        raise ConfigError(f"the purity of the labelled must lie in (prior, 1] = ({prior}, 1], not at {purity}.")
    loss = surrogate_loss(surrogate)
    terms = terms_of(z, labels, surrogate)
    u = (labels <= 0.5).to(z.dtype)[None]
    u_plus = step_means(loss(z)[None], u)[0][0]
    some_p, some_u = terms.both | ~terms.any_u, terms.any_u  # what is told of a sample that the step lacks is nothing
    positive = on_p * ((1 - prior) * terms.positive - (1 - purity) * u_plus * some_p) / (purity - prior)
    negative = on_n * (1 - prior) * (purity * terms.u_minus - prior * terms.p_minus * some_u) / (purity - prior)
    kept_p, low_p = kept_from_below(positive, beta, gamma, terms.both)
    kept_n, low_n = kept_from_below(negative, beta, gamma, terms.both)
    low = low_p | low_n
    step = torch.where(low, kept_p * low_p + kept_n * low_n, kept_p + kept_n)
    value = kept_p + kept_n
    return {"loss": step + (value - step).detach(), **watched(terms, negative), "clipped": low.to(z.dtype)}


def share_given_vote(prior: float, missed: float, invented: float) -> tuple[float, float]:
    """Shares of positives among the unlabeled that a doubtful vote calls negative, and positive (Bayes).

    `missed` = P(vote 0 | positive), `invented` = P(vote 1 | negative).

    >>> [round(t, 4) for t in share_given_vote(0.1, missed=0.2, invented=0.05)]
    [0.0229, 0.64]
    """
    if not (0 <= missed < 1 and 0 <= invented < 1 and missed + invented < 1):
        raise ConfigError(f"votes must beat chance: missed + invented < 1, not {missed} + {invented}.")
    no, yes = prior * missed + (1 - prior) * (1 - invented), prior * (1 - missed) + (1 - prior) * invented
    return prior * missed / no, (prior * (1 - missed) / yes if yes > 0 else 0.0)


def nnpu_votes(
    logits: Tensor,
    labels: Tensor,
    votes: Tensor,
    prior: float,
    missed: float,
    invented: float,
    surrogate: Surrogate = "sigmoid",
    beta: float = 0.0,
    gamma: float = 1.0,
    target_prior: float | None = None,
) -> dict[str, Tensor]:
    """Non-negative risk where the unlabeled carry votes 0 or 1 with known error rates, alike for all rows of a class.

    The unlabeled of vote k hold the share t_k of positives (`share_given_vote`), so each group gives an unbiased
    R_N- = (R_k- - t_k R_P-) / (1 - t_k), which must not be negative. They are averaged with weights n_k (1 - t_k)^2, their
    inverse variances up to a constant: rows voted negative are nearly negatives, and need nearly no correction. P is clean.
    Citizen votes and weak catalogues are of this kind; votes no better than chance would give nnPU back.
    """
    z = checked(logits, labels)
    on_p, on_n = importances(check_prior(prior), target_prior)
    loss = surrogate_loss(surrogate)
    p, yes = (labels > 0.5).to(z.dtype), (votes > 0.5).to(z.dtype)
    groups = torch.stack([(1 - p) * (1 - yes), (1 - p) * yes])
    against = loss(-z)
    means, counts = step_means(torch.stack([loss(z), against, against, against]), torch.stack([p, p, *groups]))
    shares = torch.tensor(share_given_vote(check_prior(prior), missed, invented), dtype=z.dtype, device=z.device)
    inverse_variances = counts[2:] * (1 - shares) ** 2
    weights = counts[2:] * (1 - shares) / inverse_variances.sum().clamp(min=1e-12)  # 0 of a group of positives alone
    parts = on_n * (1 - prior) * weights * (means[2:] - shares * means[1])
    kept, low = kept_from_below(parts, beta, gamma, (counts[0] > 0) & (counts[2:] > 0))
    positive = on_p * means[0]
    value = positive + kept.sum()
    step = torch.where(low.any(), (kept * low).sum(), value)
    return {
        "loss": step + (value - step).detach(),
        "risk_p+": means[0].detach(),
        "risk_p-": means[1].detach(),
        "negative_risk": parts.sum().detach(),
        "clipped": low.any().to(z.dtype),
    }
