r"""Probabilities and prediction sets that need no certified non-lens: fitted on the labelled and unlabeled rows of validation.

The logistic risk of the calibrated logit $a z + b$ over the population, with its negative part written as unlabeled minus
positives (du Plessis et al. 2015), is

$$f(a, b) = E_U[\ln(1 + e^{a z + b})] - \pi E_P[a z + b],$$

convex in (a, b), with its minimum where the calibrated probabilities sum to the expected number of lenses, and the mean logits
agree: Platt scaling (1999) without negatives. Conformal sets are conditional on the class (Vovk 2012, "Conditional validity"):
a lens is ruled out below the alpha-quantile of labelled lenses, a non-lens above the (1 - alpha)-quantile of the non-lenses,
whose distribution is $(F_U - \pi F_P) / (1 - \pi)$.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from lensfind.calibration.merit import sigmoid
from skyloom.data.tables import write_columns
from skyloom.errors import ConfigError, DataError
from skyloom.pu import best_bin
from skyloom.training import Trainer, checkpoints

__all__ = ["CalibratedTrainer", "calibration", "conformal_sets", "conformal_thresholds", "platt"]


def platt(logit: np.ndarray, labelled: np.ndarray, prior: float, ridge: float = 1e-2, steps: int = 100) -> tuple[float, float]:
    """Slope a and offset b of the calibrated logit, by Newton's method on f; a stays positive.

    `ridge`, in units of the prior, draws (a, b) towards (1, 0): it matters only where the samples say little. The logits are
    scaled by their spread meanwhile.
    """
    labelled = np.asarray(labelled) > 0.5
    if labelled.all() or not labelled.any():
        raise DataError("calibration needs labelled and unlabeled rows in the validation split.")
    z = np.asarray(logit, dtype=np.float64)
    unlabeled, target = z[~labelled], z[labelled].mean()
    value = np.array([0.0, 0.0])  # ln a, b

    def objective(v: np.ndarray) -> float:
        a = np.exp(v[0])
        fit = np.logaddexp(0, a * unlabeled + v[1]).mean() - prior * (a * target + v[1])
        return float(fit + 0.5 * ridge * prior * (v @ v))

    for _ in range(steps):
        a = np.exp(value[0])
        p = sigmoid(a * unlabeled + value[1])
        slope = (p * unlabeled).mean() - prior * target
        gradient = np.array([a * slope, p.mean() - prior]) + ridge * prior * value
        w = p * (1 - p)
        cross = a * (w * unlabeled).mean()
        hessian = np.array([[a**2 * (w * unlabeled**2).mean() + max(a * slope, 0), cross], [cross, w.mean()]])
        step = np.linalg.solve(hessian + ridge * prior * np.eye(2), gradient)
        step *= min(1.0, 2.0 / max(np.abs(step).max(), 1e-12))
        before = objective(value)
        while objective(value - step) > before and np.abs(step).max() > 1e-10:
            step /= 2
        value = value - step
        if np.abs(step).max() < 1e-9:
            break
    return float(np.exp(value[0])), float(value[1])


def conformal_thresholds(logit: np.ndarray, labelled: np.ndarray, prior: float, alpha: float = 0.1) -> tuple[float, float]:
    """(lens_above, other_below): "lens" is in the set of a logit >= lens_above, "no lens" in that of a logit <= other_below."""
    labelled = np.asarray(labelled) > 0.5
    z = np.asarray(logit, dtype=np.float64)
    positive, unlabeled = np.sort(z[labelled]), np.sort(z[~labelled])
    rank = int(np.floor((len(positive) + 1) * alpha))
    lens_above = float(positive[rank - 1]) if rank >= 1 else -np.inf
    share = np.arange(1, len(unlabeled) + 1) / len(unlabeled)
    below = np.searchsorted(positive, unlabeled, side="right") / len(positive)
    lower = (share - prior * below) / (1 - prior) < 1 - alpha  # of non-lenses that lie below; noise makes it no monotone curve:
    first = int(np.argmin(lower)) if not lower.all() else len(lower)  # halfway between where it first
    last = int(np.flatnonzero(lower)[-1]) + 1 if lower.any() else 0  # and last crosses
    middle = (first + last) // 2
    other_below = float(unlabeled[middle]) if middle < len(unlabeled) else np.inf
    return lens_above, other_below


def conformal_sets(logit: np.ndarray, lens_above: float, other_below: float) -> np.ndarray:
    """0 neither (unlike both), 1 lens, 2 no lens, 3 undecided."""
    z = np.asarray(logit)
    return ((z >= lens_above) + 2 * (z <= other_below)).astype(np.uint8)


def calibration(logit: np.ndarray, labelled: np.ndarray, prior: float, alpha: float = 0.1) -> dict[str, float]:
    """What `LensFinder.calibrate` takes."""
    slope, offset = platt(logit, labelled, prior)
    lens_above, other_below = conformal_thresholds(logit, labelled, prior, alpha)
    return {"slope": slope, "offset": offset, "lens_above": lens_above, "other_below": other_below, "alpha": alpha}


def _estimated(logit: np.ndarray, labelled: np.ndarray) -> dict[str, Any]:
    """The prior that these rows tell, as plain values; refused where they are too few."""
    try:
        return dict(best_bin(logit[labelled > 0], logit[labelled == 0]).to_json())
    except DataError as error:
        return {"value": None, "refused": str(error)}


@dataclass
class CalibratedTrainer(Trainer):
    """The loop, and then calibration of the task with its best weights on the validation split.

    The class prior is the stated one, or with `prior="estimated"` that of `skyloom.pu.best_bin` on the validation logits, which
    is noted in any case. Slope, offset and thresholds join the best checkpoint, and the validation predictions the run's
    directory, where thresholds and ensembles are chosen from.
    """

    alpha: float = 0.1  # share of each class that conformal sets may miss
    prior: str = "stated"  # or estimated: calibrate at the prior that validation tells, where it tells one

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior not in ("stated", "estimated"):
            raise ConfigError(f"trainer.prior={self.prior}: choose stated or estimated.")

    def fit(self, task: Any, data: Any, *args: Any, **more: Any) -> Any:
        progress = super().fit(task, data, *args, **more)
        predictions = self.predict(task, data.val, data.carry, "val", label="calibrating")
        found = self._fabric.broadcast(self._found(task, predictions) if self._fabric.global_rank == 0 else None)
        if found is None:  # a few batches to try things, all of one sample
            return progress
        values, noted = found
        task.calibrate(values)
        run = more.get("run") or next((a for a in args if hasattr(a, "checkpoints")), None)
        if run is not None and self._fabric.global_rank == 0 and (run.checkpoints / "best.pt").exists():
            predictions["calibrated"] = values["slope"] * predictions["logit"] + values["offset"]
            state, own = checkpoints.load_best(run.checkpoints), task.state_dict()
            kept = {name: own[name].detach().cpu() for name in ("slope", "offset", "conformal")}
            checkpoints.save({**state, "task": {**state["task"], **kept}}, run.checkpoints, "best")
            write_columns(run.directory / "predictions" / "val.parquet", predictions, data.about)
            run.write_json("calibration.json", {**noted, "synthetic": bool(data.about["synthetic"])})
        return progress

    def _found(self, task: Any, predictions: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]] | None:
        """What the task takes, and what is noted; None without labelled or without unlabeled rows."""
        logit, labelled = predictions["logit"].numpy(), predictions["labelled"].numpy()
        if (labelled > 0.5).all() or not (labelled > 0.5).any():
            warnings.warn("not calibrated: the validation rows hold no labelled, or no unlabeled, cutout.", stacklevel=3)
            return None
        estimate = _estimated(logit, labelled)
        used = estimate["value"] if self.prior == "estimated" and not estimate["refused"] else task.prior
        if self.prior == "estimated" and estimate["refused"]:
            warnings.warn(f"calibrated at the stated prior {task.prior:g}: {estimate['refused']}.", stacklevel=3)
        values = calibration(logit, labelled, used, self.alpha)
        plain = {name: value if np.isfinite(value) else None for name, value in values.items()}
        return values, {**plain, "prior": used, "estimated_prior": estimate}
