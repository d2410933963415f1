"""Operating points: intervals that cover, targets that are kept, and what they mean at the prevalence of a survey."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm

from skyloom.errors import ConfigError
from skyloom.metrics import (
    Inspection,
    OperatingPoint,
    Prevalence,
    Ranking,
    best_f_beta,
    budget_curve,
    clopper_pearson,
    discovery_curve,
    expected_candidates,
    f_beta,
    operating_point,
    purity,
    ranking_scores,
    survey_candidates,
    survey_purity,
    threshold_for_precision,
    threshold_for_recall,
    tpr_at_fpr,
    tpr_before,
    wilson,
    youden,
)


def sample(seed, n_positive=200, n_negative=2000, shift=2.0, rounded=None):
    rng = np.random.default_rng(seed)
    s = np.concatenate([rng.normal(shift, 1, n_positive), rng.normal(0, 1, n_negative)])
    return (s if rounded is None else s.round(rounded)), np.arange(len(s)) < n_positive


@pytest.mark.parametrize("k, n", [(0, 12), (3, 12), (12, 12), (250, 1000)])
def test_intervals_of_a_share_are_those_of_scipy(k, n):
    for ours, method in ((clopper_pearson, "exact"), (wilson, "wilson")):
        theirs = binomtest(k, n).proportion_ci(0.9, method=method)
        assert [float(v) for v in ours(k, n, 0.9)] == pytest.approx([theirs.low, theirs.high], abs=1e-9)


def test_clopper_pearson_never_covers_less_than_it_says():
    n = 30
    low, high = clopper_pearson(np.arange(n + 1), n)
    for p in np.linspace(0.001, 0.999, 97):
        assert binom.pmf(np.arange(n + 1), n, p)[(low <= p) & (p <= high)].sum() >= 0.95 - 1e-12


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.9, 0.95, 1.0]), st.sampled_from([None, 0, 1]))
def test_targets_are_kept(seed, target, rounded):
    """A recall of 0.8993 does not meet 0.9; and no other threshold that meets the target is better."""
    r = Ranking(*sample(seed, 40, 100, rounded=rounded))
    point = threshold_for_recall(r, target)
    assert float(point.tpr) >= target
    assert all(float(operating_point(r, t).tpr) < target for t in r.positives[r.positives > point.threshold])
    point = threshold_for_precision(r, target)
    best = max(
        (operating_point(r, t).true_positives for t in r.positives if operating_point(r, t).precision >= target), default=0
    )
    assert point.true_positives == best
    assert point.precision >= target or (math.isnan(point.threshold) and best == 0)


def test_no_threshold_is_null_in_json_and_flags_nothing():
    point = tpr_before(Ranking([0.9, 0.1, 0.5, 0.6], [0, 0, 1, 1]), 1)
    assert math.isnan(point.threshold) and point.true_positives == point.false_positives == 0
    assert json.loads(json.dumps(point.to_json(), allow_nan=False))["threshold"] is None


def test_youden_is_finite_and_the_largest():
    r = Ranking(*sample(0, 50, 80, rounded=1))
    fpr, tpr, _ = r.roc()
    point = youden(r)
    assert math.isfinite(point.threshold) and float(point.tpr) - float(point.fpr) == pytest.approx((tpr - fpr).max())
    spoiled = youden(Ranking([3.0, 1.0, 2.0], [0, 1, 0]))
    assert math.isfinite(spoiled.threshold)


def test_one_class_leaves_a_full_table_of_counts():
    point = operating_point(Ranking([0.2, 0.9], [0, 0]), 0.5)
    assert (point.true_positives, point.false_positives, point.true_negatives, point.false_negatives) == (0, 1, 1, 0)
    assert math.isnan(point.tpr) and math.isnan(youden(Ranking([0.2], [1])).threshold)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_tpr_at_fpr_is_exact_among_ties_and_monotone(seed):
    s, y = sample(seed, 30, 200, rounded=1)
    r = Ranking(s, y)
    last = 0.0
    for rate in (0.05, 0.1, 0.29, 0.5):
        found = tpr_at_fpr(r, rate)
        exact = max(((s >= t) & y).sum() for t in [*s, np.inf] if ((s >= t) & ~y).sum() <= rate * 200 + 1e-9) / 30
        assert float(found.tpr) == exact >= last and found.tpr.low <= exact <= found.tpr.high
        last = exact


def test_tpr_at_fpr_covers_the_truth_with_both_errors():
    """Binormal, d' = 2: TPR at FPR 0.01 is 0.3721. A threshold taken as known would cover far less often."""
    truth, covered, naive, trials = norm.sf(norm.isf(0.01) - 2), 0, 0, 400
    for seed in range(trials):
        r = Ranking(*sample(seed, 800, 1500))
        found = tpr_at_fpr(r, 0.01)
        covered += found.tpr.low <= truth <= found.tpr.high
        naive += found.point.tpr.low <= truth <= found.point.tpr.high
    assert covered / trials >= 0.95 and naive / trials < 0.8


def test_what_the_negatives_cannot_resolve_is_said():
    r = Ranking(*sample(1, 100, 20_000))
    found = tpr_at_fpr(r, 1e-5)
    assert not found.resolved and math.isnan(found.tpr) and found.tpr.low == 0.0
    assert str(found) == "FPR 1e-05 is not resolvable with 20,000 negatives: 1,000,000 are needed"
    assert tpr_at_fpr(r, 5e-4).resolved and not tpr_at_fpr(r, 4.9e-4).resolved
    assert math.isnan(ranking_scores(*sample(1, 100, 20_000))["tpr_at_fpr_1e-4"])


def test_f_beta_of_the_second_challenge():
    r = Ranking(*sample(2, 100, 400, rounded=1))
    value, point = best_f_beta(r)
    everywhere = [operating_point(r, t).f_beta(0.001) for t in np.concatenate([r.positives, r.negatives])]
    assert value == pytest.approx(max(everywhere)) and point.f_beta(0.001) == pytest.approx(value)
    assert f_beta(0.5, 1.0, 1.0) == pytest.approx(2 / 3) and f_beta(0, 0) == 0
    rarer, point = best_f_beta(r, prevalence=1e-3)
    pure = [float(f_beta(purity(p.tpr, p.fpr, 1e-3), p.tpr, 0.001)) for p in (operating_point(r, t) for t in r.positives)]
    assert rarer == pytest.approx(max(pure)) and rarer <= value


# --- at the prevalence of a survey


def test_purity_in_a_survey():
    assert purity([0.7] * 3 + [0.75, 0.75], [0.1, 0.01, 0.001, 1e-4, 1e-4], [1e-3] * 4 + [1e-4]) == pytest.approx(
        [0.007, 0.066, 0.41, 0.88, 0.43], rel=0.03
    )
    assert float(expected_candidates(0.95, 0.05, 1e-3) * purity(0.95, 0.05, 1e-3)) == pytest.approx(950)
    assert np.isnan(purity(0, 0, 0.1))


def test_the_interval_of_purity_knows_what_no_false_positive_is_worth():
    rng = np.random.default_rng(0)
    few = survey_purity(OperatingPoint(0, 50, 0, 100, 1000), 1e-3, rng)
    many = survey_purity(OperatingPoint(0, 50, 0, 100, 1_000_000), 1e-3, rng)
    assert few == many == 1.0 and few.low < 0.35 < 0.99 < many.low
    vague = survey_purity(OperatingPoint(0, 5000, 100, 10_000, 100_000), Prevalence(1e-3, 5e-4, 2e-3, "sky"), rng)
    sharp = survey_purity(OperatingPoint(0, 5000, 100, 10_000, 100_000), 1e-3, rng)
    assert vague == sharp and vague.high - vague.low > 2 * (sharp.high - sharp.low)
    assert vague.low == pytest.approx(float(purity(0.5, 1e-3, 5e-4)), rel=0.1)  # the prevalence dominates


def test_the_interval_of_purity_covers():
    rng, truth, covered, trials = np.random.default_rng(1), float(purity(0.6, 0.01, 1e-2)), 0, 300
    for _ in range(trials):
        point = OperatingPoint(0, int(rng.binomial(200, 0.6)), int(rng.binomial(3000, 0.01)), 200, 3000)
        e = survey_purity(point, 1e-2, rng, draws=1000)
        covered += e.low <= truth <= e.high
    assert abs(covered / trials - 0.95) < 0.04
    point = OperatingPoint(0, 120, 30, 200, 3000)
    e = survey_candidates(point, 1e-2, 1e6, rng)
    assert e == pytest.approx(1e6 * (0.006 + 0.0099)) and e.low < e < e.high


def test_a_prevalence_names_its_population():
    with pytest.raises(ConfigError, match="population"):
        Prevalence(1e-3)
    with pytest.raises(ConfigError, match="low <= value"):
        Prevalence(1e-3, low=2e-3, population="clusters")
    drawn = Prevalence(1e-3, 5e-4, 3e-3, population="clusters").draw(np.random.default_rng(0), 200_000)
    assert np.quantile(drawn, [0.025, 0.5, 0.975]) == pytest.approx([5e-4, 1e-3, 3e-3], rel=0.02)


def test_budget_curve_is_the_counts_times_the_density():
    r = Ranking(*sample(3, 500, 20_000, rounded=3))
    curve = budget_curve(r, 10_000, 1e-3, np.random.default_rng(0), points=50)
    assert len(curve.threshold) <= 50 and (np.diff(curve.candidates) > 0).all() and (np.diff(curve.completeness) >= 0).all()
    k = curve.at_budget(30.0)
    point = operating_point(r, curve.threshold[k])
    assert curve.candidates[k] <= 30 < curve.candidates[k + 1]
    assert curve.candidates[k] == pytest.approx(10_000 * (1e-3 * float(point.tpr) + 0.999 * float(point.fpr)))
    assert curve.found == pytest.approx(curve.candidates * curve.purity)
    assert curve.found == pytest.approx(10 * curve.completeness)
    assert (curve.purity_low <= curve.purity).all() and (curve.purity <= curve.purity_high).all()
    assert curve.at_budget(0.0) == -1


def test_discovery_curve_is_of_the_survey_not_of_the_sample():
    r = Ranking(*sample(4, 300, 3000))
    eye = Inspection(rate=10, sensitivity=0.8, specificity=0.9, confirmation=0.5, hour_cost=50, follow_up_cost=1000)
    curve = discovery_curve(r, 1e6, 1e-4, eye, np.random.default_rng(0))
    assert curve.discoveries[-1] == pytest.approx(1e6 * 1e-4 * 0.8 * 0.5) and curve.candidates[-1] == pytest.approx(1e6)
    assert (np.diff(curve.hours) > 0).all() and (np.diff(curve.discoveries) >= 0).all()
    assert curve.followed_up[-1] == pytest.approx(100 * 0.8 + 999_900 * 0.1)
    assert curve.cost[-1] == pytest.approx(1e5 * 50 + curve.followed_up[-1] * 1000)
    twice = discovery_curve(r, 1e6, 2e-4, eye, np.random.default_rng(0))
    assert twice.discoveries == pytest.approx(2 * curve.discoveries)
    assert (curve.discoveries_low <= curve.discoveries * 1.001).all() and (
        curve.discoveries <= curve.discoveries_high * 1.05
    ).all()
    with pytest.raises(ConfigError, match="rate"):
        Inspection(rate=0)
