"""Probabilities that mean what they say: of scores (temperature to isotonic, prevalence, conformal sets) and of posteriors.

>>> from skyloom.calibration import Temperature
>>> t = Temperature.fit([-3, -1, 3, 1, -3, 3], [0, 0, 1, 1, 1, 0])
>>> in_the_field = t.at_prevalence(1e-3)
>>> [round(float(p), 5) for p in in_the_field.probability([-3, 3])]
[0.00073, 0.00137]
"""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from skyloom.calibration.calibrator import (
        Calibrator,
        FittedOn,
        Shifted,
        calibrator_from_json,
        load_calibrator,
        save_calibrator,
        shift_prevalence,
    )
    from skyloom.calibration.conformal import (
        Conformal,
        FalseDiscoveryRule,
        conformal_p_values,
        control_false_discoveries,
        recall_threshold,
        set_coverage,
    )
    from skyloom.calibration.coverage import Coverage, central_credibility, density_credibility, expected_coverage
    from skyloom.calibration.isotonic import Isotonic
    from skyloom.calibration.logistic import fit_logistic
    from skyloom.calibration.prevalence import estimate_prevalence
    from skyloom.calibration.reliability import (
        BrierParts,
        ReliabilityTable,
        adaptive_error,
        brier_parts,
        brier_score,
        calibration_error,
        calibration_scores,
        classwise_error,
        debiased_error,
        error_at_the_top,
        maximum_error,
        negative_log_likelihood,
        reliability_table,
        slope_and_intercept,
        top_label_error,
    )
    from skyloom.calibration.sbc import (
        Uniformity,
        ecdf_band,
        histogram_band,
        one_per_group,
        pit,
        ranks,
        uniformity,
    )
    from skyloom.calibration.scaling import BetaCalibration, Platt, Temperature, VectorScaling
    from skyloom.calibration.tarp import tarp_credibility, tarp_references

_FILES = {
    "calibrator": "Calibrator FittedOn Shifted calibrator_from_json load_calibrator save_calibrator shift_prevalence",
    "conformal": "Conformal FalseDiscoveryRule conformal_p_values control_false_discoveries recall_threshold set_coverage",
    "isotonic": "Isotonic",
    "logistic": "fit_logistic",
    "prevalence": "estimate_prevalence",
    "reliability": "BrierParts ReliabilityTable adaptive_error brier_parts brier_score calibration_error calibration_scores "
    "classwise_error debiased_error error_at_the_top maximum_error negative_log_likelihood reliability_table "
    "slope_and_intercept top_label_error",
    "coverage": "Coverage central_credibility density_credibility expected_coverage",
    "sbc": "Uniformity ecdf_band histogram_band one_per_group pit ranks uniformity",
    "tarp": "tarp_credibility tarp_references",
    "scaling": "BetaCalibration Platt Temperature VectorScaling",
}
_HOME = {name: file for file, names in _FILES.items() for name in names.split()}

__all__ = [
    "BetaCalibration",
    "BrierParts",
    "Calibrator",
    "Conformal",
    "Coverage",
    "FalseDiscoveryRule",
    "FittedOn",
    "Isotonic",
    "Platt",
    "ReliabilityTable",
    "Shifted",
    "Temperature",
    "Uniformity",
    "VectorScaling",
    "adaptive_error",
    "brier_parts",
    "brier_score",
    "calibration_error",
    "calibration_scores",
    "calibrator_from_json",
    "central_credibility",
    "classwise_error",
    "conformal_p_values",
    "control_false_discoveries",
    "debiased_error",
    "density_credibility",
    "ecdf_band",
    "error_at_the_top",
    "estimate_prevalence",
    "expected_coverage",
    "fit_logistic",
    "histogram_band",
    "load_calibrator",
    "maximum_error",
    "negative_log_likelihood",
    "one_per_group",
    "pit",
    "ranks",
    "recall_threshold",
    "reliability_table",
    "save_calibrator",
    "set_coverage",
    "shift_prevalence",
    "slope_and_intercept",
    "tarp_credibility",
    "tarp_references",
    "top_label_error",
    "uniformity",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
