"""What all calibrators are: logits in, calibrated logits out; a record of the rows they were fitted on; JSON."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax

from skyloom.errors import ConfigError, DataError, nearest

__all__ = [
    "Calibrator",
    "FittedOn",
    "Shifted",
    "calibrator_from_json",
    "load_calibrator",
    "save_calibrator",
    "shift_prevalence",
]

Array = NDArray[np.float64]

_KINDS = {  # what a file may name: nothing else is built from it
    "temperature": "skyloom.calibration.scaling.Temperature",
    "platt": "skyloom.calibration.scaling.Platt",
    "beta": "skyloom.calibration.scaling.BetaCalibration",
    "vector": "skyloom.calibration.scaling.VectorScaling",
    "isotonic": "skyloom.calibration.isotonic.Isotonic",
    "shifted": "skyloom.calibration.calibrator.Shifted",
    "conformal": "skyloom.calibration.conformal.Conformal",
    "stack": "skyloom.uncertainty.stacking.Stack",
}


@dataclass(frozen=True)
class FittedOn:
    """The rows that a calibrator was fitted on: how many of each class, their prevalence, and the digest of their ids."""

    counts: tuple[int, ...]
    prevalence: float  # of the positive class, by the sampling weights where there are any; NaN for several classes
    digest: str | None = None

    def check_other_than(self, ids: ArrayLike) -> None:
        """Refuse to judge a calibrator on the rows that it was fitted on: its error there is near zero by construction."""
        if self.digest is not None and self.digest == _digest(ids):
            raise DataError("these are the rows that the calibrator was fitted on: judge it on another split.")


def _digest(ids: ArrayLike) -> str:
    return hashlib.sha256("\n".join(sorted(str(i) for i in np.asarray(ids).ravel())).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Calibrator:
    """A map of logits, fitted on a split that training did not see.

    Subclasses have `fit(logits, labels, ...)`, with `ids` (rows, or the groups they belong to) and `trained_on` (likewise) to
    prove that the splits are disjoint, and `sampling_weights` where rows were drawn with known unequal probabilities.
    """

    kind: ClassVar[str]
    fitted_on: FittedOn = field(kw_only=True)

    def __call__(self, logits: ArrayLike) -> Array:
        """Calibrated logits."""
        raise NotImplementedError

    def probability(self, logits: ArrayLike) -> Array:
        """Calibrated probabilities: of the positive class, or [n, classes] of logits that are [n, classes]."""
        z = self(logits)
        return softmax(z, axis=1) if z.ndim == 2 else np.asarray(expit(z))

    def at_prevalence(self, target: float, source: float | None = None) -> "Shifted":
        """The same calibrator for a population whose share of positives is `target`, instead of that of the rows it was
        fitted on (or `source`). To be done once, last."""
        return Shifted(self, self.fitted_on.prevalence if source is None else source, target, fitted_on=self.fitted_on)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `calibrator_from_json` takes back; infinities are null."""
        plain = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {"kind": self.kind, **plain}


@dataclass(frozen=True)
class Shifted(Calibrator):
    """A calibrator followed by `shift_prevalence`. It cannot be shifted again: go back to the calibrator within."""

    calibrator: Calibrator
    source: float
    target: float
    kind: ClassVar[str] = "shifted"

    def __post_init__(self) -> None:
        if len(self.fitted_on.counts) != 2:
            raise ConfigError(f"a prevalence is of two classes; this calibrator has {len(self.fitted_on.counts)}.")
        for name in ("source", "target"):
            object.__setattr__(self, name, float(getattr(self, name)))
        _check_prevalence(self.source, self.target)

    def __call__(self, logits: ArrayLike) -> Array:
        z = self.calibrator(logits)
        if z.ndim < 2:
            return shift_prevalence(z, self.source, self.target)
        return np.column_stack([z[:, 0], shift_prevalence(z[:, 1], self.source, self.target)])  # both would move nothing

    def at_prevalence(self, target: float, source: float | None = None) -> "Shifted":
        raise ConfigError(
            f"this calibrator was already taken from a prevalence of {self.source:g} to {self.target:g}: "
            "shift `.calibrator`, which was not."
        )


def _check_prevalence(*values: float) -> None:
    for value in values:
        if not 0 < value < 1:
            raise ConfigError(f"a prevalence lies in (0, 1), not at {value}.")


def shift_prevalence(logits: ArrayLike, source: float, target: float) -> Array:
    """logit p'(x) = logit p(x) + logit(target) - logit(source): Bayes' rule when only the share of positives changes.

    Exact where positives look alike in both populations and negatives too (Saerens, Latinne and Decaestecker 2002, Neural
    Comput. 14, 21). A network trained on balanced classes has source 0.5.

    >>> round(float(expit(shift_prevalence(0.0, 0.5, 1e-3))), 6)
    0.001
    """
    source, target = float(source), float(target)  # a float32 would be rounded in the logarithm
    _check_prevalence(source, target)
    return np.asarray(logits, np.float64) + math.log(target / (1 - target)) - math.log(source / (1 - source))


def fit_rows(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    sampling_weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    trained_on: ArrayLike | None = None,
) -> tuple[Array, NDArray[np.int64], Array, FittedOn]:
    """Checked logits [n] or [n, classes], labels [n], weights [n] of mean 1, and the record of the rows.

    Refused: rows that training saw; weights that belong to the classes; a class without rows; NaN.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels)
    if z.ndim not in (1, 2) or y.shape != z.shape[:1]:
        raise DataError(
            f"logits are [n] or [n, classes] and labels [n], not {list(z.shape)} and {list(y.shape)}: flatten them."
        )
    if not np.isfinite(z).all():
        raise DataError(
            f"{(~np.isfinite(z)).sum()} logits are not finite, the first in row {np.argwhere(~np.isfinite(z))[0][0]}."
        )
    classes = 2 if z.ndim == 1 else z.shape[1]
    if not np.isin(y, np.arange(classes)).all():
        raise DataError(f"labels are 0 ... {classes - 1}, not {y[~np.isin(y, np.arange(classes))][0]}.")
    y = y.astype(np.int64)
    counts = np.bincount(y, minlength=classes)
    if not counts.all():
        raise DataError(f"a calibrator needs rows of every class; the counts are {counts.tolist()}.")
    weights = _check_weights(sampling_weights, y)
    if ids is not None and trained_on is not None and len(shared := np.intersect1d(ids, trained_on)):
        raise DataError(f"{len(shared)} of the rows to calibrate on were trained on, as {shared[0]}: use a split apart.")
    prevalence = float(np.average(y, weights=weights)) if classes == 2 else math.nan
    digest = None if ids is None else _digest(ids)
    return z, y, weights, FittedOn(tuple(int(c) for c in counts), prevalence, digest)


def _check_weights(weights: ArrayLike | None, labels: NDArray[np.int64]) -> Array:
    """Weights of mean 1; those that differ between classes and not within them are class weights, and refused.

    They calibrate to the prevalence of the weights: an isotonic fit that balances a one per cent problem turns a calibrated
    score of mean 0.010 into one of mean 0.23.
    """
    if weights is None:
        return np.ones(len(labels))
    w = np.asarray(weights, np.float64)
    if w.shape != labels.shape or not (np.isfinite(w).all() and (w > 0).all()):
        raise DataError("sampling weights are one positive number per row: the inverse of its probability of being drawn.")
    within = [np.ptp(w[labels == c]) for c in np.unique(labels)]
    if max(within) <= 1e-9 * w.max() and np.ptp(w) > 1e-9 * w.max():
        raise ConfigError(
            "these weights are one number per class. A class-weighted fit calibrates to the prevalence of the weights, not of "
            "the field: fit without weights, then use at_prevalence(target)."
        )
    return w / w.mean()


def _plain(value: Any) -> Any:
    if isinstance(value, Calibrator):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def calibrator_from_json(values: Mapping[str, Any]) -> Any:
    """The calibrator that `to_json` described."""
    kind = values.get("kind", "")
    if kind not in _KINDS:
        raise ConfigError(f"there is no calibrator of kind {kind!r}.{nearest(str(kind), _KINDS)}")
    module, _, name = _KINDS[kind].rpartition(".")
    cls = getattr(import_module(module), name)
    given = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in values]
    if missing:
        raise DataError(f"a calibrator of kind {kind!r} lacks {', '.join(missing)}.")
    record = given["fitted_on"]
    nan = math.nan if record["prevalence"] is None else float(record["prevalence"])
    given["fitted_on"] = FittedOn(tuple(record["counts"]), nan, record["digest"])
    if "calibrator" in given:
        given["calibrator"] = calibrator_from_json(given["calibrator"])
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def save_calibrator(calibrator: Calibrator, path: str | Path) -> None:
    """Write a calibrator as JSON, whole or not at all."""
    from skyloom.run.files import write_json

    write_json(path, calibrator.to_json())


def load_calibrator(path: str | Path) -> Any:
    """Read what `save_calibrator` wrote: numbers only, nothing is executed."""
    from skyloom.run.files import read_json

    return calibrator_from_json(read_json(path))
