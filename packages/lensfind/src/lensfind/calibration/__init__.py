"""Figures of merit, probabilities and prediction sets of a finder, from labelled and unlabeled rows alone."""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from lensfind.calibration.calibrating import CalibratedTrainer, calibration, conformal_sets, conformal_thresholds, platt
    from lensfind.calibration.merit import calibration_error, scores, sigmoid

_HOMES = {
    "calibrating": ("CalibratedTrainer", "calibration", "conformal_sets", "conformal_thresholds", "platt"),
    "merit": ("calibration_error", "scores", "sigmoid"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CalibratedTrainer",
    "calibration",
    "calibration_error",
    "conformal_sets",
    "conformal_thresholds",
    "platt",
    "scores",
    "sigmoid",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
