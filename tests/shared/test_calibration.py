"""Calibration of scores: optima against independent solvers and peers, laws of the errors, and what must be refused."""

import doctest
import importlib
import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax
from scipy.stats import spearmanr
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from skyloom.calibration import (
    BetaCalibration,
    Isotonic,
    Platt,
    Temperature,
    VectorScaling,
    adaptive_error,
    brier_parts,
    brier_score,
    calibration_error,
    calibration_scores,
    calibrator_from_json,
    classwise_error,
    debiased_error,
    error_at_the_top,
    estimate_prevalence,
    fit_logistic,
    load_calibrator,
    maximum_error,
    negative_log_likelihood,
    reliability_table,
    save_calibrator,
    shift_prevalence,
    slope_and_intercept,
    top_label_error,
)
from skyloom.errors import ConfigError, DataError

MODULES = ("calibrator", "conformal", "isotonic", "logistic", "prevalence", "reliability", "scaling")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_docstrings(name):
    assert doctest.testmod(importlib.import_module(f"skyloom.calibration.{name}")).failed == 0


def calibrated(n, seed, spread=2.0, shift=0.0):
    """Logits that are calibrated, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    z = rng.normal(shift, spread, n)
    return z, (rng.random(n) < expit(z)).astype(int)


# --- temperature


@pytest.mark.parametrize("truth", [0.05, 0.1, 0.5, 2, 3, 10, 30, 50])
def test_temperature_is_recovered_and_is_the_optimum(truth):
    """Adam for 300 steps stopped at 6 where the truth is 10 or 30."""
    z, y = calibrated(20_000, 0)
    fitted = Temperature.fit(truth * z, y)
    assert fitted.temperature == pytest.approx(truth, rel=0.02)
    best = minimize_scalar(
        lambda s: negative_log_likelihood(truth * z * np.exp(s), y), bracket=(-np.log(truth) - 1, -np.log(truth) + 1), tol=1e-12
    )
    assert fitted.temperature == pytest.approx(np.exp(-best.x), rel=1e-6)
    after = fitted(truth * z)
    assert negative_log_likelihood(after, y) <= negative_log_likelihood(truth * z, y) + 1e-12
    assert roc_auc_score(y, after) == roc_auc_score(y, truth * z)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 50), st.integers(0, 10**6))
def test_temperature_is_equivariant(factor, seed):
    z, y = calibrated(200, seed)
    if y.min() == y.max():
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, scaled = Temperature.fit(z, y).temperature, Temperature.fit(factor * z, y).temperature
    if 1e-3 < one < 1e2:
        assert scaled == pytest.approx(factor * one, rel=1e-8)


def test_temperature_of_several_classes():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(20_000, 4)) * 2
    y = (softmax(z, axis=1).cumsum(1) > rng.random((20_000, 1))).argmax(1)
    fitted = Temperature.fit(3 * z, y)
    best = minimize_scalar(
        lambda s: -log_softmax(3 * z * np.exp(s), axis=1)[np.arange(len(y)), y].mean(), bracket=(-2, 0), tol=1e-12
    )
    assert fitted.temperature == pytest.approx(3, abs=0.1) and fitted.temperature == pytest.approx(np.exp(-best.x), rel=1e-6)
    assert (fitted.probability(z).argmax(1) == z.argmax(1)).all()


def test_separable_and_useless_logits_stop_at_the_bounds_with_a_warning():
    with pytest.warns(UserWarning, match="separated"):
        assert Temperature.fit([-1.0, -2.0, 3.0], [0, 0, 1]).temperature == pytest.approx(1e-4)
    with pytest.warns(UserWarning, match="less than nothing"):
        assert Temperature.fit([-1.0, -2.0, 3.0], [1, 1, 0]).temperature == pytest.approx(1e4)


def test_the_variance_of_a_logit_is_divided_by_the_square():
    """z = 2, v = 0.5 at T = 2: the interval of the probability is 0.268 wide, not 0.511."""
    z, y = calibrated(100, 0)
    t = Temperature(2.0, fitted_on=Temperature.fit(z, y).fitted_on)
    centre, half = t(2.0), 1.96 * np.sqrt(t.variance(0.5))
    assert expit(centre + half) - expit(centre - half) == pytest.approx(0.268, abs=5e-4)


# --- the others, against their objectives and peers


class Identity(ClassifierMixin, BaseEstimator):
    """A classifier whose decision function is its one feature."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, x):
        return np.asarray(x)[:, 0]

    def predict(self, x):
        return self.classes_[(np.asarray(x)[:, 0] > 0).astype(int)]


def sklearn_probability(method, z, y, at):
    frozen = FrozenEstimator(Identity().fit(z[:, None], y))
    return CalibratedClassifierCV(frozen, method=method, ensemble=False).fit(z[:, None], y).predict_proba(at[:, None])[:, 1]


@pytest.mark.parametrize("method, cls", [("sigmoid", Platt), ("isotonic", Isotonic), ("temperature", Temperature)])
def test_scikit_learn_agrees(method, cls):
    z, y = calibrated(3000, 2, shift=-0.5)
    at = np.linspace(-6, 6, 41)
    ours, theirs = cls.fit(3 * z + 1, y).probability(at), sklearn_probability(method, 3 * z + 1, y, at)
    assert ours == pytest.approx(theirs, abs=1e-4 if method != "isotonic" else 1e-6)


def test_platt_stays_finite_where_classes_are_separated():
    fitted = Platt.fit([-2.0, -1.0, 1.0, 2.0], [0, 0, 1, 1])
    assert 0 < fitted.slope < 10 and fitted.probability([5.0])[0] < 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(-2, 2), st.floats(0.2, 4))
def test_beta_calibration_is_the_bounded_optimum(seed, offset, slope):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, 400)
    y = (rng.random(400) < expit(slope * z + offset)).astype(int)
    if y.min() == y.max():
        return
    fitted = BetaCalibration.fit(z, y)
    p = np.clip(expit(z), 1e-12, 1 - 1e-12)

    def nll(w):
        return negative_log_likelihood(w[0] * np.log(p) - w[1] * np.log1p(-p) + w[2], y)

    theirs = minimize(nll, [1, 1, 0], method="L-BFGS-B", bounds=[(0, None), (0, None), (None, None)], options={"maxiter": 500})
    assert nll([fitted.a, fitted.b, fitted.c]) <= theirs.fun + 1e-8
    assert fitted.a >= 0 and fitted.b >= 0 and np.isfinite(fitted(np.array([-100, -10, 0, 10, 100.0]))).all()
    assert (np.diff(fitted(np.linspace(-8, 8, 50))) >= -1e-12).all()


def test_vector_scaling_is_the_optimum_and_beats_one_temperature():
    rng = np.random.default_rng(3)
    z = rng.normal(size=(6000, 4)) * 2
    truth = z * [0.3, 1.0, 2.0, 0.7] + [1.0, 0.0, -1.0, 0.5]
    y = (softmax(truth, axis=1).cumsum(1) > rng.random((6000, 1))).argmax(1)
    fitted = VectorScaling.fit(z, y)
    p = fitted.probability(z) - np.eye(4)[y]
    assert np.abs([(p * z).mean(0), p.mean(0)]).max() < 1e-10  # the gradient
    assert fitted.scale == pytest.approx([0.3, 1.0, 2.0, 0.7], abs=0.15)
    assert fitted.offset == pytest.approx(np.array([1, 0, -1, 0.5]) - 0.125, abs=0.15)

    def nll(calibrator):
        return -np.log(calibrator.probability(z)[np.arange(len(y)), y]).mean()

    assert nll(fitted) < nll(Temperature.fit(z, y)) - 0.05


def test_logistic_regression_is_that_of_scikit_learn_with_and_without_ridge():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(500, 3))
    y = rng.random(500) < expit(x @ [1, -2, 0] - 0.5)
    features = np.column_stack([x, np.ones(500)])
    w, hessian = fit_logistic(features, y)
    theirs = LogisticRegression(C=1e12, tol=1e-12, max_iter=1000).fit(x, y)
    assert w == pytest.approx([*theirs.coef_[0], theirs.intercept_[0]], abs=1e-5)
    assert (np.linalg.eigvalsh(hessian) > 0).all()
    w, _ = fit_logistic(features, y, l2=[0.01, 0.01, 0.01, 0.0])
    theirs = LogisticRegression(C=1 / (0.01 * 500), tol=1e-12, max_iter=1000).fit(x, y)
    assert w == pytest.approx([*theirs.coef_[0], theirs.intercept_[0]], abs=1e-5)
    w, _ = fit_logistic(features, y, lower=[0, 0, 0, -np.inf])
    assert w[1] == 0 and w[0] > 0


# --- isotonic


def test_isotonic_keeps_the_base_rate_and_is_that_of_scikit_learn():
    z, y = calibrated(20_000, 5, shift=-3)
    fitted = Isotonic.fit(2 * z, y)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(2 * z, y)
    at = np.linspace(-20, 10, 200)
    assert fitted.probability(at) == pytest.approx(theirs.predict(at), abs=1e-12)
    assert fitted.probability(2 * z).mean() == pytest.approx(y.mean(), abs=1e-9)
    assert np.isfinite(fitted([-100.0, 100.0])).all() and (np.diff(fitted(at)) >= 0).all()
    assert fitted.at_prevalence(1e-4).probability(2 * z).mean() < y.mean() / 10


def test_the_band_of_an_isotonic_map_covers_and_narrows():
    widths = []
    for n in (2000, 20_000):
        z, y = calibrated(n, 6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = Isotonic.fit(z, y, rng=np.random.default_rng(0), resamples=60)
        at = np.linspace(-3, 3, 61)
        low, high = fitted.interval(at)
        assert ((low <= expit(at)) & (expit(at) <= high)).mean() > 0.75
        assert ((low <= fitted.probability(at) + 1e-12) & (fitted.probability(at) <= high + 1e-12)).mean() > 0.9
        widths.append((high - low).mean())
    assert widths[1] < 0.65 * widths[0]
    low, high = Isotonic.fit(z, y).interval(at)
    assert np.isnan(low).all() and np.isnan(high).all()


def test_copies_of_a_group_do_not_narrow_the_band():
    z, y = calibrated(1500, 7)
    copies = np.repeat(np.arange(1500), 4)
    widths = []
    for rows, groups in ((np.arange(1500), None), (copies, None), (copies, copies)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = Isotonic.fit(z[rows], y[rows], rng=np.random.default_rng(0), groups=groups, resamples=60)
        low, high = fitted.interval(np.linspace(-2, 2, 41))
        widths.append((high - low).mean())
    assert widths[1] < 0.8 * widths[0] and widths[2] == pytest.approx(widths[0], rel=0.15)


def test_isotonic_on_few_positives_warns():
    with pytest.warns(UserWarning, match="positives"):
        Isotonic.fit(*calibrated(500, 8))


# --- what must be refused


def test_class_weights_are_refused():
    """Balanced weights turn a calibrated score of mean 0.01 into one of mean 0.23."""
    rng = np.random.default_rng(9)
    z = rng.normal(-5.5, 1.3, 100_000)
    y = (rng.random(100_000) < expit(z)).astype(int)
    pi = y.mean()
    balanced = np.where(y == 1, 1 / pi, 1 / (1 - pi))
    wrong = IsotonicRegression(out_of_bounds="clip").fit(z, y, sample_weight=balanced).predict(z).mean()
    assert wrong > 10 * pi
    for cls in (Isotonic, Platt, BetaCalibration, Temperature):
        with pytest.raises(ConfigError, match="class-weighted"):
            cls.fit(z, y, sampling_weights=balanced)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Isotonic.fit(z, y).probability(z).mean() == pytest.approx(pi, abs=1e-6)
        assert Isotonic.fit(z, y, sampling_weights=np.ones(len(y))).probability(z).mean() == pytest.approx(pi, abs=1e-6)


def test_inverse_probability_weights_undo_a_sample_stratified_by_score():
    """High scores vetted ten times as often as low ones: weighted, the calibrator is that of the field."""
    rng = np.random.default_rng(10)
    z = rng.normal(-2, 2, 200_000)
    y = (rng.random(200_000) < expit(z / 2 - 1)).astype(int)
    drawn = rng.random(200_000) < (share := np.where(z > 0, 0.5, 0.05))
    fitted = BetaCalibration.fit(z[drawn], y[drawn], sampling_weights=1 / share[drawn])
    assert fitted.probability(z).mean() == pytest.approx(y.mean(), rel=0.05)
    assert fitted.fitted_on.prevalence == pytest.approx(y.mean(), rel=0.05)


@pytest.mark.parametrize("cls", [Temperature, Platt, BetaCalibration, Isotonic])
def test_rows_that_were_trained_on_are_refused(cls):
    z, y = calibrated(3000, 11)
    ids = np.array([f"sky{k}" for k in range(3000)])
    with pytest.raises(DataError, match="2 of the rows .* trained on"):
        cls.fit(z, y, ids=ids, trained_on=["sky7", "sky8", "elsewhere"])
    fitted = cls.fit(z, y, ids=ids, trained_on=["elsewhere"])
    with pytest.raises(DataError, match="another split"):
        fitted.fitted_on.check_other_than(ids[::-1])
    fitted.fitted_on.check_other_than(ids[:10])


@pytest.mark.parametrize(
    "z, y, words",
    [
        ([0.0, np.inf], [0, 1], "row 1"),
        ([[0.0], [1.0]], [[0], [1]], "flatten"),
        ([0.0, 1.0], [1, 1], r"every class.*\[0, 2\]"),
        ([0.0, 1.0], [1, 2], "not 2"),
    ],
)
def test_what_cannot_be_calibrated_on_is_said(z, y, words):
    with pytest.raises(DataError, match=words):
        Temperature.fit(z, y)


# --- prevalence


def test_prior_shift_is_bayes_on_gaussian_classes():
    x = np.linspace(-5, 5, 101)

    def posterior(pi):
        return 2 * x + logit(pi)  # N(1, 1) against N(-1, 1)

    assert shift_prevalence(posterior(0.5), 0.5, 1e-5) == pytest.approx(posterior(1e-5), abs=1e-12)
    assert shift_prevalence(shift_prevalence(x, 0.3, 0.01), 0.01, 0.3) == pytest.approx(x, abs=1e-12)


def test_calibration_on_a_balanced_sample_holds_in_the_survey_after_the_shift():
    rng = np.random.default_rng(12)

    def rows(n, pi):
        y = rng.random(n) < pi
        return 3 * rng.normal(np.where(y, 1.0, -1.0)), y.astype(int)

    fitted = Platt.fit(*rows(20_000, 0.5))
    z, y = rows(400_000, 2e-3)
    assert fitted.probability(z).sum() / y.sum() > 10
    assert fitted.at_prevalence(2e-3).probability(z).sum() / y.sum() == pytest.approx(1, abs=0.12)
    assert fitted.at_prevalence(2e-3, source=0.5)(0.0) == pytest.approx(fitted(0.0) + logit(2e-3))


def test_a_prevalence_is_shifted_once():
    once = Temperature.fit(*calibrated(500, 13)).at_prevalence(0.01)
    with pytest.raises(ConfigError, match="already"):
        once.at_prevalence(0.01)
    with pytest.raises(ConfigError, match=r"\(0, 1\)"):
        once.calibrator.at_prevalence(0)


@pytest.mark.parametrize("pi", [0.3, 0.05, 0.005])
def test_prevalence_is_estimated_from_calibrated_scores(pi):
    rng = np.random.default_rng(14)
    y = rng.random(20_000) < pi
    z = 4 * rng.normal(np.where(y, 2.0, -2.0))  # log-likelihood ratio of N(2, 1) against N(-2, 1): calibrated at one half
    found = estimate_prevalence(z, 0.5, rng, resamples=40)
    assert found == pytest.approx(y.mean(), rel=0.08) and found.low < y.mean() < found.high
    em = 0.5
    for _ in range(300):
        em = expit(shift_prevalence(z, 0.5, em)).mean()
    assert found == pytest.approx(em, rel=1e-6)


# --- JSON


def every_calibrator():
    z, y = calibrated(2500, 15)
    rng = np.random.default_rng(0)
    many = rng.normal(size=(500, 3))
    yield Temperature.fit(z, y, ids=np.arange(2500)), z
    yield Platt.fit(z, y), z
    yield BetaCalibration.fit(z, y), z
    yield Isotonic.fit(z, y), z
    yield Isotonic.fit(z, y, rng=rng, resamples=5), z
    yield Platt.fit(z, y).at_prevalence(1e-3), z
    yield VectorScaling.fit(many, rng.integers(0, 3, 500)), many


def test_every_calibrator_survives_json(tmp_path):
    for fitted, z in every_calibrator():
        back = calibrator_from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
        save_calibrator(fitted, tmp_path / "calibrator.json")
        for again in (back, load_calibrator(tmp_path / "calibrator.json")):
            assert (again.probability(z) == fitted.probability(z)).all() and (again(z) == fitted(z)).all()
            assert again.fitted_on.counts == fitted.fitted_on.counts and again.fitted_on.digest == fitted.fitted_on.digest
            assert type(again) is type(fitted)


def test_a_file_builds_nothing_but_calibrators():
    with pytest.raises(ConfigError, match="temperature"):
        calibrator_from_json({"kind": "temperatur"})
    with pytest.raises(DataError, match="lacks temperature"):
        calibrator_from_json({"kind": "temperature", "fitted_on": {}})


def test_the_order_of_scores_is_kept():
    for fitted, z in every_calibrator():
        if z.ndim == 1 and not isinstance(fitted, Isotonic):
            assert spearmanr(fitted(z), z).statistic == pytest.approx(1.0)


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
