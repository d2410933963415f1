"""Tests of posteriors have power: exact ones pass; biased, too narrow and too wide ones are found, at a size users have."""

import time

import numpy as np
import pytest
import torch
from scipy import stats

from skyloom.calibration import (
    central_credibility,
    density_credibility,
    ecdf_band,
    expected_coverage,
    histogram_band,
    one_per_group,
    pit,
    ranks,
    tarp_credibility,
    uniformity,
)
from skyloom.errors import DataError

LEVELS = np.linspace(0.05, 0.95, 19)


def linear_gaussian(objects, draws, features=3, shift=0.0, stretch=1.0, seed=0):
    """Truths from exact posteriors N(m, C), draws from N(m + shift sd, stretch^2 C), and ln p of both under the latter."""
    g = torch.Generator().manual_seed(seed)
    l = torch.tensor([[1.0, 0, 0], [0.8, 0.4, 0], [-0.3, 0.2, 2.0]])[:features, :features]
    sd = l.norm(dim=1)
    mean = 2 * torch.randn(objects, features, generator=g)
    truth = mean + torch.randn(objects, features, generator=g) @ l.T
    stated = torch.distributions.MultivariateNormal(mean + shift * sd, scale_tril=stretch * l)
    noise = torch.randn(objects, draws, features, generator=g)
    sample = stated.loc.unsqueeze(1) + noise @ (stretch * l).T
    return sample, truth, stated.log_prob(sample.transpose(0, 1)).T, stated.log_prob(truth), g


TESTS = {
    "sbc": lambda s, t, ls, lt, g: pit(s, t, g),
    "tarp": lambda s, t, ls, lt, g: tarp_credibility(s, t, generator=g),
    "density": lambda s, t, ls, lt, g: density_credibility(ls, lt, g),
}
WRONG = {"biased": {"shift": 0.35}, "too narrow": {"stretch": 0.75}, "too wide": {"stretch": 1.35}}


@pytest.mark.parametrize("name", TESTS)
def test_exact_posteriors_are_rejected_as_rarely_as_stated(name):
    """Forty experiments of 200 objects: p-values of exact posteriors are spread evenly."""
    p = np.concatenate([uniformity(TESTS[name](*linear_gaussian(200, 100, seed=k))).p for k in range(40)])
    assert (p < 0.01).mean() <= 0.05
    assert 0.3 < np.mean(p) < 0.7
    assert stats.kstest(p, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", TESTS)
def test_wrong_posteriors_are_rejected_at_three_hundred_objects(name, wrong):
    """Ten experiments each, nine found at p < 0.01. Regions are blinder than ranks to a bias: it must be larger for them."""
    planted = WRONG[wrong] if name == "sbc" or wrong != "biased" else {"shift": 0.9}
    p = np.array([uniformity(TESTS[name](*linear_gaussian(300, 100, seed=100 + k, **planted))).p.min() for k in range(10)])
    assert (p < 0.01).mean() >= 0.9, p


def test_a_common_reference_point_lets_tarp_see_a_small_bias():
    """Random points lie on every side, and what a bias does around one undoes what it does around another."""
    p = {"random": [], "corner": []}
    for k in range(10):
        sample, truth, *_, g = linear_gaussian(300, 100, seed=100 + k, **WRONG["biased"])
        corner = truth.amin(0).expand_as(truth)
        p["random"].append(uniformity(tarp_credibility(sample, truth, generator=g)).p[0])
        p["corner"].append(uniformity(tarp_credibility(sample, truth, corner, g)).p[0])
    assert np.mean(np.array(p["corner"]) < 0.01) >= 0.9
    assert np.mean(np.array(p["random"]) < 0.01) <= 0.5


def test_tilt_and_bend_say_in_which_way_a_posterior_is_wrong():
    found = {w: uniformity(pit(*linear_gaussian(1000, 100, **k)[:2])) for w, k in WRONG.items()}
    assert (found["biased"].tilt < -5).all() and (np.abs(found["too narrow"].tilt) < 4).all()
    assert (found["too narrow"].bend > 4).all() and (found["too wide"].bend < -4).all()
    exact = uniformity(pit(*linear_gaussian(1000, 100)[:2]))
    assert exact.passed() and not found["biased"].passed()
    assert (np.abs(exact.tilt) < 4).all() and (np.abs(exact.bend) < 4).all()


def test_a_joint_error_that_no_column_shows_is_found_by_the_joint_tests():
    """Draws with the right marginals and no correlation: ranks pass, regions of the joint posterior do not."""
    g = torch.Generator().manual_seed(0)
    truth = torch.randn(2000, 2, generator=g) @ torch.tensor([[1.0, 0.95], [0.0, 0.312]])
    draws = torch.randn(2000, 200, 2, generator=g)
    independent = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    assert uniformity(pit(draws, truth, g)).passed()
    assert uniformity(tarp_credibility(draws, truth, generator=g)).p[0] < 0.01
    assert uniformity(density_credibility(independent.log_prob(draws), independent.log_prob(truth), g)).p[0] < 0.01


# ---------------------------------------------------------------- ranks


def test_ranks_count_and_ties_are_broken_by_lot():
    draws = torch.arange(10.0).view(1, 10, 1).expand(5000, -1, -1)
    assert (ranks(draws, torch.full((5000, 1), 3.5)) == 4).all()
    assert (ranks(draws, torch.full((5000, 1), -1.0)) == 0).all() and (ranks(draws, torch.full((5000, 1), 99.0)) == 10).all()
    tied = ranks(draws, torch.full((5000, 1), 3.0), torch.Generator().manual_seed(0))
    assert set(tied.unique().tolist()) == {3, 4} and 0.45 < (tied == 3).float().mean() < 0.55
    everything = torch.zeros(5000, 10, 1)  # a posterior that is one value, and right: every rank is as likely
    u = pit(everything, torch.zeros(5000, 1), torch.Generator().manual_seed(1))
    assert uniformity(u).passed()


def test_few_draws_leave_the_transform_exactly_uniform():
    """rank / S of five draws is a staircase, which a test of a continuous law rejects; with its place in the step it is not."""
    sample, truth, *_, g = linear_gaussian(5000, 5, seed=1)
    assert uniformity(pit(sample, truth, g)).passed()
    assert stats.kstest((ranks(sample, truth, g)[:, 0] / 5).numpy(), "uniform").pvalue < 1e-6


def test_bands_hold_uniform_numbers_as_often_as_they_say():
    rng = np.random.default_rng(1)
    points, low, high = ecdf_band(300, level=0.9)
    inside = [
        ((e := (np.sort(rng.random(300))[:, None] <= points).mean(0)) >= low).all() and (e <= high).all() for _ in range(600)
    ]
    assert 0.86 < np.mean(inside) <= 0.97
    low_count, high_count = histogram_band(2000, 20, 0.99)
    counts = rng.multinomial(2000, np.full(20, 0.05), size=500)
    assert 0.985 < ((counts >= low_count) & (counts <= high_count)).mean() <= 1


def test_rows_of_one_group_are_not_independent_and_one_of_each_is():
    """Eight copies of every object: taken for independent rows, exact posteriors are rejected; thinned, they are not."""
    groups = np.repeat(np.arange(150), 8)
    naive, thinned = [], []
    for k in range(15):
        sample, truth, *_, g = linear_gaussian(150, 50, features=1, seed=k)
        u = np.repeat(pit(sample, truth, g).numpy(), 8, axis=0)
        naive.append(uniformity(u).p[0])
        thinned.append(uniformity(u[one_per_group(groups, np.random.default_rng(k))]).p[0])
    assert np.mean(np.array(naive) < 0.01) > 0.3
    assert np.mean(np.array(thinned) < 0.01) <= 0.07


def test_mistakes_are_named():
    with pytest.raises(DataError, match="ten or more"):
        uniformity([0.1, 0.2])
    with pytest.raises(DataError, match="do not fit"):
        tarp_credibility(torch.zeros(4, 10, 2), torch.zeros(10, 2))
    with pytest.raises(DataError, match="reference point"):
        tarp_credibility(torch.zeros(4, 10, 2), torch.zeros(4, 2), references=torch.zeros(4, 3))


# ---------------------------------------------------------------- coverage


def test_coverage_of_exact_posteriors_is_the_level_and_of_narrow_ones_below():
    sample, truth, ls, lt, g = linear_gaussian(2000, 200)
    for credibility in (
        central_credibility(sample, truth, g),
        density_credibility(ls, lt, g),
        tarp_credibility(sample, truth, generator=g),
    ):
        coverage = expected_coverage(credibility, LEVELS)
        assert coverage.error < 0.05
        assert ((coverage.low <= coverage.share) & (coverage.share <= coverage.high)).all()
    narrow = expected_coverage(density_credibility(*linear_gaussian(2000, 200, stretch=0.7)[2:4]), (0.68, 0.95))
    wide = expected_coverage(density_credibility(*linear_gaussian(2000, 200, stretch=1.4)[2:4]), (0.68, 0.95))
    assert (narrow.share < narrow.levels - 0.1).all() and not narrow.consistent
    assert (wide.share > wide.levels + 0.02).all() and not wide.consistent


def test_central_coverage_of_a_narrow_gaussian_is_the_known_number():
    """Stated deviation 0.7 of the true one: the 68.27% interval covers 2 F(0.7) - 1 = 51.6%."""
    sample, truth, *_, g = linear_gaussian(20_000, 300, features=1, stretch=0.7)
    share = expected_coverage(central_credibility(sample, truth, g), [0.6827]).share[0, 0]
    assert share == pytest.approx(2 * stats.norm.cdf(0.7) - 1, abs=0.012)


def test_intervals_of_coverage_cover_with_and_without_groups():
    hits = {"plain": 0, "naive": 0, "grouped": 0}
    for k in range(100):
        rng = np.random.default_rng(k)
        hits["plain"] += expected_coverage(rng.random(200), [0.68]).consistent
        repeated, groups = np.repeat(rng.random(60), 6), np.repeat(np.arange(60), 6)
        hits["naive"] += expected_coverage(repeated, [0.68]).consistent
        hits["grouped"] += expected_coverage(repeated, [0.68], groups, rng).consistent
    assert hits["plain"] >= 88 and hits["grouped"] >= 86 and hits["naive"] < 75


# ---------------------------------------------------------------- TARP and its reference implementation


def test_tarp_agrees_with_the_package_of_its_authors():
    drp = pytest.importorskip("tarp")
    sample, truth, *_ = linear_gaussian(400, 150, stretch=0.8)
    low, high = truth.amin(0), truth.amax(0)
    unit = torch.rand(truth.shape, generator=torch.Generator().manual_seed(3))
    numbers = np.random.get_state()  # noqa: NPY002 - the package seeds the global generator
    ecp, edges = drp.get_tarp_coverage(
        sample.transpose(0, 1).double().numpy().copy(),
        truth.double().numpy().copy(),
        references=unit.double().numpy(),
        norm=True,
        num_alpha_bins=20,
    )
    np.random.set_state(numbers)  # noqa: NPY002
    ours = tarp_credibility(sample, truth, references=low + (high - low) * unit)
    inner, rank = edges[1:-1], 1 / 150  # a tie is counted as below there, drawn here
    assert (expected_coverage(ours, inner - rank).share <= ecp[1:-1] + 1e-9).all()
    assert (expected_coverage(ours, inner + rank).share >= ecp[1:-1] - 1e-9).all()
    assert abs(np.mean(expected_coverage(ours, inner).share - ecp[1:-1])) < 1 / 150


def test_reference_points_are_scaled_with_the_draws_and_nothing_of_the_caller_changes():
    """The authors' package leaves given references in other units than the draws it has normalised."""
    sample, truth, *_ = linear_gaussian(300, 100)
    kept = sample.clone(), truth.clone()
    references = truth[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    units = torch.tensor([1e-3, 1.0, 1e6])
    a = tarp_credibility(sample, truth, references, torch.Generator().manual_seed(1))
    b = tarp_credibility(
        sample * units + 5 * units, truth * units + 5 * units, references * units + 5 * units, torch.Generator().manual_seed(1)
    )
    assert (a - b).abs().max() < 0.03
    assert torch.equal(sample, kept[0]) and torch.equal(truth, kept[1])
    city = tarp_credibility(sample, truth, references, torch.Generator().manual_seed(1), manhattan=True)
    assert uniformity(city).passed() and not torch.equal(city, a)


@pytest.mark.parametrize("objects", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_ten_thousand_objects_take_seconds(objects):
    g = torch.Generator().manual_seed(0)
    draws, truth = torch.randn(objects, 1000, 6, generator=g), torch.randn(objects, 6, generator=g)
    began = time.process_time()
    assert uniformity(pit(draws, truth, g)).passed()
    assert uniformity(tarp_credibility(draws, truth, generator=g)).passed()
    assert expected_coverage(central_credibility(draws, truth, g)).error < 0.08
    assert time.process_time() - began < 10 * max(1.0, objects / 2000)
