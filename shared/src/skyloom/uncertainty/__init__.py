"""What a forecast does not know, where it comes from, and what to do about it.

>>> import numpy as np
>>> from skyloom.uncertainty import mutual_information, predictive_entropy
>>> members = np.log([[1 / 9, 1.0], [9.0, 1.0]])  # two members, two rows: one in dispute, one a coin for both
>>> predictive_entropy(members).round(3), mutual_information(members).round(3)
(array([0.693, 0.693]), array([0.368, 0.   ]))
"""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from skyloom.uncertainty.acquisition import (
        Pool,
        Rule,
        balanced,
        bald,
        batch_bald,
        clustered,
        core_set,
        interleaved,
        least_certain,
        most_likely,
        random_rows,
        within_budget,
    )
    from skyloom.uncertainty.dropout import dropout_only, last_layer_moments, mc_dropout
    from skyloom.uncertainty.fusion import (
        Fused,
        fit_trust,
        fit_variance_scale,
        fixed_effects,
        linear_pool,
        log_pool,
        logit_interval,
        logit_normal_mean,
        mixture_variance,
        random_effects,
        vote_share,
    )
    from skyloom.uncertainty.heads import (
        DirichletHead,
        HeteroscedasticHead,
        beta_nll,
        dirichlet_loss,
        dirichlet_uncertainty,
        heteroscedastic_loss,
        heteroscedastic_probability,
    )
    from skyloom.uncertainty.labelling import LabellingCurve, bootstrap_members, labelling_curves
    from skyloom.uncertainty.members import (
        disagreement,
        expected_entropy,
        member_columns,
        mutual_information,
        pairwise_kl,
        predictive_entropy,
        variance_split,
        vote_entropy,
    )
    from skyloom.uncertainty.novelty import Mahalanobis, energy
    from skyloom.uncertainty.selective import RiskCoverage, coverage_at_risk, risk_coverage
    from skyloom.uncertainty.stacking import Stack, nested_stack, out_of_fold_logits

_FILES = {
    "acquisition": "Pool Rule balanced bald batch_bald clustered core_set interleaved least_certain most_likely "
    "random_rows within_budget",
    "dropout": "dropout_only last_layer_moments mc_dropout",
    "fusion": "Fused fit_trust fit_variance_scale fixed_effects linear_pool log_pool logit_interval "
    "logit_normal_mean mixture_variance random_effects vote_share",
    "heads": "DirichletHead HeteroscedasticHead beta_nll dirichlet_loss dirichlet_uncertainty heteroscedastic_loss "
    "heteroscedastic_probability",
    "labelling": "LabellingCurve bootstrap_members labelling_curves",
    "members": "disagreement expected_entropy member_columns mutual_information pairwise_kl predictive_entropy "
    "variance_split vote_entropy",
    "novelty": "Mahalanobis energy",
    "selective": "RiskCoverage coverage_at_risk risk_coverage",
    "stacking": "Stack nested_stack out_of_fold_logits",
}
_HOME = {name: file for file, names in _FILES.items() for name in names.split()}

__all__ = [
    "DirichletHead",
    "Fused",
    "HeteroscedasticHead",
    "LabellingCurve",
    "Mahalanobis",
    "Pool",
    "RiskCoverage",
    "Rule",
    "Stack",
    "balanced",
    "bald",
    "batch_bald",
    "beta_nll",
    "bootstrap_members",
    "clustered",
    "core_set",
    "coverage_at_risk",
    "dirichlet_loss",
    "dirichlet_uncertainty",
    "disagreement",
    "dropout_only",
    "energy",
    "expected_entropy",
    "fit_trust",
    "fit_variance_scale",
    "fixed_effects",
    "heteroscedastic_loss",
    "heteroscedastic_probability",
    "interleaved",
    "labelling_curves",
    "last_layer_moments",
    "least_certain",
    "linear_pool",
    "log_pool",
    "logit_interval",
    "logit_normal_mean",
    "mc_dropout",
    "member_columns",
    "mixture_variance",
    "most_likely",
    "mutual_information",
    "nested_stack",
    "out_of_fold_logits",
    "pairwise_kl",
    "predictive_entropy",
    "random_effects",
    "random_rows",
    "risk_coverage",
    "variance_split",
    "vote_entropy",
    "vote_share",
    "within_budget",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
