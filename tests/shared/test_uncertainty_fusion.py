"""Fusion and stacking of members: closed forms, and what earlier ensembles got wrong."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from skyloom.calibration import Temperature, calibrator_from_json, negative_log_likelihood
from skyloom.errors import DataError
from skyloom.metrics import Ranking, auroc_delong
from skyloom.uncertainty import (
    Stack,
    fit_trust,
    fit_variance_scale,
    fixed_effects,
    linear_pool,
    log_pool,
    logit_interval,
    logit_normal_mean,
    mixture_variance,
    nested_stack,
    out_of_fold_logits,
    random_effects,
    vote_share,
)

# --- fusion


def test_pools_by_hand():
    z = logit(np.array([[0.2], [0.8]]))
    assert expit(linear_pool(z)) == pytest.approx([0.5]) and expit(linear_pool(z, [3, 1])) == pytest.approx([0.35])
    assert vote_share(z) == pytest.approx([0.5]) and log_pool(z) == pytest.approx([0.0])
    assert expit(linear_pool([[1e4], [-1e4]])) == pytest.approx([0.5])
    with pytest.raises(DataError, match="2 members"):
        linear_pool(z, [1, 2, 3])


@settings(max_examples=50, deadline=None)
@given(st.floats(-10, 10), st.floats(0.01, 5), st.integers(2, 6))
def test_identical_members_are_one_member(z, v, m):
    logits, variances = np.full((m, 1), z), np.full((m, 1), v)
    for fused in (fixed_effects(logits, variances), random_effects(logits, variances)):
        assert fused.logit[0] == pytest.approx(z) and fused.variance[0] == pytest.approx(v / m) and fused.between[0] == 0
    assert linear_pool(logits)[0] == pytest.approx(z, abs=1e-6) and log_pool(logits)[0] == pytest.approx(z)
    assert mixture_variance(logits, variances)[0] == pytest.approx(v)


def test_contradiction_is_not_confidence():
    """z = (5, -5), v = 0.1 each: inverse variances alone say 0 +- 0.22."""
    z, v = [[5.0], [-5.0]], [[0.1], [0.1]]
    assert fixed_effects(z, v).variance[0] == pytest.approx(0.05)
    fused = random_effects(z, v)
    assert fused.between[0] == pytest.approx(49.9) and fused.variance[0] == pytest.approx(25.0)
    assert mixture_variance(z, v)[0] == pytest.approx(25.1)
    low, high = fused.interval()
    assert low[0] < 0.001 and high[0] > 0.999


def test_random_effects_cover_members_that_scatter_and_fixed_effects_do_not():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=4000)
    z = truth + rng.normal(0, 1.0, (8, 4000)) + rng.normal(0, 0.3, (8, 4000))
    v = np.full_like(z, 0.09)
    covered = {}
    for rule in (fixed_effects, random_effects):
        low, high = rule(z, v).interval()
        covered[rule] = ((low <= expit(truth)) & (expit(truth) <= high)).mean()
    assert covered[random_effects] > 0.88 and covered[fixed_effects] < 0.5


def test_intervals_are_made_in_logit_space():
    """z = 4, V = 4: p -+ 1.96 sd(logit) would run from -2.9 to 4.9."""
    low, high = logit_interval([4.0, -30.0], [4.0, 1.0])
    assert ((low > 0) & (low < expit([4.0, -30.0])) & (expit([4.0, -30.0]) < high) & (high < 1)).all()
    rng = np.random.default_rng(4)
    z = rng.normal(1.5, math.sqrt(0.7), 100_000)
    low, high = logit_interval(1.5, 0.7)
    assert ((low <= expit(z)) & (expit(z) <= high)).mean() == pytest.approx(0.95, abs=0.005)
    assert logit_normal_mean(1.5, 0.7) == pytest.approx(expit(z).mean(), abs=3e-3)


def test_weights_keep_their_ratio_and_sum_to_one():
    z, v = np.array([[1.0], [2.0], [3.0]]), np.array([[1e-2], [1.0], [1e3]])
    for ratio in (10.0, 1e3, np.inf):
        w = fixed_effects(z, v, max_ratio=ratio).weights[:, 0]
        assert w.sum() == pytest.approx(1) and w.max() / w.min() <= min(ratio, 1e5) * (1 + 1e-9)
    assert fixed_effects(z, v).weights[2, 0] < 1e-4
    assert np.isfinite(fixed_effects(z * 1e4, v * 0).logit).all()


def test_a_sharpened_member_is_cooled_and_gains_no_weight():
    rng = np.random.default_rng(5)
    z = rng.normal(0, 2, 20_000)
    y = (rng.random(20_000) < expit(z)).astype(int)
    members, variances = np.stack([z, z]), np.full((2, 20_000), 0.2)
    sharp, spread = np.stack([z, 2 * z]), np.stack([variances[0], 4 * variances[1]])
    trust = fit_trust(sharp, y)
    assert [t.temperature for t in trust] == pytest.approx([1, 2], rel=0.03)
    before = fixed_effects(members, variances)
    cooled = np.stack([t(m) for t, m in zip(trust, sharp, strict=True)])
    after = fixed_effects(cooled, np.stack([t.variance(v) for t, v in zip(trust, spread, strict=True)]))
    assert after.weights[1] == pytest.approx(before.weights[1], abs=0.01)


def test_the_scale_of_variances_is_found():
    rng = np.random.default_rng(6)
    truth, v = rng.normal(0, 3, 60_000), rng.exponential(2.0, 60_000)
    z = truth
    y = (rng.random(60_000) < expit(truth + np.sqrt(v) * rng.normal(size=60_000))).astype(int)
    assert fit_variance_scale(z, 10 * v, y) == pytest.approx(0.1, rel=0.2)
    assert fit_variance_scale(z, v, (rng.random(60_000) < expit(z)).astype(int)) < 0.05


# --- stacking


def stacked_members(seed, n=6000):
    """Two members with independent errors, a copy of the first, and noise."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(int)
    s = 2 * y - 1
    a, b = 2 * (s + rng.normal(0, 1, n)), 0.5 * (0.7 * s + rng.normal(0, 1, n))
    return np.stack([a, b, rng.normal(size=n)]), y, rng


def test_a_stack_recovers_the_weights_of_bayes():
    """The log-likelihood ratio of s +- from m s + e is 2 m x: of the members 2 (s + e) and (0.7 s + e)/2, weights 1 and 2.8."""
    z, y, rng = stacked_members(7, 40_000)
    stack = Stack.fit(z, y, rng, penalties=(0.0,))
    assert stack.weights == pytest.approx([1.0, 2.8, 0.0], abs=0.1) and stack.intercept == pytest.approx(logit(0.3), abs=0.08)
    assert min(stack.weights) >= 0


def test_a_stack_is_not_worse_than_its_best_member_on_other_rows():
    z, y, rng = stacked_members(8)
    held, nll = nested_stack(z, y, rng)
    best = min(negative_log_likelihood(Temperature.fit(m, y)(m), y) for m in z)
    assert nll < best - 0.02 and Ranking(held, y).auroc > max(Ranking(m, y).auroc for m in z) + 0.005
    without, _ = nested_stack(z[:2], y, rng)
    assert abs(Ranking(held, y).average_precision - Ranking(without, y).average_precision) < 0.005


def test_a_stack_of_shuffled_labels_ranks_at_chance():
    """Weights and penalty chosen on the rows that are judged would show here."""
    z, y, rng = stacked_members(9, 1500)
    groups = np.arange(1500) // 3
    shuffled = rng.permutation(y)
    held, _ = nested_stack(z, shuffled, rng, groups=groups)
    e = auroc_delong(held, shuffled)
    assert abs(e - 0.5) < 3 * (e.high - e.low) / 3.92 + 0.01


def test_few_rows_are_drawn_to_the_mean_logit():
    z, y, rng = stacked_members(10, 60)
    tight = Stack.fit(z, y, rng, penalties=(1e6,))
    assert tight.weights == pytest.approx([1 / 3] * 3, abs=1e-3)
    assert isinstance(calibrator_from_json(json.loads(json.dumps(tight.to_json()))), Stack)
    assert calibrator_from_json(tight.to_json())(z) == pytest.approx(tight(z))
    assert tight.at_prevalence(1e-3)(z)[0] < tight(z)[0]
    with pytest.raises(DataError, match="3 members"):
        tight(z[:2])


class Memory(LogisticRegression):
    """Remembers which rows it was fitted on."""

    seen: list = []  # noqa: RUF012

    def fit(self, x, y):
        Memory.seen.append(set(x[:, 0].astype(int)))
        return super().fit(x, y)

    def decision_function(self, x):
        fitted = Memory.seen[-1]
        assert not fitted & set(x[:, 0].astype(int))
        assert not {int(v) // 4 for v in fitted} & {int(v) // 4 for v in x[:, 0]}
        return super().decision_function(x)


def test_a_row_is_never_predicted_by_a_fit_that_saw_its_group():
    rng = np.random.default_rng(11)
    x, y = np.column_stack([np.arange(200), rng.normal(size=200)]), rng.random(200) < 0.4
    z = out_of_fold_logits([Memory()], x, y, rng, groups=np.arange(200) // 4)
    assert z.shape == (1, 200) and np.isfinite(z).all()
    with pytest.raises(DataError, match="5 folds"):
        out_of_fold_logits([Memory()], x, np.arange(200) < 3, rng)
