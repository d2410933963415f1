"""Learning from labelled positives and an unlabeled sample.

| what | where |
|---|---|
| risks on logits: pn, upu, nnpu (also balanced; of one or two samples), impure labels, doubtful votes | risks, noisy |
| where labels depend on features: sar, SarEM, prevalence_threshold | selection_bias |
| batches with a fixed number of labelled rows | batches |
| Elkan and Noto around any classifier | elkan_noto |
| the class prior: external, best_bin, dedpul, alpha_max, kernel_mean, tree_induction | class_prior and others |
| metrics, bounds and choice of model without negatives | scores, evaluation |
| what the terms of a risk say | monitors |
"""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from skyloom.pu.batches import Balanced, BalancedOrder
    from skyloom.pu.class_prior import ClassPrior, PriorRefused, external_prior
    from skyloom.pu.densities import alpha_max, dedpul
    from skyloom.pu.elkan_noto import ElkanNoto, label_frequencies, label_frequency, out_of_fold
    from skyloom.pu.embedding import kernel_mean
    from skyloom.pu.evaluation import average_precision_pu, choose, operating_point, unidentified
    from skyloom.pu.monitors import advice
    from skyloom.pu.noisy import nnpu_impure, nnpu_votes
    from skyloom.pu.risks import nnpu, pn, prior_shift, upu
    from skyloom.pu.scores import auroc_pu, error_pu
    from skyloom.pu.selection_bias import SarEM, prevalence_threshold, sar
    from skyloom.pu.settings import prior_of_sample, prior_of_unlabeled
    from skyloom.pu.surrogates import focal, log_odds
    from skyloom.pu.tails import best_bin
    from skyloom.pu.trees import tree_induction

_HOME = {
    "Balanced": "batches",
    "BalancedOrder": "batches",
    "ClassPrior": "class_prior",
    "ElkanNoto": "elkan_noto",
    "PriorRefused": "class_prior",
    "SarEM": "selection_bias",
    "advice": "monitors",
    "alpha_max": "densities",
    "auroc_pu": "scores",
    "average_precision_pu": "evaluation",
    "best_bin": "tails",
    "choose": "evaluation",
    "dedpul": "densities",
    "error_pu": "scores",
    "external_prior": "class_prior",
    "focal": "surrogates",
    "kernel_mean": "embedding",
    "label_frequencies": "elkan_noto",
    "label_frequency": "elkan_noto",
    "log_odds": "surrogates",
    "nnpu": "risks",
    "nnpu_impure": "noisy",
    "nnpu_votes": "noisy",
    "operating_point": "evaluation",
    "out_of_fold": "elkan_noto",
    "pn": "risks",
    "prevalence_threshold": "selection_bias",
    "prior_of_sample": "settings",
    "prior_of_unlabeled": "settings",
    "prior_shift": "risks",
    "sar": "selection_bias",
    "tree_induction": "trees",
    "unidentified": "evaluation",
    "upu": "risks",
}

__getattr__, __dir__ = lazily(__name__, _HOME)

__all__ = [
    "Balanced",
    "BalancedOrder",
    "ClassPrior",
    "ElkanNoto",
    "PriorRefused",
    "SarEM",
    "advice",
    "alpha_max",
    "auroc_pu",
    "average_precision_pu",
    "best_bin",
    "choose",
    "dedpul",
    "error_pu",
    "external_prior",
    "focal",
    "kernel_mean",
    "label_frequencies",
    "label_frequency",
    "log_odds",
    "nnpu",
    "nnpu_impure",
    "nnpu_votes",
    "operating_point",
    "out_of_fold",
    "pn",
    "prevalence_threshold",
    "prior_of_sample",
    "prior_of_unlabeled",
    "prior_shift",
    "sar",
    "tree_induction",
    "unidentified",
    "upu",
]
