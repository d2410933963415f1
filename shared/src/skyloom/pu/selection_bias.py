"""Where labelling depends on the features (SAR: at random given the features), as in real catalogues: bright arcs first.

The propensity is e(x) = P(s = 1 | y = 1, x). With it, each labelled row stands for 1/e(x) positives, of which 1/e(x) - 1 are
still among the unlabeled of the same sample (Bekker, Robberechts and Davis 2019, ECML PKDD, arXiv:1809.03207). Without it, if
only the order of P(s = 1 | x) and P(y = 1 | x) agree, a ranking is still right, and a known prior gives its threshold (PUSB:
Kato, Teshima and Honda 2019, ICLR).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from skyloom.errors import ConfigError, DataError
from skyloom.pu.elkan_noto import out_of_fold
from skyloom.pu.risks import checked, kept_from_below
from skyloom.pu.settings import check_prior
from skyloom.pu.surrogates import Surrogate, surrogate_loss
from skyloom.training.whole_step import step_means

__all__ = ["SarEM", "prevalence_threshold", "sar"]


def sar(
    logits: Tensor,
    labels: Tensor,
    propensity: Tensor,
    surrogate: Surrogate = "logistic",
    beta: float = 0.0,
    gamma: float = 1.0,
    smallest: float = 0.01,
    non_negative: bool = True,
) -> dict[str, Tensor]:
    """Propensity-weighted risk of one sample: mean over all rows of s/e l(z, +1) + (1 - s/e) l(z, -1).

    Unbiased for the risk over the population whatever the selection, since E[s/e | x] = P(y = 1 | x). The second term, which a
    flexible network drives below zero, is kept above -beta as in `nnpu` unless `non_negative` is off. Propensities [B] are of
    the labelled rows (others are not read), no smaller than `smallest`: each cut trades variance for bias. Batches must hold
    labelled and unlabeled rows in the proportion of the sample.
    """
    z = checked(logits, labels)
    e = propensity.to(z.dtype)
    s = (labels > 0.5).to(z.dtype)
    if not bool(((e > 0) & (e <= 1))[s > 0].all()):  # NaN is neither
        raise DataError("propensities P(s = 1 | y = 1, x) of labelled rows lie in (0, 1].")
    each = torch.where(s > 0, 1 / e.clamp(min=smallest, max=1.0), torch.zeros_like(e))
    loss = surrogate_loss(surrogate)
    ones = torch.ones_like(z)
    means, _ = step_means(torch.stack([each * loss(z), (1 - each) * loss(-z), each]), torch.stack([ones, ones, ones]))
    if non_negative:
        kept, low = kept_from_below(means[1], beta, gamma)
    else:
        kept, low = means[1], torch.zeros_like(means[1], dtype=torch.bool)
    value = means[0] + kept
    step = torch.where(low, kept, value)
    return {
        "loss": step + (value - step).detach(),
        "risk_p+": means[0].detach(),
        "negative_risk": means[1].detach(),
        "implied_prior": means[2].detach(),  # mean of s/e: the share of positives that the propensities imply
        "clipped": low.to(z.dtype),
    }


def prevalence_threshold(scores_u: np.ndarray, prior: float) -> float:
    """The score above which the share `prior` of the unlabeled lies (PUSB): right wherever the ranking is.

    >>> prevalence_threshold(np.array([0.1, 0.4, 0.2, 0.9]), 0.25)
    0.65
    """
    ordered = np.sort(np.asarray(scores_u, dtype=np.float64))
    if np.isnan(ordered).any():
        raise DataError(f"{int(np.isnan(ordered).sum())} of {len(ordered)} scores are NaN: they have no rank.")
    k = round(check_prior(prior) * len(ordered))
    if not 0 < k < len(ordered):
        raise DataError(f"{len(ordered)} rows cannot tell the upper {prior:.2g} of them.")
    return float(0.5 * (ordered[-k] + ordered[-k - 1]))


@dataclass
class SarEM:
    """Posterior and propensity learned by turns (SAR-EM, Bekker, Robberechts and Davis 2019), for one sample.

    Expectation: for an unlabeled row, P(y = 1 | s = 0, x) = f (1 - e) / (1 - f e). Maximization: `classifier` is fitted to the
    expected classes of all rows; `selector` to s on `columns`, each row weighted by its expectation of being positive.
    The two are told apart only if the propensity depends on fewer or other features than the class, in a simpler way: give
    `columns` (brightness, richness), not everything.

    Args:
        classifier, selector: have fit(x, y, sample_weight) and predict_proba(x)
        columns: features that the propensity depends on
        rounds: of expectation and maximization at most
    """

    classifier: Any
    selector: Any
    columns: list[int]
    rounds: int = 50
    tolerance: float = 1e-4
    seed: int = 0

    def fit(self, x: np.ndarray, s: np.ndarray) -> "SarEM":
        x, s = np.asarray(x, dtype=np.float64), np.asarray(s) > 0.5
        if not self.columns:
            raise ConfigError("SarEM.columns names the features that the propensity depends on; give at least one.")
        g, _ = out_of_fold(self.classifier, x, s, seed=self.seed)
        positive = np.where(s, 1.0, np.clip(g * 2, 0, 0.9))  # a first guess: half of the positives are labelled
        previous = -np.inf
        for round_ in range(1, self.rounds + 1):
            self.rounds_ = round_
            f = self._maximize(x, s, positive)
            e = self.propensity(x)
            likelihood = float(np.log(np.where(s, f * e, 1 - f * e).clip(1e-12)).mean())
            positive = np.where(s, 1.0, f * (1 - e) / np.maximum(1 - f * e, 1e-12))
            if abs(likelihood - previous) < self.tolerance * 1e-2:
                break
            previous = likelihood
        self.likelihood_, self.prior_ = likelihood, float(positive.mean())
        return self

    def _maximize(self, x: np.ndarray, s: np.ndarray, positive: np.ndarray) -> np.ndarray:
        twice = np.concatenate([x, x])
        y = np.r_[np.ones(len(x), int), np.zeros(len(x), int)]
        weights = np.clip(np.r_[positive, 1 - positive], 1e-9, None)
        self.classifier_ = clone(self.classifier).fit(twice, y, sample_weight=weights)
        self.selector_ = clone(self.selector).fit(x[:, self.columns], s.astype(int), sample_weight=positive + 1e-9)
        return self.classifier_.predict_proba(x)[:, 1]

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return self.classifier_.predict_proba(np.asarray(x, dtype=np.float64))

    def propensity(self, x: np.ndarray) -> np.ndarray:
        """P(s = 1 | y = 1, x), clipped away from 0."""
        chosen = np.asarray(x, dtype=np.float64)[:, self.columns]
        return np.clip(self.selector_.predict_proba(chosen)[:, 1], 1e-3, 1.0)
