"""Scores over a whole split, each with an interval.

>>> from skyloom.metrics import Ranking, tpr_at_fpr
>>> r = Ranking([0.9, 0.8, 0.3, 0.2], [1, 1, 0, 0])
>>> r.auroc, r.tpr0
(1.0, 1.0)
"""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily
from skyloom.metrics.bootstrap import Estimate, bootstrap

if TYPE_CHECKING:
    from skyloom.metrics.comparison import Comparison, auroc_delong, delong, mcnemar, paired_bootstrap
    from skyloom.metrics.discovery import DiscoveryCurve, Inspection, discovery_curve
    from skyloom.metrics.operating_points import (
        OperatingPoint,
        RateAtFPR,
        best_f_beta,
        f_beta,
        operating_point,
        threshold_for_precision,
        threshold_for_recall,
        tpr_at_fpr,
        tpr_before,
        youden,
    )
    from skyloom.metrics.posterior import (
        crps,
        energy_score,
        posterior_scores,
        sharpness,
        spread_against_error,
        standardised_error,
    )
    from skyloom.metrics.prevalence import (
        BudgetCurve,
        Prevalence,
        budget_curve,
        expected_candidates,
        purity,
        survey_candidates,
        survey_purity,
    )
    from skyloom.metrics.proportions import clopper_pearson, proportion, wilson
    from skyloom.metrics.ranking import Ranking
    from skyloom.metrics.regression import explained_variance, nmad, regression_scores
    from skyloom.metrics.strata import Stratum, stratified_recall
    from skyloom.metrics.summary import ranking_scores
    from skyloom.metrics.two_sample import c2st

_HOME = {
    **dict.fromkeys(("Comparison", "auroc_delong", "delong", "mcnemar", "paired_bootstrap"), "comparison"),
    **dict.fromkeys(("DiscoveryCurve", "Inspection", "discovery_curve"), "discovery"),
    **dict.fromkeys(("OperatingPoint", "RateAtFPR", "best_f_beta", "f_beta", "operating_point"), "operating_points"),
    **dict.fromkeys(("threshold_for_precision", "threshold_for_recall"), "operating_points"),
    **dict.fromkeys(("tpr_at_fpr", "tpr_before", "youden"), "operating_points"),
    **dict.fromkeys(("BudgetCurve", "Prevalence", "budget_curve", "expected_candidates", "purity"), "prevalence"),
    **dict.fromkeys(("survey_candidates", "survey_purity"), "prevalence"),
    **dict.fromkeys(("clopper_pearson", "proportion", "wilson"), "proportions"),
    "Ranking": "ranking",
    "ranking_scores": "summary",
    **dict.fromkeys(("Stratum", "stratified_recall"), "strata"),
    **dict.fromkeys(("crps", "energy_score", "posterior_scores", "sharpness"), "posterior"),
    **dict.fromkeys(("spread_against_error", "standardised_error"), "posterior"),
    **dict.fromkeys(("explained_variance", "nmad", "regression_scores"), "regression"),
    "c2st": "two_sample",
}

__all__ = [  # noqa: RUF022
    "Estimate",
    "bootstrap",
    "BudgetCurve",
    "Comparison",
    "DiscoveryCurve",
    "Inspection",
    "OperatingPoint",
    "Prevalence",
    "Ranking",
    "RateAtFPR",
    "Stratum",
    "auroc_delong",
    "best_f_beta",
    "budget_curve",
    "c2st",
    "crps",
    "energy_score",
    "explained_variance",
    "nmad",
    "posterior_scores",
    "regression_scores",
    "sharpness",
    "spread_against_error",
    "standardised_error",
    "expected_candidates",
    "clopper_pearson",
    "delong",
    "discovery_curve",
    "f_beta",
    "mcnemar",
    "operating_point",
    "paired_bootstrap",
    "proportion",
    "purity",
    "ranking_scores",
    "stratified_recall",
    "survey_candidates",
    "survey_purity",
    "threshold_for_precision",
    "threshold_for_recall",
    "tpr_at_fpr",
    "tpr_before",
    "wilson",
    "youden",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
