"""Elkan and Noto, SAR-EM, and evaluation without negatives: golden numbers, estimators of three libraries, bounds that hold."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.tree import DecisionTreeClassifier

from skyloom.errors import ConfigError, DataError
from skyloom.pu import (
    ElkanNoto,
    SarEM,
    auroc_pu,
    average_precision_pu,
    choose,
    external_prior,
    label_frequencies,
    label_frequency,
    operating_point,
    out_of_fold,
    unidentified,
)
from skyloom.pu.elkan_noto import duplicated

TREE = DecisionTreeClassifier(max_leaf_nodes=8, min_samples_leaf=80, random_state=0)  # g bends at c; a logistic one cannot


def binormal(prior, c, separation, n=60_000, seed=0):
    """One sample of two unit Gaussians, a share c of its positives labelled; with the exact f."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < prior
    x = rng.normal(separation * y)
    s = y & (rng.random(n) < c)
    f = 1 / (1 + (1 - prior) / prior * np.exp(separation**2 / 2 - separation * x))
    return x[:, None], s, y, f


@pytest.mark.parametrize(
    "prior, c, e1, n", [(0.01, 0.3, 0.144, 400_000), (0.05, 0.2, 0.135, 200_000), (0.001, 0.5, 0.123, 2_000_000)]
)
def test_e1_is_too_low_where_classes_overlap_even_with_the_exact_posterior(prior, c, e1, n):
    _, s, _, f = binormal(prior, c, 3.0, n)
    assert label_frequencies(c * f, s)["e1"] == pytest.approx(e1, abs=0.012)
    assert label_frequencies(c * f, s)["e3"] == pytest.approx(c, rel=0.02)


@pytest.mark.parametrize("prior, separation", [(0.05, 2.5), (0.01, 4.0)])
def test_top_rank_is_right_there(prior, separation):
    found = [
        label_frequencies(0.3 * f, s, k=100)["top"]
        for _, s, _, f in (binormal(prior, 0.3, separation, 200_000, k) for k in range(9))
    ]
    assert np.median(found) == pytest.approx(0.3, rel=0.1)


def test_defect_label_frequency_from_training_scores():
    """A forest's scores of its own training rows put c at about 0.7 where it is 0.30; out of fold it is right."""
    x, s, _, _ = binormal(0.3, 0.3, 6.0, 2400)
    x = np.concatenate([x, np.random.default_rng(1).normal(size=(2400, 4))], axis=1)
    forest = RandomForestClassifier(40, random_state=0)
    own = forest.fit(x, s).predict_proba(x)[:, 1]
    g, fold = out_of_fold(forest, x, s)
    assert label_frequencies(own, s)["e1"] > 0.6
    assert label_frequencies(g, s)["e1"] == pytest.approx(0.30, abs=0.04)
    assert label_frequency(g, s, fold, "e1").estimates["top"] == pytest.approx(0.3, abs=0.08)


def brier(f, y):
    return float(np.mean((f - y) ** 2))


def reference(seed=0):
    """The synthetic of the golden numbers: n = 60,000, pi = 0.05, c = 0.3, separation 2.5."""
    x, s, y, f = binormal(0.05, 0.3, 2.5, 60_000, seed)
    return np.concatenate([x, x**2], axis=1), s, y, f


def test_golden_duplicated_weighting_reaches_the_oracle_and_nothing_is_divided_by_c_twice():
    """Brier of the exact posterior 0.0245; duplicated weighting with c estimated <= 0.0255; the source's way > 0.07."""
    lightgbm = pytest.importorskip("lightgbm")
    x, s, y, f = reference()
    x = x[:, :1]
    trees = lightgbm.LGBMClassifier(
        n_estimators=40, num_leaves=7, learning_rate=0.12, min_child_samples=100, verbose=-1, n_jobs=1
    )
    model = ElkanNoto(trees, k=100).fit(x, s)
    mine = model.predict_proba(x)[:, 1]
    assert brier(f, y) == pytest.approx(0.0245, abs=0.0012)
    assert brier(mine, y) <= brier(f, y) + 0.0015
    assert abs(mine.mean() - y.mean()) < 0.006
    assert (mine > 0.999).mean() < 0.01

    g, _ = out_of_fold(trees, x, s)  # the source's: e1, weights 1/c and (1-f)/(1-pi), and again divided by c
    c = label_frequencies(g, s)["e1"]
    f1 = np.clip(g / c, 0, 1)
    weights = np.where(s, 1 / c, (1 - f1) / (1 - f1.mean()))
    again = trees.fit(x, s, sample_weight=weights).predict_proba(x)[:, 1]
    wrong = np.clip(again / c, 0, 1)
    assert brier(wrong, y) > 0.05
    assert (wrong > 0.999).mean() > 0.05


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_golden_with_the_exact_scores(seed):
    """c from the top 100, duplicated weighting: Brier <= 0.0255, mean near the prior, under 1% saturated."""
    x, s, y, f = binormal(0.05, 0.3, 2.5, 60_000, seed)
    c = label_frequencies(0.3 * f, s, k=100)["top"]
    assert 0.26 < c < 0.34
    rows, classes, weights = duplicated(x, s, 0.3 * f, c)
    mine = LogisticRegression(C=1e6).fit(rows, classes, sample_weight=weights).predict_proba(x)[:, 1]
    assert brier(mine, y) <= brier(f, y) + 0.001
    assert abs(mine.mean() - y.mean()) < 0.006
    assert (mine > 0.999).mean() < 0.01
    assert brier(np.clip(0.3 * f / 0.05, 0, 1), y) > 0.06  # the prior taken for c


def test_defect_weights_in_an_integer_array_and_prior_taken_for_frequency():
    """Weights of unlabeled rows stay fractions, and c = 0.3 is told apart from the prior 0.05."""
    x, s, y, f = reference()
    rows, classes, weights = duplicated(x, s, 0.3 * f, 0.3)
    inner = (weights > 0) & (weights < 1)
    assert weights.dtype == np.float64
    assert inner.sum() > len(x)
    assert len(rows) == len(classes) == len(weights)
    assert weights[classes == 1].sum() == pytest.approx(y.sum(), rel=0.03)
    assert weights.sum() == pytest.approx(len(x), rel=1e-6)


def test_any_estimator_with_weights():
    xgboost = pytest.importorskip("xgboost")
    x, s, y, _ = binormal(0.3, 0.3, 4.0, 4000)
    for estimator in (TREE, xgboost.XGBClassifier(n_estimators=20, max_depth=2, n_jobs=1)):
        for how in ("duplicated", "scaled"):
            model = ElkanNoto(estimator, how=how, method=0.3).fit(x, s)
            assert model.predict_proba(x)[:, 1].mean() == pytest.approx(0.3, abs=0.05)
            assert (model.predict(x) != y).mean() < 0.05


def test_two_samples_predict_for_the_unlabeled_population():
    rng = np.random.default_rng(0)
    y = rng.random(8000) < 0.2
    u, p = rng.normal(2.5 * y)[:, None], rng.normal(2.5, size=(1500, 1))
    x, s = np.concatenate([p, u]), np.arange(9500) < 1500
    c = 1500 / (1500 + 0.2 * 8000)
    two = ElkanNoto(TREE, method=c, setting="two_samples").fit(x, s)
    one = ElkanNoto(TREE, method=c).fit(x, s)
    assert two.prior_ == pytest.approx(0.2, abs=1e-9)
    assert two.predict_proba(u)[:, 1].mean() == pytest.approx(0.2, abs=0.02)
    assert one.predict_proba(u)[:, 1].mean() > two.predict_proba(u)[:, 1].mean() + 0.02  # P and U together hold more positives


def test_groups_stay_together_and_frequency_that_varies_is_refused():
    rng = np.random.default_rng(0)
    x, s = rng.normal(size=(600, 2)), rng.random(600) < 0.2
    groups = rng.integers(0, 60, 600)
    _, fold = out_of_fold(LogisticRegression(), x, s, groups=groups)
    assert all(len(np.unique(fold[groups == k])) == 1 for k in np.unique(groups))
    g = rng.random(600) * np.where(fold == 0, 1.0, 0.1)
    with pytest.raises(DataError, match="varies by"):
        float(label_frequency(g, s, fold, "e1"))
    with pytest.raises(DataError, match="0 of 600 rows are labelled"):
        out_of_fold(LogisticRegression(), x, np.zeros(600))
    with pytest.raises(ConfigError, match="e1, e2, e3, top"):
        label_frequency(g, s, fold, "e9")


# ---------------------------------------------------------------- SAR-EM


def test_sar_em_finds_class_and_propensity_where_scar_is_wrong():
    """Class by the first feature, labels by the brightness in the second: e = s(1.5 b). The naive prior is far off."""
    rng = np.random.default_rng(0)
    n = 8000
    y = rng.random(n) < 0.3
    x = np.stack([rng.normal(4.0 * y), rng.normal(size=n)], axis=1)
    e = 1 / (1 + np.exp(-1.5 * x[:, 1]))
    s = y & (rng.random(n) < e)
    model = SarEM(LogisticRegression(), LogisticRegression(), columns=[1], rounds=40).fit(x, s)
    assert model.prior_ == pytest.approx(0.3, abs=0.03)
    assert np.corrcoef(model.propensity(x), e)[0, 1] > 0.98
    assert np.abs(model.propensity(x) - e).mean() < 0.08
    faint = x[:, 1] < -0.5
    f = model.predict_proba(x)[:, 1]
    assert (f > 0.5)[y & faint].mean() > 0.9
    with pytest.raises(ConfigError, match=r"SarEM\.columns"):
        SarEM(LogisticRegression(), LogisticRegression(), columns=[]).fit(x, s)


# ---------------------------------------------------------------- evaluation


def two_samples(prior=0.1, n=100_000, seed=0, d=2.5):
    rng = np.random.default_rng(seed)
    y = rng.random(n) < prior
    z = np.concatenate([rng.normal(d / 2, size=n // 10), rng.normal(np.where(y, d / 2, -d / 2))])
    return z, np.arange(len(z)) < n // 10, y


def test_operating_points_are_those_of_the_hidden_truth():
    z, s, y = two_samples()
    found = operating_point(z, s, 0.1, threshold=0.3)
    flagged = z[~s] > 0.3
    exact = {
        "recall": flagged[y].mean(),
        "fpr": flagged[~y].mean(),
        "precision": y[flagged].mean(),
        "error": (flagged != y).mean(),
        "f1": 2 * (flagged & y).sum() / (flagged.sum() + y.sum()),
    }
    for name, value in exact.items():
        assert float(found[name]) == pytest.approx(value, abs=0.02)
        assert found[name].low <= value <= found[name].high


def test_intervals_hold_the_truth_and_grow_with_that_of_the_prior():
    held = []
    for seed in range(40):
        z, s, _ = two_samples(n=3000, seed=seed)
        found = operating_point(z, s, 0.1, threshold=0.5)
        fpr, recall = norm.sf(0.5 + 1.25), norm.sf(0.5 - 1.25)
        held.append(found["fpr"].low <= fpr <= found["fpr"].high and found["recall"].low <= recall <= found["recall"].high)
    assert np.mean(held) >= 0.95
    wide = operating_point(z, s, external_prior(0.1, 0.05, 0.2, "synthetic"), threshold=0.5)
    assert wide["precision"].low < found["precision"].low < found["precision"].high < wide["precision"].high


def test_bounds_without_trust_in_the_labelled_hold_any_selection():
    rng = np.random.default_rng(0)
    for _ in range(200):
        prior, q = rng.uniform(0.01, 0.6), rng.uniform(0.01, 0.9)
        true = rng.uniform(max(0, prior + q - 1), min(prior, q))
        bounds = unidentified(q, prior)
        exact = {"recall": true / prior, "precision": true / q, "fpr": (q - true) / (1 - prior), "error": prior + q - 2 * true}
        for name, value in exact.items():
            assert bounds[name][0] - 1e-9 <= value <= bounds[name][1] + 1e-9


def test_average_precision_from_positives_and_unlabeled():
    z, s, y = two_samples()
    assert average_precision_pu(z, s, 0.1) == pytest.approx(average_precision_score(y, z[~s]), abs=0.025)


def test_models_are_chosen_as_the_hidden_truth_would_choose_and_ties_are_told():
    z, s, y = two_samples(n=6000)
    rng = np.random.default_rng(1)
    models = {"good": z, "noisy": z + rng.normal(size=len(z)), "twin": 1.0001 * z, "shifted": z - 3}
    ranked = choose(models, s, 0.1, "auroc", resamples=20)
    assert {r.name for r in ranked[:3]} == {"good", "twin", "shifted"}
    assert ranked[-1].name == "noisy"
    assert ranked[-1].behind.low > 0
    twin = next(r for r in ranked if r.name == "twin")
    assert twin.behind == pytest.approx(0.0, abs=1e-12)
    worst = choose(models, s, 0.1, "error", resamples=20)[-1]
    hidden = {n: ((m[~s] > 0) != y).mean() for n, m in models.items()}
    assert hidden[worst.name] == max(hidden.values())
    with pytest.raises(ConfigError, match="auroc"):
        choose(models, s, 0.1, "aurok")


def test_metrics_do_not_change_when_hidden_labels_do():
    """Nothing here takes the truth of the unlabeled as an argument; a permutation of U changes nothing."""
    z, s, _ = two_samples(n=5000)
    order = np.r_[np.flatnonzero(s), np.random.default_rng(0).permutation(np.flatnonzero(~s))]
    for metric in (auroc_pu, average_precision_pu):
        assert metric(z[order], s[order], 0.1) == pytest.approx(metric(z, s, 0.1))
