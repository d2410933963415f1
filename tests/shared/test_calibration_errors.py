"""Errors of calibration: laws, peers, what few rows do, and what is no forecast."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from calibrated_logits import calibrated
from skyloom.calibration import (
    BetaCalibration,
    Temperature,
    adaptive_error,
    brier_parts,
    brier_score,
    calibration_error,
    calibration_scores,
    classwise_error,
    debiased_error,
    error_at_the_top,
    maximum_error,
    reliability_table,
    slope_and_intercept,
    top_label_error,
)
from skyloom.errors import DataError

# --- errors of calibration


def test_errors_of_a_perfect_forecaster_and_of_a_wrong_one():
    rng = np.random.default_rng(16)
    p = rng.random(100_000)
    y = rng.random(100_000) < p
    assert calibration_error(p, y) < 0.005 and calibration_error(p, y, scheme="equal_mass") < 0.01
    assert abs(debiased_error(p, y, rng, resamples=50)) < 0.002
    assert calibration_error(p**2, y) == pytest.approx(1 / 6, abs=0.004)
    assert debiased_error(p**2, y, rng, resamples=20) == pytest.approx(1 / 6, abs=0.005)
    assert calibration_error([0.9] * 1000, np.arange(1000) % 2) == pytest.approx(0.4)


def test_the_ece_of_few_rows_is_biased_and_the_debiased_one_is_not():
    rng = np.random.default_rng(17)
    plain, mended = [], []
    for _ in range(60):
        p = rng.beta(2, 5, 300)
        y = rng.random(300) < p
        plain.append(calibration_error(p, y, scheme="equal_mass"))
        mended.append(debiased_error(p, y, rng, resamples=60))
    assert np.mean(plain) > 0.04 and abs(np.mean(mended)) < 0.006


def test_a_forecast_of_zero_has_a_bin():
    """All p = 0 and all positive: the error is 1, neither 0 nor a crash."""
    assert calibration_error(np.zeros(5), np.ones(5)) == 1.0 == maximum_error(np.zeros(5), np.ones(5))
    assert reliability_table(np.zeros(5), np.ones(5)).n[0] == 5


@pytest.mark.parametrize("scheme, strategy", [("equal_width", "uniform"), ("equal_mass", "quantile")])
def test_the_reliability_table_is_that_of_scikit_learn(scheme, strategy):
    z, y = calibrated(1000, 18)
    table = reliability_table(expit(z), y, 10, scheme)
    frequency, forecast = calibration_curve(y, expit(z), n_bins=10, strategy=strategy)
    assert table.frequency[table.n > 0] == pytest.approx(frequency) and table.forecast[table.n > 0] == pytest.approx(forecast)
    assert table.n.sum() == 1000 and np.isnan(table.forecast[table.n == 0]).all()
    gap = np.abs(frequency - forecast)
    assert maximum_error(expit(z), y, 10, scheme) == pytest.approx(gap.max())
    assert brier_score(expit(z), y) == pytest.approx(brier_score_loss(y, expit(z)))


def test_the_intervals_of_a_reliability_table_cover_a_calibrated_forecast():
    inside = total = 0
    for seed in range(30):
        z, y = calibrated(3000, seed)
        t = reliability_table(expit(z), y)
        inside += ((t.frequency_low <= t.forecast) & (t.forecast <= t.frequency_high)).sum()
        total += (t.n > 0).sum()
    assert inside / total == pytest.approx(0.95, abs=0.03)


def test_equal_forecasts_are_never_parted():
    table = reliability_table([0.3] * 50 + [0.7] * 50, [0, 1] * 50, 15, "equal_mass")
    assert sorted(table.n[table.n > 0]) == [50, 50]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["equal_width", "equal_mass"]), st.integers(1, 20))
def test_the_parts_of_the_brier_score_add_up(seed, scheme, bins):
    rng = np.random.default_rng(seed)
    p = rng.random(60)
    y = rng.random(60) < p
    b = brier_parts(p, y, bins, scheme)
    assert b.reliability - b.resolution + b.uncertainty + b.within == pytest.approx(b.score, abs=1e-12)
    coarse = np.round(p * 4) / 4
    b = brier_parts(coarse, y, 200)
    assert b.within == pytest.approx(0, abs=1e-15)
    assert b.reliability - b.resolution + b.uncertainty == pytest.approx(brier_score(coarse, y), abs=1e-12)


def test_a_constant_base_rate_cannot_win():
    z, y = calibrated(50_000, 19, shift=-5)
    constant = calibration_scores(np.full(len(y), logit(y.mean())), y)
    useful = calibration_scores(z, y)
    assert constant["ece"] == pytest.approx(0, abs=1e-12) and constant["brier_skill"] == pytest.approx(0, abs=1e-9)
    assert useful["brier_skill"] > 0.1 and useful["expected_over_found"] == pytest.approx(1, abs=0.1)


def test_slope_and_intercept_are_recovered_with_intervals():
    z, y = calibrated(20_000, 20)
    slope, intercept = slope_and_intercept((z - 0.7) / 1.6, y)
    assert slope == pytest.approx(1.6, abs=0.08) and intercept == pytest.approx(0.7, abs=0.08)
    inside = 0
    for seed in range(200):
        s, i = slope_and_intercept(*calibrated(400, seed))
        inside += int(s.low <= 1 <= s.high) + int(i.low <= 0 <= i.high)
    assert inside / 400 == pytest.approx(0.95, abs=0.03)
    assert np.isnan(slope_and_intercept([0.0, 1.0], [1, 1])[0])


def test_temperature_mends_the_error_on_other_rows():
    z, y = calibrated(4000, 21)
    fitted = Temperature.fit(3 * z[:2000], y[:2000])
    before, after = (calibration_scores(v, y[2000:]) for v in (3 * z[2000:], fitted(3 * z[2000:])))
    assert fitted.temperature == pytest.approx(3, abs=0.3)
    assert after["ece"] < before["ece"] / 2 and after["nll"] < before["nll"] and after["slope"] == pytest.approx(1, abs=0.15)


def test_the_accuracy_of_several_classes_is_that_of_the_argmax():
    """Random labels: confidence 0.82 against an accuracy of 1/3 is an error of one half, not of 1 - confidence."""
    rng = np.random.default_rng(22)
    p = softmax(rng.normal(size=(20_000, 3)) * 3, axis=1)
    y = rng.integers(0, 3, 20_000)
    confidence = p.max(1).mean()
    assert top_label_error(p, y) == pytest.approx(confidence - 1 / 3, abs=0.02)
    y = (p.cumsum(1) > rng.random((20_000, 1))).argmax(1)
    assert top_label_error(p, y) < 0.02 and classwise_error(p, y) < 0.015 and adaptive_error(p, y) < 0.02


def test_errors_of_two_classes_written_as_two_columns():
    z, y = calibrated(3000, 23)
    p = expit(2 * z)
    both = np.column_stack([1 - p, p])
    assert classwise_error(both, y) == pytest.approx(calibration_error(p, y), abs=2e-3)
    assert adaptive_error(both, y) == pytest.approx(adaptive_error(p, y), abs=2e-3)


def test_the_error_at_the_top_sees_what_the_first_bin_hides():
    """At a prevalence of 0.2 per cent, candidates overrated threefold: the plain error hardly moves."""
    z, y = calibrated(200_000, 24, spread=1.5, shift=-8)
    honest = expit(z)
    overrated = np.where(honest > np.quantile(honest, 0.99), np.minimum(3 * honest, 1), honest)
    assert calibration_error(overrated, y) < 0.005
    assert error_at_the_top(overrated, y) > 4 * error_at_the_top(honest, y) and error_at_the_top(overrated, y) > 0.03


@pytest.mark.parametrize(
    "p, y, words",
    [([0.2, 1.2], [0, 1], "sigmoid"), ([np.nan], [0], "row 0"), ([[0.2]], [[0]], r"\[1, 1\]"), ([0.2], [3], "not 3")],
)
def test_what_is_no_forecast_is_refused(p, y, words):
    with pytest.raises(DataError, match=words):
        calibration_error(p, y)


def test_netcal_agrees():
    pytest.importorskip("netcal")
    from netcal.metrics import ACE, ECE, MCE
    from netcal.scaling import BetaCalibration as TheirBeta
    from netcal.scaling import TemperatureScaling

    z, y = calibrated(4000, 25)
    p = expit(1.7 * z + 0.3)
    assert calibration_error(p, y, 15) == pytest.approx(ECE(15).measure(p, y), abs=1e-6)
    assert maximum_error(p, y, 15) == pytest.approx(MCE(15).measure(p, y), abs=1e-6)
    assert adaptive_error(p, y, 15) == pytest.approx(ACE(15).measure(p, y), abs=0.02)
    many = softmax(np.random.default_rng(0).normal(size=(4000, 3)) * 2, axis=1)
    labels = np.random.default_rng(1).integers(0, 3, 4000)
    assert top_label_error(many, labels, 15) == pytest.approx(ECE(15).measure(many, labels), abs=1e-6)
    theirs = TemperatureScaling()
    theirs.fit(p, y)
    assert Temperature.fit(logit(p), y).probability(logit(p)) == pytest.approx(theirs.transform(p), abs=2e-3)
    theirs = TheirBeta()
    theirs.fit(p, y)
    assert BetaCalibration.fit(logit(p), y).probability(logit(p)) == pytest.approx(theirs.transform(p), abs=5e-3)
