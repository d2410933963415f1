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
    from skyloom.calibration.scaling import BetaCalibration, Platt, Temperature, VectorScaling

_FILES = {
    "calibrator": "Calibrator FittedOn Shifted calibrator_from_json load_calibrator save_calibrator shift_prevalence",
    "conformal": "Conformal FalseDiscoveryRule conformal_p_values control_false_discoveries recall_threshold set_coverage",
    "isotonic": "Isotonic",
    "logistic": "fit_logistic",
    "prevalence": "estimate_prevalence",
    "reliability": "BrierParts ReliabilityTable adaptive_error brier_parts brier_score calibration_error calibration_scores "
    "classwise_error debiased_error error_at_the_top maximum_error negative_log_likelihood reliability_table "
    "slope_and_intercept top_label_error",
    "scaling": "BetaCalibration Platt Temperature VectorScaling",
}
_HOME = {name: file for file, names in _FILES.items() for name in names.split()}

__all__ = [
    "BetaCalibration",
    "BrierParts",
    "Calibrator",
    "Conformal",
    "FalseDiscoveryRule",
    "FittedOn",
    "Isotonic",
    "Platt",
    "ReliabilityTable",
    "Shifted",
    "Temperature",
    "VectorScaling",
    "adaptive_error",
    "brier_parts",
    "brier_score",
    "calibration_error",
    "calibration_scores",
    "calibrator_from_json",
    "classwise_error",
    "conformal_p_values",
    "control_false_discoveries",
    "debiased_error",
    "error_at_the_top",
    "estimate_prevalence",
    "fit_logistic",
    "load_calibrator",
    "maximum_error",
    "negative_log_likelihood",
    "recall_threshold",
    "reliability_table",
    "save_calibrator",
    "set_coverage",
    "shift_prevalence",
    "slope_and_intercept",
    "top_label_error",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
