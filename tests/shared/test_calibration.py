"""Calibration of scores: optima against independent solvers and peers."""

import doctest
import importlib
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from calibrated_logits import calibrated
from skyloom.calibration import (
    BetaCalibration,
    Isotonic,
    Platt,
    Temperature,
    VectorScaling,
    fit_logistic,
    negative_log_likelihood,
)

MODULES = ("calibrator", "conformal", "isotonic", "logistic", "prevalence", "reliability", "scaling")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_docstrings(name):
    assert doctest.testmod(importlib.import_module(f"skyloom.calibration.{name}")).failed == 0


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
