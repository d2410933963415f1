"""Ranking metrics: against scikit-learn, brute force, the binormal model, and what earlier implementations got wrong."""

import doctest
import importlib
import time
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from skyloom.errors import DataError
from skyloom.metrics import (
    Ranking,
    auroc_delong,
    bootstrap,
    delong,
    mcnemar,
    paired_bootstrap,
    ranking_scores,
    stratified_recall,
)

MODULES = ("comparison", "discovery", "operating_points", "prevalence", "proportions", "ranking", "strata")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_docstrings(name):
    assert doctest.testmod(importlib.import_module(f"skyloom.metrics.{name}")).failed == 0


TIED = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=60)


@settings(max_examples=100, deadline=None)
@given(TIED)
def test_areas_with_ties_are_those_of_scikit_learn_and_of_all_pairs(rows):
    s, y = np.array([float(r[0]) for r in rows]), np.array([r[1] for r in rows])
    r = Ranking(s, y)
    if r.one_class:
        assert np.isnan(r.auroc)
        return
    pairs = s[y][:, None] - s[~y][None, :]
    assert r.auroc == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2, abs=1e-12)
    assert r.auroc == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    assert r.average_precision == pytest.approx(average_precision_score(y, s), abs=1e-12)
    for limit in (0.05, 0.3, 1.0):
        assert r.partial_auc(limit) == pytest.approx(roc_auc_score(y, s, max_fpr=limit if limit < 1 else None), abs=1e-12)
    fpr, tpr, _ = r.roc()
    theirs = roc_curve(y, s, drop_intermediate=False)
    assert fpr == pytest.approx(theirs[0]) and tpr == pytest.approx(theirs[1])
    assert r.average_precision_at(y.mean()) == pytest.approx(r.average_precision)


@settings(max_examples=100, deadline=None)
@given(TIED, st.integers(1, 12), st.integers(0, 10**6))
def test_tpr_before_k_is_the_best_of_all_thresholds_and_knows_no_order(rows, k, seed):
    s, y = np.array([float(r[0]) for r in rows]), np.array([r[1] for r in rows])
    if not y.any():
        return
    allowed = [((s >= t) & y).sum() / y.sum() for t in [*s, np.inf] if ((s >= t) & ~y).sum() < k]
    order = np.random.default_rng(seed).permutation(len(s))
    assert Ranking(s, y).tpr_before(k) == max(allowed) == Ranking(s[order], y[order]).tpr_before(k)


def test_tpr0_and_tpr10_by_hand():
    perfect = Ranking([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], [0, 0, 0, 1, 1, 1])
    assert perfect.tpr0 == 1.0 and perfect.threshold_before(1) == 0.7
    assert Ranking([0.9, 0.1, 0.5, 0.6], [0, 0, 1, 1]).tpr0 == 0.0
    spoiled = Ranking([0.1, 0.2, 0.3, 0.7, 0.99], [0, 0, 1, 1, 0])
    assert (spoiled.tpr0, round(spoiled.auroc, 4), round(spoiled.average_precision, 4)) == (0.0, 0.6667, 0.5833)


def test_constant_scores_gain_nothing():
    r = Ranking(np.zeros(1000), np.arange(1000) < 100)
    assert (r.tpr0, r.tpr10, r.auroc, r.average_precision) == (0.0, 0.0, 0.5, 0.1)


def test_tpr10_is_a_count_not_a_rate_of_a_tenth():
    """Ten lenses; 1000 non-lenses of which 50 outscore all: at FPR 0.1 every lens is found, before ten false positives none."""
    found = ranking_scores(np.concatenate([np.full(10, 1.0), np.full(50, 2.0), np.zeros(950)]), np.arange(1010) < 10)
    assert found["tpr_at_fpr_1e-1"] == 1.0 and found["tpr10"] == 0.0


def test_vertices_are_not_dropped_among_ties():
    """100 lenses, each tied with a non-lens: a tenth is found at FPR 0.1, not a hundredth."""
    scores = np.repeat(np.arange(100.0), 2)
    assert ranking_scores(scores, np.arange(200) % 2)["tpr_at_fpr_1e-1"] == pytest.approx(0.1)


def test_infinite_scores_are_scores():
    r = Ranking([np.inf, np.inf, -np.inf, -np.inf, 0.0], [1, 0, 1, 0, 0])
    assert r.auroc == pytest.approx((2 + 0.5 + 0.5) / 6) and r.tpr0 == 0.0
    assert r.average_precision == pytest.approx(0.5 * 1 / 2 + 0.5 * 2 / 5)


def test_one_class_is_nan_not_zero_and_does_not_crash():
    for labels in (np.zeros(5), np.ones(5)):
        found = ranking_scores(np.arange(5.0), labels)
        assert np.isnan(found["auroc"]) and np.isnan(found["tpr_at_fpr_1e-1"])


@pytest.mark.parametrize(
    "scores, labels, words",
    [
        ([0.0, np.nan], [0, 1], "row 1"),
        ([[0.0], [1.0]], [0, 1], r"\[2, 1\]"),
        ([0.0, 1.0], [0, 2], "not 2"),
        ([0.0], [0, 1], "must"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, labels, words):
    with pytest.raises(DataError, match=words):
        Ranking(scores, labels)


BINORMAL = {  # AUROC: TPR at FPR 0.1, 0.01, 0.001, then the average precision at prevalence 0.5, 1e-2, 1e-3
    0.75: (0.37, 0.08, 0.02, 0.74, 0.039, 0.0041),
    0.82: (0.51, 0.15, 0.04, 0.82, 0.077, 0.0091),
    0.90: (0.70, 0.30, 0.10, 0.90, 0.20, 0.038),
    0.95: (0.85, 0.50, 0.22, 0.95, 0.40, 0.13),
    0.99: (0.98, 0.83, 0.58, 0.99, 0.77, 0.51),
}


@pytest.mark.parametrize("area", BINORMAL)
def test_the_binormal_table(area):
    """Positives and negatives at the quantiles of two normals: what an AUROC means at low prevalence, to the table's digits."""
    n = 200_000
    grid = norm.ppf((np.arange(n) + 0.5) / n)
    scores, labels = np.concatenate([grid + np.sqrt(2) * norm.ppf(area), grid]), np.arange(2 * n) < n
    r, found = Ranking(scores, labels), ranking_scores(scores, labels)
    assert r.auroc == pytest.approx(area, abs=1e-4)
    ours = [found[f"tpr_at_fpr_1e-{k}"] for k in (1, 2, 3)] + [r.average_precision_at(pi) for pi in (0.5, 1e-2, 1e-3)]
    for value, table in zip(ours, BINORMAL[area], strict=True):
        assert value == pytest.approx(table, rel=0.05, abs=0.005 if table > 0.01 else 0.0005)


def test_binormal_two_sigma():
    n = 400_000
    grid = norm.ppf((np.arange(n) + 0.5) / n)
    found = ranking_scores(np.concatenate([grid + 2, grid]), np.arange(2 * n) < n)
    expected = {"auroc": 0.9214, "tpr_at_fpr_1e-1": 0.7638, "tpr_at_fpr_1e-2": 0.3721, "tpr_at_fpr_1e-3": 0.1378}
    assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-4)


# --- comparison


def test_delong_is_the_formula_of_the_paper():
    """The variance from all m x n pairs, written out, with ties."""
    rng = np.random.default_rng(0)
    y = np.arange(60) < 25
    a, b = np.round(rng.normal(y, 1), 1), np.round(rng.normal(0.5 * y, 1), 1)
    components = []
    for s in (a, b):
        wins = (s[y][:, None] > s[~y][None, :]) + 0.5 * (s[y][:, None] == s[~y][None, :])
        components.append((wins.mean(1), wins.mean(0)))
    (a10, a01), (b10, b01) = components
    variance = np.var(a10 - b10, ddof=1) / 25 + np.var(a01 - b01, ddof=1) / 35
    found = delong(a, b, y)
    assert found.difference == pytest.approx(a10.mean() - b10.mean())
    reach = norm.ppf(0.975) * np.sqrt(variance)
    assert found.difference.high - found.difference == pytest.approx(reach)
    assert found.p_value == pytest.approx(2 * norm.sf(abs(found.difference) / np.sqrt(variance)))
    assert delong(a, 3 * a + 1, y).p_value == 1.0


def test_delong_covers_and_holds_its_level():
    rng = np.random.default_rng(1)
    truth = norm.cdf(1.5 / np.sqrt(2))
    covered, rejected, trials = 0, 0, 400
    for _ in range(trials):
        y = np.arange(240) < 80
        common = rng.normal(size=240) + 1.5 * y
        e = auroc_delong(common, y)
        covered += e.low <= truth <= e.high
        rejected += delong(common + rng.normal(size=240), common + rng.normal(size=240), y).p_value < 0.05
    assert abs(covered / trials - 0.95) < 0.035 and abs(rejected / trials - 0.05) < 0.035


def test_rows_of_a_group_are_not_independent():
    """Every row five times: by rows the interval shrinks by sqrt 5, by groups it stays."""
    rng = np.random.default_rng(2)
    y = np.arange(200) < 60
    s = rng.normal(y, 1)
    alone, copies = auroc_delong(s, y), np.repeat(np.arange(200), 5)
    fooled = auroc_delong(s[copies], y[copies])
    honest = auroc_delong(s[copies], y[copies], groups=copies)
    assert (alone.high - alone.low) / (fooled.high - fooled.low) == pytest.approx(np.sqrt(5), rel=0.02)
    assert honest.high - honest.low == pytest.approx(alone.high - alone.low, rel=0.02)

    def auroc(scores, labels):
        return Ranking(scores, labels).auroc

    shuffled = s + rng.normal(size=200)
    one = paired_bootstrap(auroc, s, shuffled, y, np.random.default_rng(3), resamples=300)
    many = paired_bootstrap(auroc, s[copies], shuffled[copies], y[copies], rng, groups=copies, resamples=300)
    assert many.difference.high - many.difference.low == pytest.approx(one.difference.high - one.difference.low, rel=0.25)


def test_the_paired_bootstrap_agrees_with_delong():
    rng = np.random.default_rng(4)
    y = np.arange(600) < 150
    common = rng.normal(size=600)
    a, b = common + 1.2 * y, common + 1.0 * y + 0.7 * rng.normal(size=600)
    theory = delong(a, b, y)
    found = paired_bootstrap(lambda s, t: Ranking(s, t).auroc, a, b, y, rng, resamples=600)
    assert found.difference == pytest.approx(theory.difference)
    assert found.difference.high - found.difference.low == pytest.approx(
        theory.difference.high - theory.difference.low, rel=0.15
    )
    assert (found.p_value < 0.05) == (theory.p_value < 0.05)


def test_a_resample_never_lacks_a_class():
    y = np.arange(50) < 1
    seen = []
    paired_bootstrap(lambda s, t: seen.append(t.sum()) or 0.0, y, y, y, np.random.default_rng(0), resamples=50)
    assert set(seen) == {1}


def test_mcnemar_by_hand():
    statistic, p = mcnemar(np.arange(100) < 90, np.concatenate([np.arange(90) < 80, np.arange(10) < 2]))
    assert statistic == pytest.approx((10 - 2 - 1) ** 2 / 12) == pytest.approx(4.083, abs=1e-3) and 0.04 < p < 0.05
    assert mcnemar([1, 0], [1, 0]) == (0.0, 1.0)


# --- strata


def test_strata_share_all_negatives_and_sum_to_the_whole():
    rng = np.random.default_rng(5)
    y = np.arange(2000) < 300
    s, ratio = rng.normal(2 * y, 1), rng.random(2000)
    ratio[:10] = np.nan
    strata = stratified_recall(s, y, ratio, 1.5, [0, 0.1, 0.3, 1])
    assert [x.name for x in strata] == ["[0, 0.1)", "[0.1, 0.3)", "[0.3, 1]", "outside"]
    assert sum(x.n_positive for x in strata) == 300 and strata[-1].n_positive == 10
    weighted = sum(x.n_positive * float(x.recall) for x in strata) / 300
    assert weighted == pytest.approx((s[y] >= 1.5).mean())
    for x, chosen in zip(strata, ((ratio < 0.1), (ratio >= 0.1) & (ratio < 0.3), ratio >= 0.3), strict=False):
        rows = ~y | chosen
        assert x.auroc == pytest.approx(roc_auc_score(y[rows], s[rows]))


def test_flux_ratios_of_non_lenses_are_never_read():
    rng = np.random.default_rng(6)
    y = np.arange(500) < 100
    s, ratio = rng.normal(y, 1), rng.random(500)
    for nothing in (0.0, np.nan, 0.7):
        other = np.where(y, ratio, nothing)
        assert repr(stratified_recall(s, y, other, 0.5, [0, 0.5, 1])) == repr(stratified_recall(s, y, ratio, 0.5, [0, 0.5, 1]))


def test_an_empty_stratum_is_nan_and_categories_are_strata():
    empty = stratified_recall([1.0, 0.0], [1, 0], [0.5, 0.0], 0.5, [0, 0.1, 1])[0]
    assert empty.n_positive == 0 and np.isnan(empty.recall) and np.isnan(empty.auroc)
    surveys = stratified_recall([1.0, 0.2, 0.0], [1, 1, 0], ["hsc", "des", "des"], 0.5)
    assert [(x.name, float(x.recall)) for x in surveys] == [("des", 0.0), ("hsc", 1.0)]


def test_shuffled_labels_rank_at_chance():
    rng = np.random.default_rng(7)
    e = auroc_delong(rng.normal(size=4000), rng.random(4000) < 0.1)
    assert e.low < 0.5 < e.high


@pytest.mark.slow
def test_bootstrap_intervals_of_auroc_cover_the_binormal_truth():
    """By rows over 300 samples; and by groups where each group shares an error, where rows alone would not cover."""
    rng = np.random.default_rng(9)
    truth, trials, covered = norm.cdf(1.5 / np.sqrt(2)), 300, {"rows": 0, "groups": 0, "rows of groups": 0}

    def score(p):
        return {"auroc": Ranking(p["s"].numpy(), p["y"].numpy()).auroc}

    for _ in range(trials):
        y = torch.arange(200) < 80
        s = torch.from_numpy(rng.normal(1.5 * y.numpy(), 1))
        alone = bootstrap(score, {"s": s, "y": y}, None, rng)["auroc"]
        covered["rows"] += alone.low <= truth <= alone.high
        groups = torch.arange(200) // 5  # of one class each, whose five rows share most of their scatter
        shared = rng.normal(size=40)[groups.numpy()] * np.sqrt(0.8) + rng.normal(size=200) * np.sqrt(0.2)
        s = torch.from_numpy(1.5 * y.numpy() + shared)
        for name, by in (("groups", groups), ("rows of groups", None)):
            e = bootstrap(score, {"s": s, "y": y}, by, rng)["auroc"]
            covered[name] += e.low <= truth <= e.high
    assert covered["rows"] / trials == pytest.approx(0.95, abs=0.035)
    assert covered["groups"] / trials > 0.89 and covered["rows of groups"] / trials < 0.8


@pytest.mark.slow
def test_ten_million_scores_in_seconds_and_bounded_memory():
    """All of `ranking_scores` on 1e7 rows: faster than scikit-learn's AUROC alone, within three copies of the scores."""
    rng = np.random.default_rng(8)
    n = 10_000_000
    y = rng.random(n) < 1e-3
    s = rng.normal(size=n) + 2 * y
    began = time.process_time()
    found = ranking_scores(s, y)
    ours = time.process_time() - began
    began = time.process_time()
    area = roc_auc_score(y, s)
    theirs = time.process_time() - began
    tracemalloc.start()
    ranking_scores(s, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"ours {ours:.2f} s, scikit-learn's AUROC {theirs:.2f} s, peak {peak / s.nbytes:.2f} copies of the scores")
    assert found["auroc"] == pytest.approx(area, abs=1e-12)
    assert ours < theirs / 2 and peak < 3 * s.nbytes
