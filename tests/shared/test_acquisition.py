"""Which rows to label next: bounds of the greedy rules, exactness on small cases, and that labels are never needed."""

import inspect
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from skyloom.errors import DataError
from skyloom.metrics import Ranking
from skyloom.uncertainty import (
    Pool,
    balanced,
    bald,
    batch_bald,
    bootstrap_members,
    clustered,
    core_set,
    interleaved,
    labelling_curves,
    least_certain,
    linear_pool,
    most_likely,
    predictive_entropy,
    random_rows,
    within_budget,
)

RULES = (random_rows, least_certain, bald, batch_bald, most_likely, core_set, clustered, interleaved(most_likely, bald))


def a_pool(seed, n=60, members=6):
    rng = np.random.default_rng(seed)
    return Pool(rng.normal(size=(members, n)) * 2, rng.normal(size=(n, 3)), rng.normal(size=(4, 3))), rng


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_gives_k_different_rows_and_needs_no_label(rule):
    pool, rng = a_pool(0)
    for k in (1, 7, 60, 100):
        chosen = rule(pool, k, rng)
        assert len(set(chosen.tolist())) == len(chosen) == min(k, 60) and chosen.dtype == np.int64
    assert "labels" not in inspect.signature(rule).parameters


def test_one_forecast_has_one_uncertainty():
    """Entropy, margin, confidence and p (1 - p) rank alike: they are not different strategies."""
    z = np.random.default_rng(1).normal(size=(1, 500)) * 3
    p = expit(z[0])
    for other in (-np.abs(p - 0.5), -np.maximum(p, 1 - p), p * (1 - p), np.minimum(p, 1 - p) ** 2):
        assert spearmanr(predictive_entropy(z), other).statistic == pytest.approx(1.0)


def test_bald_tells_dispute_from_noise_and_entropy_does_not():
    pool, rng = Pool(logit(np.array([[0.5, 0.1], [0.5, 0.9]]))), np.random.default_rng(2)
    assert bald(pool, 1, rng) == [1]
    first = [int(least_certain(pool, 1, rng)[0]) for _ in range(60)]
    assert 10 < sum(first) < 50  # a tie, broken at random


# --- BatchBALD


def information(p):
    """I(y_1 ... y_b; member) in nats from member probabilities [M, b], by all labellings."""
    joint = 0.0
    for labels in itertools.product((0, 1), repeat=p.shape[1]):
        mean = np.prod(np.where(labels, p, 1 - p), axis=1).mean()
        joint -= mean * math.log(mean) if mean > 0 else 0
    return joint - predictive_entropy_of(p)


def predictive_entropy_of(p):
    return float((-p * np.log(p) - (1 - p) * np.log1p(-p)).mean(0).sum())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_batch_bald_is_the_greedy_maximum_and_near_the_best(seed):
    rng = np.random.default_rng(seed)
    pool = Pool(rng.normal(size=(5, 9)) * 2)
    p = expit(pool.logits)
    chosen = batch_bald(pool, 3, rng)
    greedy = []
    for _ in range(3):
        greedy.append(max((r for r in range(9) if r not in greedy), key=lambda r: information(p[:, [*greedy, r]])))
    assert chosen.tolist() == greedy
    best = max(information(p[:, list(rows)]) for rows in itertools.combinations(range(9), 3))
    assert information(p[:, chosen]) >= (1 - 1 / math.e) * best


def test_batch_bald_does_not_take_a_row_twice_under_another_name():
    rng = np.random.default_rng(3)
    z = rng.normal(size=(8, 1)) * 4
    other = rng.normal(size=(8, 1)) * 2.5
    pool = Pool(np.concatenate([z, z, z, other], axis=1))
    assert 3 not in bald(pool, 2, rng) and 3 in batch_bald(pool, 2, rng)


def test_drawn_labellings_do_as_well_as_all_of_them():
    rng = np.random.default_rng(4)
    pool = Pool(rng.normal(size=(12, 40)) * 2)
    p = expit(pool.logits)
    exact, drawn = batch_bald(pool, 8, rng), batch_bald(pool, 8, rng, configurations=64)
    assert information(p[:, drawn]) > 0.95 * information(p[:, exact]) > 0.9 * information(p[:, bald(pool, 8, rng)])


# --- diversity, costs, balance


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_a_core_set_is_within_twice_the_best_radius(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(10, 2))

    def radius(rows):
        return np.sqrt(((x[:, None] - x[list(rows)][None]) ** 2).sum(-1)).min(1).max()

    chosen = core_set(Pool(np.zeros((1, 10)), x), 3, rng)
    assert radius(chosen) <= 2 * min(radius(rows) for rows in itertools.combinations(range(10), 3)) + 1e-12


def test_a_core_set_keeps_away_from_what_is_labelled():
    x = np.array([[0.0], [0.1], [5.0], [9.0]])
    assert core_set(Pool(np.zeros((1, 4)), x, np.array([[9.1], [0.0]])), 1, np.random.default_rng(0)) == [2]
    with pytest.raises(DataError, match="features"):
        core_set(Pool(np.zeros((1, 4))), 1, np.random.default_rng(0))


def test_clusters_spread_what_a_score_alone_would_crowd():
    """The 50 most disputed rows lie in one spot; clusters take the best of each of four."""
    rng = np.random.default_rng(5)
    spot = np.repeat(np.arange(4), 50)
    x = np.array([[0, 0], [9, 0], [0, 9], [9, 9]])[spot] + 0.1 * rng.normal(size=(200, 2))
    pool = Pool(np.array([[1], [-1]]) * (4.0 - spot + 0.5 * rng.random(200)), x)
    assert set(spot[bald(pool, 4, rng)]) == {0} and sorted(spot[clustered(pool, 4, rng, per_cluster=50)]) == [0, 1, 2, 3]


def test_queues_take_turns():
    pool, rng = a_pool(6)
    both = interleaved(most_likely, bald)(pool, 10, rng)
    assert both[0] == most_likely(pool, 1, rng)[0]
    assert len(set(both[:6]) & set(most_likely(pool, 5, rng))) >= 3 and len(set(both[:6]) & set(bald(pool, 5, rng))) >= 3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_a_budget_is_kept_and_worth_half_the_best(seed):
    rng = np.random.default_rng(seed)
    s, c = rng.random(8), rng.random(8) + 0.05
    rows = within_budget(s, c, 1.0)
    subsets = [list(r) for n in range(9) for r in itertools.combinations(range(8), n)]
    assert c[rows].sum() <= 1 + 1e-9 and s[rows].sum() >= max(s[r].sum() for r in subsets if c[r].sum() <= 1) / 2


def test_balanced_selection_fills_up_and_rounds():
    """Ten rows, one guessed positive, six wanted, half of them positive: six different rows, not four."""
    rng = np.random.default_rng(7)
    scores, guesses = rng.random(10), np.arange(10) == 3
    rows = balanced(scores, guesses, 6, 0.5, rng)
    assert len(set(rows.tolist())) == 6 and 3 in rows
    assert sorted(balanced(scores, guesses, 50, 0.5, rng)) == list(range(10))
    assert len(balanced(scores, np.zeros(10), 4, 0.5, rng)) == 4
    half = balanced(scores, np.arange(10) < 5, 5, 0.5, rng)
    assert (half < 5).sum() in (2, 3) and (np.diff(scores[half[half < 5]]) <= 0).all()


# --- campaigns


def campaign(**options):
    """Positives are rare and far out; a linear model on few labels."""
    rng = np.random.default_rng(8)
    n = 1500
    y = (rng.random(n) < 0.06).astype(int)
    x = rng.normal(size=(n, 4)) + 2.2 * y[:, None] * [1, 1, 0, 0]
    settings = {"test": np.arange(n) < 700, "start": 12, "batch": 8, "rounds": 4, "seeds": 3} | options
    return labelling_curves(
        {"random": random_rows, "likely": most_likely, "bald": bald},
        bootstrap_members(LogisticRegression(), 5),
        x,
        y,
        lambda z, t: Ranking(linear_pool(z), t).average_precision,
        **settings,
    )


def test_rules_start_alike_are_reproducible_and_find_positives():
    curves = campaign()
    assert curves["likely"].labels.tolist() == [12, 20, 28, 36]
    assert (curves["random"].positives[:, 0] == curves["bald"].positives[:, 0]).all()
    assert curves["likely"].positives[:, -1].mean() > 2.5 * curves["random"].positives[:, -1].mean()
    assert curves["random"].mean[-1] > curves["random"].mean[0]
    again = campaign()
    assert all((curves[name].metric == again[name].metric).all() for name in curves)
    assert curves["random"].labels_to_reach(2.0) == math.inf and curves["random"].labels_to_reach(0.0) == 12


def test_a_campaign_that_cannot_be_played_is_refused():
    with pytest.raises(DataError, match="may be labelled"):
        campaign(rounds=200)
    with pytest.raises(DataError, match="two rows of each class"):
        campaign(start=3)
