"""Calibration in use: what must be refused, how prevalence shifts, and files."""

import json
import warnings

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import spearmanr
from sklearn.isotonic import IsotonicRegression

from calibrated_logits import calibrated
from skyloom.calibration import (
    BetaCalibration,
    Isotonic,
    Platt,
    Temperature,
    VectorScaling,
    calibrator_from_json,
    estimate_prevalence,
    load_calibrator,
    save_calibrator,
    shift_prevalence,
)
from skyloom.errors import ConfigError, DataError

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
