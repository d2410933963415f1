"""Learning from labelled positives and an unlabeled sample."""

from skyloom.pu.batches import Balanced
from skyloom.pu.noisy import nnpu_impure, nnpu_votes
from skyloom.pu.risks import nnpu, pn, prior_shift, upu
from skyloom.pu.scores import auroc_pu, error_pu
from skyloom.pu.settings import prior_of_sample, prior_of_unlabeled
from skyloom.pu.surrogates import focal, log_odds

__all__ = [
    "Balanced",
    "auroc_pu",
    "error_pu",
    "focal",
    "log_odds",
    "nnpu",
    "nnpu_impure",
    "nnpu_votes",
    "pn",
    "prior_of_sample",
    "prior_of_unlabeled",
    "prior_shift",
    "upu",
]
