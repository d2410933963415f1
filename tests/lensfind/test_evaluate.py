"""Thresholds from labels alone, tables that add up, and what they say at a survey's prevalence."""

import json

import numpy as np
import pytest

from lensfind.evaluate.tables import evaluation, failures, strata, tables, threshold_at_fpr
from skyloom.data.tables import write_columns

KINDS = ("lens", "ring", "spiral")
ABOUT = {"class_prior": 0.1, "synthetic": True, "kinds": list(KINDS), "survey": {"pixel_scale": 0.2}, "size": 40}


def predictions(seed=0, labelled=3000, unlabeled=20_000):
    """Calibrated logits of two Gaussians two apart; rings score higher than spirals, faint arcs lower than bright ones."""
    rng = np.random.default_rng(seed)
    lens = np.concatenate([np.ones(labelled, bool), rng.random(unlabeled) < 0.1])
    kind = np.where(lens, 0, rng.integers(1, 3, len(lens)))
    snr = np.where(lens, np.exp(rng.uniform(1, 5, len(lens))), np.nan)
    x = rng.normal(2.0 * lens)
    logit = 2 * x - 2 + np.log(1 / 9) + 0.3 * (kind == 1) + np.where(lens, 0.4 * (np.log(np.nan_to_num(snr, nan=1.0)) - 3), 0)
    theta = np.where(lens, rng.uniform(0.8, 2.0, len(lens)), np.nan)
    return {
        "logit": logit, "calibrated": logit, "labelled": 1 * (np.arange(len(lens)) < labelled), "lens": 1 * lens,
        "kind": kind, "arc_snr": snr, "theta_E": theta, "conformal_set": np.where(logit > -2.2, 1.0, 2.0),
    }  # fmt: skip


@pytest.mark.parametrize("fpr", [0.1, 0.01])
def test_a_threshold_from_labelled_and_unlabeled_rows_keeps_its_false_positive_rate(fpr):
    p = predictions()
    threshold = threshold_at_fpr(p["logit"], p["labelled"], 0.1, fpr)
    fresh = predictions(seed=5)
    others = fresh["lens"] == 0
    assert (fresh["logit"][others] > threshold).mean() == pytest.approx(fpr, rel=0.5 if fpr < 0.05 else 0.2)


def test_strata_count_every_lens_once_and_average_to_the_recall():
    p = predictions()
    found = strata(p, threshold=0.0)
    lenses = int(p["lens"].sum())
    recall = (p["logit"][p["lens"] > 0] >= 0.0).mean()
    assert set(found) == {"theta_E", "arc_snr"}
    for rows in found.values():
        assert sum(row["n"] for row in rows) == lenses
        assert sum(row["n"] * row["recall"]["value"] for row in rows) / lenses == pytest.approx(recall)
    bright = [row["recall"]["value"] for row in found["arc_snr"]]
    assert bright == sorted(bright)


def test_negatives_have_no_strata():
    """A non-lens once had a flux ratio of zero, and with it a stratum."""
    p = predictions()
    before = strata(p, threshold=0.0)
    p["arc_snr"] = np.where(p["lens"] > 0, p["arc_snr"], 5.0)
    assert strata(p, threshold=0.0) == before


def test_failures_name_the_worst_kind_first():
    rows = failures(predictions(), ABOUT, threshold=0.0)
    assert [row["kind"] for row in rows] == ["ring", "spiral"]
    p = predictions()
    assert sum(row["n"] for row in rows) == int(((p["labelled"] == 0) & (p["lens"] == 0)).sum())


def test_tables_are_plain_and_say_what_cannot_be_resolved():
    p = predictions()
    found = tables(p, ABOUT, threshold=0.0, fpr=0.01, prevalence=1e-3)
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["tpr_at_fpr"]["1e-5"]["resolved"] is False
    assert again["tpr_at_fpr"]["1e-5"]["value"] is None
    assert again["tpr_at_fpr"]["1e-2"]["resolved"] is True
    unlabeled = p["labelled"] == 0
    assert found["n_lenses"] + found["n_others"] == int(unlabeled.sum())
    assert found["calibration"]["expected_over_true"] == pytest.approx(1, abs=0.1)
    assert found["calibration"]["at_prevalence"]["expected_over_true"] == pytest.approx(1, abs=0.25)
    coverage = found["calibration"]["conformal"]["coverage_lenses"]
    assert coverage == pytest.approx((p["logit"][p["lens"] > 0] > -2.2).mean())
    point = found["threshold"]
    t, f = point["tpr"]["value"], point["fpr"]["value"]
    assert found["survey"]["purity"]["value"] == pytest.approx(1e-3 * t / (1e-3 * t + 0.999 * f))


def test_the_threshold_is_chosen_on_validation_and_applied_to_the_test_split(tmp_path):
    validation, test = predictions(seed=1), predictions(seed=2)
    write_columns(tmp_path / "predictions" / "val.parquet", validation, {})
    figures = evaluation(test, ABOUT, tmp_path / "figures", fpr=0.02)
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["threshold"]["logit"] == pytest.approx(
        threshold_at_fpr(validation["logit"], validation["labelled"], 0.1, 0.02)
    )
    counts = written["threshold"]["confusion"]
    lens, above = (p[test["labelled"] == 0] for p in (test["lens"] > 0, test["logit"] >= written["threshold"]["logit"]))
    assert counts["lens"] == {"lens": int((lens & above).sum()), "no lens": int((lens & ~above).sum())}
    assert counts["no lens"] == {"lens": int((~lens & above).sum()), "no lens": int((~lens & ~above).sum())}
    assert {"calibration", "confusion", "failures", "ranking", "completeness", "scores"} <= {
        figure.path.stem for figure in figures
    }
    assert all("ynthetic" in figure.caption for figure in figures)
