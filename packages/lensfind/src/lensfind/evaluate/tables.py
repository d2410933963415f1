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
from skyloom.data.tables import read_columns
from skyloom.metrics import OperatingPoint, Ranking, auroc_delong, stratified_recall, survey_purity, tpr_at_fpr
from skyloom.metrics.operating_points import operating_point
from skyloom.plots import PAGE, Figure, panels, save, style
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
    write_json(above / "evaluation.json", tables(predictions, about, threshold, fpr, prevalence))
    return found + _drawn(predictions, about, Path(directory), threshold, fpr, prevalence)


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
    return {"tpr": _plain(point.tpr.to_json()), "fpr": _plain(point.fpr.to_json()), "purity_here": _finite(point.precision)}


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


# ---------------------------------------------------------------- figures


def _drawn(
    predictions: Arrays, about: Mapping[str, Any], directory: Path, threshold: float, fpr: float, prevalence: float
) -> list[Figure]:
    word = "synthetic " if about["synthetic"] else ""
    made: list[Figure] = []

    def keep(name: str, canvas: Any, title: str, caption: str) -> None:
        made.append(Figure(save(canvas, directory / f"{name}.png"), title, caption))

    with style():
        if "calibrated" in predictions:
            canvas, axes = panels(1, 2, width=PAGE, height=2.9)
            reliability(axes[0], predictions)
            purity_curve(axes[1], predictions, prevalence)
            keep("calibration", canvas, "Calibration, and what a survey gets", "Left: share of lenses against the stated "
                 f"probability on the unlabeled {word}test sample, before and after calibration on the validation split, in "
                 "bins of equal numbers, with 95% Wilson intervals; the bottom line stands for bins without a lens. Right: "
                 f"purity against completeness where one object in {1 / prevalence:,.0f} is a lens, with its 95% "
                 "interval.")  # fmt: skip
        rows = failures(dict(predictions), about, threshold)
        if rows:
            canvas, axis = panels(1, 1)
            _bars(axis, rows, fpr)
            keep("failures", canvas, "What is mistaken for a lens", f"Share of each kind of {word}non-lens above the "
                 f"threshold chosen on validation for a false-positive rate of {fpr:.0%} (dotted), with 95% Wilson "
                 "intervals.")  # fmt: skip
    return made


def reliability(axis: Any, predictions: Arrays, bins: int = 12) -> dict[str, Arrays]:
    """Observed share of lenses against the stated probability; both axes logarithmic, as lenses are rare."""
    from skyloom.metrics import wilson

    unlabeled = predictions["labelled"] == 0
    lens = predictions["lens"][unlabeled] > 0
    floor = 0.3 / len(lens)
    drawn = {}
    for name, label, marker in (("logit", "as learned", "s"), ("calibrated", "calibrated", "o")):
        p = sigmoid(predictions[name][unlabeled])
        order = np.array_split(np.argsort(p, kind="stable"), bins - 4)
        order = [*order[:-1], *np.array_split(order[-1], 5)]  # finer where the lenses are
        centre = np.array([p[part].mean() for part in order])
        count = np.array([lens[part].sum() for part in order])
        n = np.array([len(part) for part in order])
        low, high = wilson(count, n)
        share = np.maximum(count / n, floor)
        spread = [np.maximum(share - np.maximum(low, floor), 0), np.maximum(high - share, 0)]
        axis.errorbar(np.maximum(centre, floor), share, spread, fmt=marker, ms=3.5, lw=0.9, label=label)
        drawn[name] = {"p": centre, "share": share}
    line = np.array([floor, 1.0])
    axis.plot(line, line, color="0.5", lw=0.8, ls="--")
    axis.set(xscale="log", yscale="log", xlim=(floor, 1.2), ylim=(floor * 0.8, 1.3))
    axis.set(xlabel="stated probability", ylabel="share of lenses")
    axis.legend(loc="upper left")
    return drawn


def purity_curve(axis: Any, predictions: Arrays, prevalence: float) -> Arrays:
    from skyloom.metrics.prevalence import budget_curve

    unlabeled = predictions["labelled"] == 0
    ranking = Ranking(predictions["logit"][unlabeled], predictions["lens"][unlabeled] > 0)
    curve = budget_curve(ranking, 1.0, prevalence, np.random.default_rng(0))
    axis.fill_between(curve.completeness, curve.purity_low, curve.purity_high, alpha=0.25, lw=0)
    axis.plot(curve.completeness, curve.purity)
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="completeness", ylabel=f"purity at a prevalence of {prevalence:g}")
    return {"completeness": curve.completeness, "purity": curve.purity}


def _bars(axis: Any, rows: list[dict[str, Any]], fpr: float) -> None:
    names = [f"{row['kind'].replace('_', '-')} ({row['above']}/{row['n']})" for row in rows]
    value = np.array([row["rate"]["value"] for row in rows])
    low, high = (np.array([row["rate"][side] for row in rows]) for side in ("low", "high"))
    place = np.arange(len(rows))
    axis.barh(place, value, height=0.6)
    axis.errorbar(value, place, xerr=np.maximum([value - low, high - value], 0), fmt="none", color="0.2", lw=0.9)
    axis.axvline(fpr, color="0.4", lw=0.8, ls=":")
    axis.set_yticks(place, names)
    axis.invert_yaxis()
    axis.set(xlabel="share above the threshold", xlim=(0, None))
    axis.locator_params(axis="x", nbins=5)
