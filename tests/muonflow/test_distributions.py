"""Counts, coordinates and the marginal density: sums, integrals, inverses and draws agree."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muonflow.coordinates import (
    derived_features,
    from_flow,
    from_source,
    source_log_jacobian,
    to_flow,
    to_source,
)
from muonflow.counts import Hurdle, log_negative_binomial, log_zero_truncated, sample_zero_truncated
from muonflow.marginal import Marginal, fit_marginal
from muonflow.scores import ks_distance, multiplicity_distance, per_muon


@given(st.floats(-12, 4), st.floats(-1.5, 5))
@settings(max_examples=60, deadline=None)
def test_counts_sum_to_one_and_have_their_mean(log_mean, log_shape):
    n = torch.arange(0, 6000, dtype=torch.float64)
    m, k = torch.tensor(log_mean).double(), torch.tensor(log_shape).double()
    p = log_negative_binomial(n, m, k).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-6)
    assert float((n * p).sum()) == pytest.approx(math.exp(log_mean), rel=1e-4)
    truncated = log_zero_truncated(n[1:], m, k).exp()
    assert float(truncated.sum()) == pytest.approx(1, abs=1e-6)


def test_negative_binomial_agrees_with_scipy():
    from scipy.stats import nbinom

    n = torch.arange(0.0, 50.0, dtype=torch.float64)
    ours = log_negative_binomial(n, torch.tensor(2.0).double(), torch.tensor(0.3).double())
    m, k = math.exp(2.0), math.exp(0.3)
    assert torch.allclose(ours, torch.as_tensor(nbinom.logpmf(n.numpy(), k, k / (k + m))), atol=1e-9)


@pytest.mark.parametrize(("log_mean", "log_shape"), [(-9.0, 0.5), (0.0, 1.0), (2.5, -0.5), (3.0, 4.0)])
def test_draws_follow_the_zero_truncated_distribution(log_mean, log_shape):
    size = 200_000
    m, k = (torch.full((size,), v, dtype=torch.float64) for v in (log_mean, log_shape))
    drawn = sample_zero_truncated(m, k, torch.Generator().manual_seed(7))
    assert int(drawn.min()) >= 1
    expected = log_zero_truncated(torch.arange(1.0, 400.0, dtype=torch.float64), m[0], k[0]).exp()
    seen = torch.bincount(drawn.clamp(max=399), minlength=400)[1:].double() / size
    assert 0.5 * float((seen - expected).abs().sum()) < 0.01


def test_the_hurdle_is_a_distribution_also_among_the_events_that_were_kept():
    odds = Hurdle(torch.tensor([-2.0]).double(), torch.tensor([0.5]).double(), torch.tensor([0.2]).double())
    n = torch.arange(0, 4000)
    p = odds.log_prob(n).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-9)
    kept = torch.tensor([0.1]).double()
    table = torch.where(n == 0, 0.1, 1.0) * p  # what is left when a tenth of the empty events is kept
    assert torch.allclose(odds.among_kept(kept).log_prob(n).exp(), table / table.sum(), atol=1e-12)
    mass = odds.mass_of_positive(20)[0]
    assert torch.allclose(mass[:-1], p[1:20] / p[1:].sum(), atol=1e-12)
    assert float(mass.sum()) == pytest.approx(1)
    many = Hurdle(*(v.expand(100_000) for v in odds)).sample(torch.Generator().manual_seed(1))
    assert float((many > 0).double().mean()) == pytest.approx(float(1 - p[0]), abs=0.005)


def test_anchors_of_the_source_coordinates():
    energy = torch.tensor([1.0, 100.0, 1e3, 1e6]).double()
    radius = torch.tensor([0.0, 1.0, 10.0, 1000.0]).double()
    scaled = to_source(torch.stack([energy, radius], 1))
    assert scaled[:, 0].tolist() == pytest.approx([-0.5, 0.5, 1.0, 2.5])
    assert scaled[:, 1].tolist() == pytest.approx([-3.540, -2.441, -0.197, 4.408], abs=1e-3)


@given(st.floats(1e-2, 1e8), st.floats(1e-2, 1e3))
@settings(max_examples=50, deadline=None)
def test_source_coordinates_and_their_jacobian(energy, radius):
    muon = torch.tensor([[energy, radius]], dtype=torch.float64)
    assert torch.allclose(from_source(to_source(muon)), muon, rtol=1e-5)
    jacobian = torch.autograd.functional.jacobian(lambda x: to_source(x[None])[0], muon[0])
    assert float(source_log_jacobian(muon)) == pytest.approx(-float(torch.linalg.slogdet(jacobian)[1]), abs=1e-9)


def test_a_radius_below_the_axis_is_zero_not_nan():
    assert from_source(torch.tensor([[0.0, -4.0]])).tolist() == [[10.0, 0.0]]


@given(st.floats(1e-3, 1.0, exclude_max=True), st.floats(1e-3, 1e3), st.floats(1e2, 1e8))
@settings(max_examples=50, deadline=None)
def test_flow_coordinates_invert_and_know_their_volume(share, radius, ceiling):
    muon = torch.tensor([[share * 0.999 * ceiling, radius]], dtype=torch.float64)
    limit = torch.tensor([ceiling], dtype=torch.float64)
    y, log_jacobian = to_flow(muon, limit)
    assert torch.allclose(from_flow(y, limit), muon, rtol=1e-9)
    jacobian = torch.autograd.functional.jacobian(lambda x: to_flow(x[None], limit)[0][0], muon[0])
    assert float(log_jacobian) == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), abs=1e-8)


@given(st.floats(-50, 90), st.floats(600, 1e8))
@settings(max_examples=100, deadline=None)
def test_whatever_the_flow_says_no_muon_reaches_its_ceiling(first, ceiling):
    limit = torch.tensor([ceiling], dtype=torch.float32)
    assert bool(from_flow(torch.tensor([[first, 0.0]]), limit)[0, 0] < limit[0])


@pytest.mark.parametrize("second", [-1e9, -200.0, 200.0, 1e9])
def test_a_distance_from_the_axis_is_a_number_however_heavy_the_tail(second):
    """One draw that overflows makes every mean, and the index of the tail, no number."""
    radius = from_flow(torch.tensor([[3.0, second]]), torch.tensor([1e5]))[0, 1]
    assert 0 < float(radius) < float("inf")


def test_features_are_finite_where_no_muon_can_arrive():
    condition = torch.tensor([[600.0, 1.4, 1, 2800.0], [1e8, 0.0, 56, 1000.0]])
    features = derived_features(condition)
    assert bool(torch.isfinite(features).all())
    assert features.dtype == torch.float32


def test_the_marginal_integrates_to_one():
    generator = torch.Generator().manual_seed(0)
    muons = torch.exp(torch.randn(4000, 2, generator=generator) + torch.tensor([4.5, 2.5]))
    marginal = Marginal(fit_marginal(muons))
    e, v = torch.linspace(-2, 3, 400), torch.linspace(-6, 5, 400)
    grid = torch.cartesian_prod(e, v)
    # below the axis' own v = -3.54 no muon lies, and from_source gives r = 0 there
    inside = grid[:, 1] > -3.54
    density = torch.zeros(len(grid))
    density[inside] = marginal.log_prob(from_source(grid[inside].double()).float()).exp()
    assert float(density.sum() * (e[1] - e[0]) * (v[1] - v[0])) == pytest.approx(1, abs=0.02)


def test_scores_weigh_every_muon_the_same_and_agree_with_scipy():
    assert per_muon(torch.tensor([-2.0, -9.0, 0.0]), torch.tensor([1, 3, 0])) == pytest.approx(11 / 4)
    from scipy.stats import ks_2samp

    generator = torch.Generator().manual_seed(3)
    a, b = (
        torch.randn(300, generator=generator).round(decimals=1),
        torch.randn(200, generator=generator).round(decimals=1) + 0.3,
    )
    ours = ks_distance(a, b, torch.ones(300), torch.ones(200))
    assert ours == pytest.approx(ks_2samp(a.numpy(), b.numpy()).statistic, abs=1e-6)
    doubled = ks_distance(torch.cat([a, a]), b, torch.ones(600), torch.ones(200))
    assert doubled == pytest.approx(ks_distance(a, b, torch.full((300,), 2.0), torch.ones(200)), abs=1e-6)


def test_multiplicity_distance_of_equal_and_of_disjoint_distributions():
    one, other = torch.zeros(50, 4), torch.zeros(50, 4)
    one[:, 0], other[:, 1] = 1, 1
    p = {"condition": torch.full((50, 4), 1e5), "count": torch.ones(50), "multiplicity": one, "multiplicity_oracle": one}
    assert multiplicity_distance(p) == 0
    assert multiplicity_distance({**p, "multiplicity_oracle": other}) == pytest.approx(1)
