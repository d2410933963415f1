"""Conformal guarantees: coverage over many calibration samples, in each category, and refusals where nothing is promised."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, kstest

from skyloom.calibration import (
    Conformal,
    calibrator_from_json,
    conformal_p_values,
    control_false_discoveries,
    recall_threshold,
    set_coverage,
)
from skyloom.errors import ConfigError, DataError


def rows(rng, n, pi=0.5, noise=1.0):
    y = (rng.random(n) < pi).astype(int)
    return rng.normal(np.where(y, 1.0, -1.0), noise), y


def within_binomial(covered, trials, p):
    return binom.ppf(0.005, trials, p) <= covered <= binom.ppf(0.995, trials, p)


@pytest.mark.parametrize("n, miss_rate", [(19, 0.1), (200, 0.1), (99, 0.01)])
def test_sets_hold_the_label_as_often_as_promised(n, miss_rate):
    """One new row for each of many calibration samples: coverage is ceil((n + 1)(1 - a))/(n + 1), whatever the model is."""
    rng, held, trials = np.random.default_rng(0), 0, 1500
    for _ in range(trials):
        z, y = rows(rng, n + 1)
        z = z**3 - 2  # far from calibrated
        if len(np.unique(y[:-1])) < 2:
            continue
        sets = Conformal.fit(z[:-1], y[:-1], miss_rate).sets(z[-1:])
        held += sets[0, y[-1]]
    assert within_binomial(held, trials, math.ceil((n + 1) * (1 - miss_rate) - 1e-9) / (n + 1))


def test_rare_lenses_are_held_only_by_mondrian_sets():
    rng = np.random.default_rng(1)
    z, y = rows(rng, 20_000, pi=0.02)
    z, new, truth = z - 4, *rows(rng, 50_000, pi=0.02)
    new = new - 4
    plain = set_coverage(Conformal.fit(z, y, 0.1).sets(new), truth)
    mondrian = set_coverage(Conformal.fit(z, y, 0.1, by_label=True).sets(new), truth)
    assert plain["all"] == pytest.approx(0.9, abs=0.01) and plain["label 1"] < 0.6
    for name in ("label 0", "label 1"):
        assert mondrian[name] == pytest.approx(0.9, abs=0.04)


def test_each_survey_keeps_its_promise_and_shift_is_seen():
    rng = np.random.default_rng(2)
    z, y = rows(rng, 8000)
    survey = np.where(rng.random(8000) < 0.5, "hsc", "des")
    z = np.where(survey == "des", z * 0.2, z)
    fitted = Conformal.fit(z[:4000], y[:4000], 0.1, groups=survey[:4000])
    coverage = set_coverage(fitted.sets(z[4000:], survey[4000:]), y[4000:], survey[4000:])
    assert coverage["group hsc"] == pytest.approx(0.9, abs=0.025) and coverage["group des"] == pytest.approx(0.9, abs=0.025)
    blurred = set_coverage(fitted.sets(-z[4000:], survey[4000:]), y[4000:])
    assert blurred["all"].high < 0.8
    with pytest.raises(DataError, match="'kids'"):
        fitted.sets([0.0], ["kids"])
    with pytest.raises(DataError, match="give groups"):
        fitted.sets([0.0])


def test_too_few_rows_keep_every_label():
    fitted = Conformal.fit([-1.0, 1.0, 2.0], [0, 1, 1], 0.01)
    assert fitted.sets([0.0, 50.0]).all() and math.isinf(fitted.thresholds[0][0])
    back = calibrator_from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    assert back == fitted


def test_sets_of_several_classes_survive_json():
    rng = np.random.default_rng(3)
    z = rng.normal(size=(900, 3)) * 2
    y = z.argmax(1)
    groups = rng.choice(["b", "a"], 900)
    fitted = Conformal.fit(z, y, 0.2, by_label=True, groups=groups, ids=np.arange(900), trained_on=[1000])
    back = calibrator_from_json(json.loads(json.dumps(fitted.to_json())))
    assert back == fitted and (back.sets(z, groups) == fitted.sets(z, groups)).all()
    with pytest.raises(DataError, match="trained on"):
        Conformal.fit(z, y, 0.2, ids=np.arange(900), trained_on=[5])
    with pytest.raises(ConfigError):
        Conformal.fit(z, y, 0.0)


# --- miss rates


@pytest.mark.parametrize("miss_rate, least", [(0.1, 9), (0.05, 19), (0.01, 99)])
def test_a_miss_rate_needs_enough_positives(miss_rate, least):
    rng = np.random.default_rng(4)
    recall_threshold(rng.normal(size=least), miss_rate)
    with pytest.raises(DataError, match=f"needs {least} "):
        recall_threshold(rng.normal(size=least - 1), miss_rate)


def test_the_miss_rate_is_kept():
    rng, missed, trials = np.random.default_rng(5), 0, 3000
    for _ in range(trials):
        s = rng.standard_t(2, 31)
        missed += s[-1] < recall_threshold(s[:-1], 0.1)
    assert within_binomial(missed, trials, 3 / 31)


def test_p_values_are_uniform_for_the_reference_and_small_for_anomalies():
    rng = np.random.default_rng(6)
    known = rng.normal(size=4000)
    p = conformal_p_values(known, rng.normal(size=4000))
    assert kstest(p, "uniform").pvalue > 0.001 and conformal_p_values(known, [9.0])[0] == 1 / 4001
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.02)


# --- false discoveries


def fdr(threshold, pi, shift):
    from scipy.stats import norm

    t, f = norm.sf(threshold - shift), norm.sf(threshold)
    return (1 - pi) * f / (pi * t + (1 - pi) * f)


def test_false_discoveries_are_controlled_at_the_prevalence_of_the_survey():
    """Over 300 calibration samples, balanced, the true rate at a prevalence of one per cent exceeds the target at most as often
    as allowed; and the rule is worth having."""
    rng, exceeded, found, trials = np.random.default_rng(7), 0, [], 300
    for _ in range(trials):
        s = np.concatenate([rng.normal(4, 1, 500), rng.normal(0, 1, 20_000)])
        rule = control_false_discoveries(s, np.arange(20_500) < 500, 0.2, 0.01, confidence=0.9)
        exceeded += fdr(rule.threshold, 0.01, 4) > 0.2
        assert rule.bound <= 0.2 and rule.completeness.low <= rule.completeness
        found.append(float(rule.completeness))
    assert exceeded / trials <= 0.1 and np.mean(found) > 0.6


def test_a_rule_at_the_prevalence_of_the_sample_would_not_hold_in_the_survey():
    rng = np.random.default_rng(8)
    s, y = np.concatenate([rng.normal(3, 1, 5000), rng.normal(0, 1, 50_000)]), np.arange(55_000) < 5000
    balanced, survey = (control_false_discoveries(s, y, 0.2, pi) for pi in (0.5, 0.01))
    assert fdr(balanced.threshold, 0.01, 3) > 0.5 > 0.2 > fdr(survey.threshold, 0.01, 3)
    assert balanced.completeness > survey.completeness


def test_what_cannot_be_controlled_is_refused_with_what_it_needs():
    s, y = np.arange(1100.0), np.arange(1100) >= 1000
    with pytest.raises(DataError, match=r"1,000 negatives .* needs about ([\d,]+) negatives") as error:
        control_false_discoveries(s, y, 0.1, 1e-4)
    need = int(str(error.value).split("needs about ")[1].split()[0].replace(",", ""))
    perfect = np.concatenate([np.zeros(2 * need), np.ones(300_000)])
    rule = control_false_discoveries(perfect + np.linspace(0, 0.5, len(perfect)), perfect > 0.5, 0.1, 1e-4)
    assert rule.bound <= 0.1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_ties_never_help_a_rule(seed):
    """Rounded scores: flagged strictly above the threshold, no more calibration negatives than the rank allows."""
    rng = np.random.default_rng(seed)
    s, y = np.round(np.concatenate([rng.normal(4, 1, 300), rng.normal(0, 1, 3000)]), 1), np.arange(3300) < 300
    try:
        rule = control_false_discoveries(s, y, 0.5, 0.05)
    except DataError:
        return
    assert ((s > rule.threshold) & ~y).sum() / 3000 <= rule.false_positive_rate_bound
