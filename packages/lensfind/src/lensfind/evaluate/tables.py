"""What a finder is worth on its test split: tables in evaluation.json, figures beside them.

Thresholds are chosen on the validation split, from labelled and unlabeled rows alone, and applied to the test split. Truth is
used where the data carry it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lensfind.calibration.calibrating import conformal_thresholds
from lensfind.calibration.merit import calibration_error, sigmoid
from lensfind.evaluate import figures
from lensfind.evaluate.table_figures import draw_tables
from skyloom.data.tables import read_columns
from skyloom.metrics import OperatingPoint, Ranking, auroc_delong, stratified_recall, survey_purity, tpr_at_fpr
from skyloom.metrics.operating_points import operating_point
from skyloom.plots import Figure
from skyloom.pu import prior_shift
from skyloom.run.files import write_json

__all__ = ["evaluation", "failures", "strata", "tables", "threshold_at_fpr"]

Arrays = dict[str, np.ndarray]
_STRATA: dict[str, tuple[str, tuple[float, ...]]] = {
    "theta_E": ("Einstein radius / arcsec", (0.5, 0.8, 1.0, 1.25, 1.5, 1.75, 2.0, 3.0, 10.0)),
    "arc_snr": ("signal-to-noise of the arcs", (0.0, 8.0, 20.0, 50.0, 100.0, 200.0, 1e6)),
    "flux_ratio": ("lensed light over all light", (0.0, 0.05, 0.1, 0.3, 1.0)),
    "magnification": ("total magnification", (0.0, 3.0, 5.0, 10.0, 20.0, 1e6)),
    "seeing": ("seeing, relative to the survey's median", (0.0, 0.9, 0.97, 1.03, 1.1, 10.0)),
}


def evaluation(
    predictions: Arrays, about: dict[str, Any], directory: Path, fpr: float = 1e-2, prevalence: float = 1e-3
) -> list[Figure]:
    """All figures, and `evaluation.json` in the directory above them. `fpr` is the false-positive rate of the threshold,
    `prevalence` the share of lenses among the objects of a survey at which purity is stated."""
    above = Path(directory).parent
    chosen_on = above / "predictions" / "val.parquet"
    validation = read_columns(chosen_on)[0] if chosen_on.is_file() else predictions
    threshold = threshold_at_fpr(validation["logit"], validation["labelled"], float(about["class_prior"]), fpr)
    found = figures.draw(predictions, about, directory, threshold=threshold, fpr=fpr)
    if not figures.has_truth(predictions):
        return found
    written = tables(predictions, about, threshold, fpr, prevalence)
    write_json(above / "evaluation.json", written)
    return found + draw_tables(written, predictions, about, Path(directory))


def threshold_at_fpr(logit: np.ndarray, labelled: np.ndarray, prior: float, fpr: float) -> float:
    """The lowest threshold whose false-positive rate, told from labelled and unlabeled rows, is at most `fpr`."""
    return conformal_thresholds(logit, labelled, prior, fpr)[1]


def tables(predictions: Arrays, about: Mapping[str, Any], threshold: float, fpr: float, prevalence: float) -> dict[str, Any]:
    """Ranking, the operating point, strata, failures, calibration and coverage, as plain values."""
    unlabeled = predictions["labelled"] == 0
    z, lens = predictions["logit"][unlabeled], predictions["lens"][unlabeled] > 0
    ranking = Ranking(z, lens)
    point = operating_point(ranking, threshold)
    rates = {f"1e-{k}": tpr_at_fpr(ranking, 10.0**-k) for k in range(1, 6)}
    return {
        "synthetic": bool(about["synthetic"]),
        "n_lenses": ranking.n_positive,
        "n_others": ranking.n_negative,
        "auroc": auroc_delong(z, lens).to_json(),
        "tpr0": ranking.tpr0,
        "tpr10": ranking.tpr10,
        "tpr_at_fpr": {k: _plain(r.tpr.to_json()) | {"resolved": r.resolved} for k, r in rates.items()},
        "visible": _visible(z, lens, predictions["arc_snr"][unlabeled]) if "arc_snr" in predictions else {},
        "threshold": {"logit": _finite(threshold), "chosen_for_fpr": fpr, **_point(point)},
        "survey": _survey(point, prevalence),
        "strata": strata(predictions, threshold),
        "failures": failures(predictions, about, threshold),
        "calibration": _calibration(predictions, unlabeled, lens, float(about["class_prior"]), prevalence),
    }


def _visible(z: np.ndarray, lens: np.ndarray, arc_snr: np.ndarray, limit: float = 8.0) -> dict[str, Any]:
    """Ranking of the lenses whose arcs stand out of the noise, against all non-lenses."""
    rows = ~lens | (arc_snr > limit)
    ranking = Ranking(z[rows], lens[rows])
    if ranking.one_class:
        return {}
    rate = tpr_at_fpr(ranking, 1e-3)
    return {
        "arc_snr_above": limit,
        "n_lenses": ranking.n_positive,
        "auroc": auroc_delong(z[rows], lens[rows]).to_json(),
        "tpr_at_fpr_1e-3": _plain(rate.tpr.to_json()) | {"resolved": rate.resolved},
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _plain(values: Mapping[str, float]) -> dict[str, Any]:
    return {name: _finite(value) for name, value in values.items()}


def _point(point: OperatingPoint) -> dict[str, Any]:
    said = {
        "lens": {"lens": point.true_positives, "no lens": point.false_negatives},
        "no lens": {"lens": point.false_positives, "no lens": point.true_negatives},
    }  # truth: what is said of it
    rates = {"tpr": _plain(point.tpr.to_json()), "fpr": _plain(point.fpr.to_json())}
    return {**rates, "purity_here": _finite(point.precision), "confusion": said}


def _survey(point: OperatingPoint, prevalence: float) -> dict[str, Any]:
    purity = survey_purity(point, prevalence, np.random.default_rng(0))
    return {"prevalence": prevalence, "purity": _plain(purity.to_json()), "completeness": _plain(point.tpr.to_json())}


def strata(predictions: Arrays, threshold: float) -> dict[str, list[dict[str, Any]]]:
    """Recall of all lenses of the split, labelled or not, in bins of what is known of them; only bins that hold some."""
    rows = (predictions["labelled"] == 0) | (predictions["lens"] > 0)
    z, lens = predictions["logit"][rows], predictions["lens"][rows] > 0
    found = {}
    for name, (_, edges) in _STRATA.items():
        if name not in predictions or not np.isfinite(predictions[name][rows][lens]).any():
            continue
        parts = stratified_recall(z, lens, predictions[name][rows], threshold, edges)
        found[name] = [
            {
                "bin": s.name,
                "n": s.n_positive,
                "found": s.true_positives,
                "recall": _plain(s.recall.to_json()),
                "auroc": s.auroc,
            }
            for s in parts
            if s.n_positive
        ]
    return found


def failures(predictions: Arrays, about: Mapping[str, Any], threshold: float) -> list[dict[str, Any]]:
    """Of each kind of non-lens: how many there are, and the share above the threshold, with its interval."""
    from skyloom.metrics import proportion

    if "kind" not in predictions:
        return []
    others = (predictions["labelled"] == 0) & (predictions["lens"] == 0)
    found = []
    for number, name in enumerate(about["kinds"]):
        rows = others & (predictions["kind"] == number)
        if rows.any():
            above = int((predictions["logit"][rows] >= threshold).sum())
            rate = proportion(above, int(rows.sum()), method="wilson")
            found.append({"kind": name, "n": int(rows.sum()), "above": above, "rate": _plain(rate.to_json())})
    return sorted(found, key=lambda row: -row["rate"]["value"])


def _calibration(
    predictions: Arrays, unlabeled: np.ndarray, lens: np.ndarray, prior: float, prevalence: float
) -> dict[str, Any]:
    if "calibrated" not in predictions:
        return {}
    before, after = (sigmoid(predictions[name][unlabeled]) for name in ("logit", "calibrated"))
    found = {
        "ece_before": calibration_error(before, lens),
        "ece": calibration_error(after, lens),
        "expected_over_true": float(after.sum() / lens.sum()),
        "at_prevalence": {"prevalence": prevalence, **_shifted(predictions["calibrated"][unlabeled], lens, prior, prevalence)},
    }
    if "conformal_set" in predictions:
        sets = predictions["conformal_set"][unlabeled].astype(int)
        every = predictions["lens"] > 0
        all_sets = predictions["conformal_set"].astype(int)
        found["conformal"] = {
            "coverage_lenses": float(((all_sets[every] & 1) > 0).mean()),
            "coverage_others": float(((sets[~lens] & 2) > 0).mean()),
            "undecided": float((sets == 3).mean()),
            "neither": float((sets == 0).mean()),
        }
    return found


def _shifted(calibrated: np.ndarray, lens: np.ndarray, prior: float, prevalence: float) -> dict[str, float]:
    """Probabilities moved to another prevalence, against a test sample weighed to hold that share of lenses."""
    p = sigmoid(calibrated + prior_shift(prevalence, prior))
    share = lens.mean()
    weight = np.where(lens, prevalence / share, (1 - prevalence) / (1 - share))
    return {"expected_over_true": float((weight * p).sum() / (weight * lens).sum())}
