"""Class priors: the spec table of the best bin, coverage of its bound, every method beside the truth, refusals, defects."""

import numpy as np
import pytest
from scipy.stats import beta

from skyloom.errors import ConfigError, DataError
from skyloom.pu import (
    PriorRefused,
    alpha_max,
    best_bin,
    dedpul,
    external_prior,
    kernel_mean,
    tree_induction,
)
from skyloom.pu.densities import posterior_of_unlabeled, profile, score_ratio
from skyloom.pu.embedding import _nearest, _simplex
from skyloom.pu.tails import clopper_pearson


def scores(prior, separation, seed, labelled=500, unlabeled=20_000):
    rng = np.random.default_rng(seed)
    y = rng.random(unlabeled) < prior
    return rng.normal(separation, size=labelled), rng.normal(separation * y)


# Medians of value/pi and bound/pi for 500 P, 2e5 U and Gaussian scores, measured independently of this code.
TABLE = [(2.0, 1e-2, 1.1, 1.9), (2.5, 1e-3, 1.1, 2.7), (2.5, 1e-2, 1.0, 1.4), (3.0, 1e-3, 1.0, 1.8), (3.0, 1e-2, 0.94, 1.2)]


@pytest.mark.parametrize("separation, prior, ratio, bound", TABLE)
def test_best_bin_reproduces_the_table(separation, prior, ratio, bound):
    found = [best_bin(*scores(prior, separation, seed, unlabeled=200_000)) for seed in range(31)]
    assert np.median([e.value for e in found]) / prior == pytest.approx(ratio, rel=0.3)
    assert np.median([e.high for e in found]) / prior == pytest.approx(bound, rel=0.25)


def test_at_four_sigma_the_value_is_right_and_the_bound_covers():
    covered = []
    for prior in (1e-3, 1e-2, 5e-2):
        found = [best_bin(*scores(prior, 4.0, seed, unlabeled=100_000)) for seed in range(15)]
        assert np.median([e.value for e in found]) == pytest.approx(prior, rel=0.15)
        covered += [e.high >= prior for e in found]
    assert np.mean(covered) >= 0.9


def test_the_source_answer_was_always_its_clip():
    """The source's estimator returned its clip, 0.1, for true priors of 1e-4, 1e-3 and 1e-2, and called that consistent."""
    for prior in (1e-3, 1e-2, 5e-2):
        assert float(best_bin(*scores(prior, 4.0, 1, unlabeled=100_000))) == pytest.approx(prior, rel=0.5)
    with pytest.raises(PriorRefused, match=r"Give one from elsewhere"):
        float(best_bin(*scores(1e-4, 1.5, 1, unlabeled=100_000)))


def test_a_scorer_that_cannot_tell_is_refused_and_the_bound_kept():
    refused = [best_bin(*scores(1e-3, 1.5, seed, unlabeled=100_000)) for seed in range(12)]
    assert np.mean([bool(e.refused) for e in refused]) >= 0.6
    assert all(e.high >= 1e-3 for e in refused)
    known = external_prior(9e-4, 5e-4, 3e-3, population="optical clusters")
    first = next(e for e in refused if e.refused)
    assert first.otherwise(known) is known


@pytest.mark.parametrize("estimate", [best_bin, dedpul, alpha_max])
@pytest.mark.parametrize("prior", [0.1, 0.5])
def test_methods_on_scores(estimate, prior):
    options = {"resamples": 10} if estimate is dedpul else {}
    found = [estimate(*scores(prior, 4.0, seed, unlabeled=6000), **options) for seed in range(5)]
    assert sum(bool(e.refused) for e in found) <= 2
    assert np.median([e.value for e in found]) == pytest.approx(prior, rel=0.12)
    assert all(abs(e.value / prior - 1) < 0.35 for e in found)
    assert sum(e.low <= prior <= e.high for e in found) >= 4
    weak = [estimate(*scores(0.01, 1.0, seed, unlabeled=6000), spread=1.5, **options) for seed in range(3)]
    assert all(e.refused for e in weak)


def test_ranks_alone_decide():
    """Any increasing function of the scores gives the same prior."""
    p, u = scores(0.1, 3.0, 0, unlabeled=4000)
    for estimate in (best_bin, alpha_max):
        assert estimate(p, u).value == pytest.approx(estimate(np.exp(p), np.exp(u)).value, rel=1e-9)
    assert dedpul(p, u, resamples=2).value == pytest.approx(dedpul(7 * p - 3, 7 * u - 3, resamples=2).value, rel=1e-6)


def test_posteriors_of_the_unlabeled_average_to_the_prior_and_are_calibrated():
    rng = np.random.default_rng(0)
    y = rng.random(40_000) < 0.2
    u, p = rng.normal(3.0 * y), rng.normal(3.0, size=2000)
    ratio = score_ratio(p, u)
    f = posterior_of_unlabeled(u, ratio, 0.2)
    assert f.mean() == pytest.approx(0.2, abs=0.01)
    exact = 1 / (1 + 0.8 / 0.2 * np.exp(4.5 - 3.0 * u))
    assert np.sqrt(np.mean((f - exact) ** 2)) < 0.05


def test_the_profile_likelihood_is_flat_up_to_the_prior_and_falls_beyond():
    counts_p, counts_n = np.array([0, 0, 40, 60]), np.array([500, 300, 100, 0])
    counts_u = np.array([500, 300, 140, 60])  # alpha = 100 / 1000 exactly
    values = [profile(a, counts_p.astype(float), counts_u.astype(float), 500)[0] for a in (0.0, 0.05, 0.099, 0.12, 0.2)]
    assert counts_n.sum() + 100 == counts_u.sum()
    assert values[1] == pytest.approx(values[0], abs=1e-6)
    assert values[2] == pytest.approx(values[0], abs=1e-6)
    assert values[0] > values[3] + 0.1 > values[4] + 1.1


def test_clopper_pearson_is_the_inverse_of_the_binomial():
    for k, n in ((0, 10), (3, 40), (40, 40)):
        low, high = clopper_pearson(k, n, 0.975)
        assert low == pytest.approx(beta.ppf(0.025, k, n - k + 1) if k else 0.0)
        assert high == pytest.approx(beta.ppf(0.975, k + 1, n - k) if k < n else 1.0)


# ---------------------------------------------------------------- features


def features(prior, seed, unlabeled=1500, labelled=300):
    rng = np.random.default_rng(seed)
    y = rng.random(unlabeled) < prior
    mean = np.array([4.0, 0.0])
    return rng.normal(size=(labelled, 2)) + mean, rng.normal(size=(unlabeled, 2)) + mean * y[:, None]


@pytest.mark.parametrize("method", ["KM1", "KM2"])
def test_kernel_means(method):
    found = kernel_mean(*features(0.5, 1), method=method, rows=150, repeats=3, spread=4.0)
    assert float(found) == pytest.approx(0.5, abs=0.08)
    assert found.low <= 0.5 <= found.high
    assert kernel_mean(*features(0.01, 2), method=method, rows=150, repeats=3).refused


def test_the_nearest_distribution_is_the_optimum():
    """Against the conditions of optimality: for K = A A', the gradient is least on the support of the solution."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(40, 40))
    kernel = a @ a.T / 40 + 0.1 * np.eye(40)
    target = rng.normal(size=40)
    target += (1 - target.sum()) / 40
    v = _nearest(kernel, target, np.full(40, 1 / 40), float(np.linalg.norm(kernel, 2)), steps=3000)
    gradient = kernel @ (v - target)
    assert v.min() >= 0
    assert v.sum() == pytest.approx(1.0)
    assert gradient[v > 1e-6].max() - gradient.min() < 1e-4


def test_projection_onto_the_simplex():
    assert _simplex(np.array([0.3, 0.7])) == pytest.approx([0.3, 0.7])
    assert _simplex(np.array([2.0, 0.0, -1.0])) == pytest.approx([1.0, 0.0, 0.0])


def test_trees_bound_the_prior_from_above():
    for prior in (0.2, 0.5):
        found = tree_induction(*features(prior, 3))
        assert found.low <= prior * 1.1
        assert prior * 0.9 <= found.value <= 1.7 * prior
    rng = np.random.default_rng(0)
    same = tree_induction(rng.normal(size=(300, 2)), rng.normal(size=(600, 2)))
    assert same.high > 0.99  # nothing tells P from U: all may be positive


# ---------------------------------------------------------------- external, mistakes


def test_a_prior_names_its_population():
    with pytest.raises(DataError, match="name its population"):
        external_prior(1e-3, 5e-4, 3e-3, population=" ")
    with pytest.raises(DataError, match="must hold its value"):
        external_prior(1e-3, 2e-3, 3e-3, population="x")
    assert external_prior(1e-3, 5e-4, 3e-3, population="x").to_json()["population"] == "x"


def test_mistakes_are_named():
    with pytest.raises(DataError, match="3 labelled rows are too few"):
        best_bin(np.ones(3), np.ones(100))
    with pytest.raises(DataError, match="not finite"):
        best_bin(np.full(30, np.nan), np.ones(100))
    with pytest.raises(ConfigError, match="KM1, KM2"):
        kernel_mean(np.ones((30, 1)), np.ones((30, 1)), method="KM3")
    assert best_bin(np.ones(30), np.ones(30)).refused
