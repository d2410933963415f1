"""Learning from labelled positives and an unlabeled sample."""

from skyloom.pu.risks import nnpu, pn, prior_shift, upu
from skyloom.pu.scores import auroc_pu, error_pu

__all__ = ["auroc_pu", "error_pu", "nnpu", "pn", "prior_shift", "upu"]
