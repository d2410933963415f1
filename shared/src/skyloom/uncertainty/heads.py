"""Networks that say how noisy their labels are: logits with a variance, evidence for each class, means with a variance.

All of them return what a loss and a probability are made of; the losses are means over rows, in float32 or better.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

__all__ = [
    "DirichletHead",
    "HeteroscedasticHead",
    "beta_nll",
    "dirichlet_loss",
    "dirichlet_uncertainty",
    "heteroscedastic_loss",
    "heteroscedastic_probability",
]


class HeteroscedasticHead(nn.Module):
    """Features [B, F] to the mean and the log-variance of a logit, both [B] (Kendall and Gal 2017, arXiv:1703.04977).

    >>> mean, log_variance = HeteroscedasticHead(8)(torch.zeros(5, 8))
    >>> mean.shape, log_variance[0].item()
    (torch.Size([5]), -2.0)
    """

    def __init__(self, features: int, *, initial: float = -2.0, bounds: tuple[float, float] = (-10.0, 2.0)):
        super().__init__()
        self.linear = nn.Linear(features, 2)
        self.bounds = bounds
        with torch.no_grad():
            self.linear.weight[1].zero_()
            self.linear.bias.copy_(torch.tensor([0.0, initial]))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.linear(features).unbind(-1)
        return mean, log_variance.clamp(*self.bounds)


def heteroscedastic_loss(
    mean: Tensor, log_variance: Tensor, labels: Tensor, *, samples: int = 32, generator: torch.Generator | None = None
) -> Tensor:
    """-ln mean_t sigma(+-z_t), z_t = mu + exp(s/2) eps_t: the negative log-likelihood of the expected probability.

    By log-sum-exp over antithetic draws (eps and -eps), so it is finite at any logit. The mean of the losses over draws,
    which is larger, would reward v = 0 always.
    """
    mu, s = mean.float(), log_variance.float()
    half = torch.randn(max(samples // 2, 1), *mu.shape, generator=generator, device=mu.device)
    z = mu + (0.5 * s).exp() * torch.cat([half, -half])
    sign = 2 * labels.float() - 1
    return (math.log(len(z)) - torch.logsumexp(-softplus(-sign * z), dim=0)).mean()


def heteroscedastic_probability(mean: Tensor, log_variance: Tensor) -> Tensor:
    """E sigma(z), z ~ N(mu, v), as sigma(mu/sqrt(1 + pi v/8)) (MacKay 1992).

    >>> round(heteroscedastic_probability(torch.tensor(2.0), torch.tensor(0.5).log()).item(), 4)
    0.8616
    """
    return torch.sigmoid(mean / torch.sqrt(1 + math.pi / 8 * log_variance.exp()))


class DirichletHead(nn.Module):
    """Features [B, F] to the concentrations alpha = 1 + evidence [B, classes] of a Dirichlet over class probabilities
    (Sensoy, Kaplan and Kandemir 2018, arXiv:1806.01768)."""

    def __init__(self, features: int, classes: int = 2):
        super().__init__()
        self.linear = nn.Linear(features, classes)

    def forward(self, features: Tensor) -> Tensor:
        return 1 + softplus(self.linear(features).float())


def dirichlet_loss(alpha: Tensor, labels: Tensor, *, regularization: float = 0.0) -> Tensor:
    """Expected squared error under the Dirichlet plus `regularization` times KL to the flat one, of evidence for wrong classes:

        sum_k (y_k - a_k/S)^2 + a_k (S - a_k)/(S^2 (S + 1)) + lambda KL(Dir(y + (1 - y) a) || Dir(1)),   S = sum a.

    Sensoy et al. raise lambda from 0 to 1 over the first ten epochs.
    """
    a, classes = alpha.float(), alpha.shape[-1]
    y = nn.functional.one_hot(labels.long(), classes).float()
    total = a.sum(-1, keepdim=True)
    p = a / total
    loss = ((y - p) ** 2 + p * (1 - p) / (total + 1)).sum(-1)
    if regularization:
        loss = loss + regularization * _divergence_from_flat(y + (1 - y) * a)
    return loss.mean()


def _divergence_from_flat(a: Tensor) -> Tensor:
    """KL(Dir(a) || Dir(1, ..., 1)) = ln G(S) - ln G(K) - sum ln G(a_k) + sum (a_k - 1)(psi(a_k) - psi(S))."""
    total = a.sum(-1)
    inner = ((a - 1) * (torch.digamma(a) - torch.digamma(total)[..., None])).sum(-1)
    return torch.lgamma(total) - math.lgamma(a.shape[-1]) - torch.lgamma(a).sum(-1) + inner


def dirichlet_uncertainty(alpha: Tensor) -> dict[str, Tensor]:
    """Mean probabilities [B, K], vacuity K/S, and the entropy split: H(mean p) = E H(p) + mutual information [B] (Malinin and
    Gales 2018, arXiv:1802.10501), with E H(p) = -sum_k a_k/S (psi(a_k + 1) - psi(S + 1)).

    The evidence of one network is what its loss made it: read vacuity as a score, not as a posterior.
    """
    a = alpha.double()
    total = a.sum(-1, keepdim=True)
    p = a / total
    entropy = -(p * p.log()).sum(-1)
    expected = -(p * (torch.digamma(a + 1) - torch.digamma(total + 1))).sum(-1)
    return {
        "probability": p,
        "vacuity": a.shape[-1] / total[..., 0],
        "predictive_entropy": entropy,
        "expected_entropy": expected,
        "mutual_information": (entropy - expected).clamp(min=0),
    }


def beta_nll(mean: Tensor, log_variance: Tensor, target: Tensor, beta: float = 0.5) -> Tensor:
    """mean of [v^beta]_stopped * (ln v + (y - mu)^2/v)/2, v = exp(log_variance) (Seitzer et al. 2022, arXiv:2203.09168).

    Plus ln v: a larger variance must cost. beta = 0 is the Gaussian negative log-likelihood, whose gradient in mu fades as 1/v,
    so that points fitted badly are given up; at beta = 1 the gradient in mu is that of the squared error.

    >>> mu = torch.zeros(1, requires_grad=True)
    >>> beta_nll(mu, torch.tensor([2.0]), torch.ones(1), beta=1.0).backward()
    >>> round(mu.grad.item(), 6)  # mu - y, whatever the variance is
    -1.0
    """
    kind = torch.promote_types(mean.dtype, torch.float32)
    mean, log_variance, target = mean.to(kind), log_variance.to(kind), target.to(kind)
    variance = log_variance.exp()
    loss = 0.5 * (log_variance + (target - mean) ** 2 / variance)
    return (variance.detach() ** beta * loss).mean()
