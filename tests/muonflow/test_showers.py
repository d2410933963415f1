"""The stand-in's exact density is the density of what it makes."""

import math

import pytest
import torch

from muonflow import physics, showers
from muonflow.coordinates import source_log_jacobian
from muonflow.showers import simulate
from skyloom.errors import ConfigError


@pytest.fixture(scope="module")
def many():
    return simulate(400_000, depths=1, index=2.0, keep_empty=0.01, seed=11)


def floor(events):
    where, owner = events.rows_of_muons(torch.arange(len(events)))
    muons = events.muons[where].double()
    return -float((showers.log_density(muons, events.condition[owner]) + source_log_jacobian(muons)).mean())


def test_the_known_floor_of_the_harder_spectrum(many):
    assert floor(many) == pytest.approx(1.369, abs=0.02)


def test_the_known_floor_of_the_softer_spectrum():
    events = simulate(900_000, depths=1, index=2.6, keep_empty=0.01, seed=5)
    assert floor(events) == pytest.approx(1.309, abs=0.025)


def test_statistics_of_the_bundles(many):
    filled = many.count[many.count > 0].double()
    assert len(filled) / 400_000 == pytest.approx(0.0375, rel=0.05)
    assert float(filled.mean()) == pytest.approx(4.8, rel=0.1)
    assert float(torch.log1p(filled).mean()) == pytest.approx(1.21, rel=0.02)
    assert float((filled == 1).double().mean()) == pytest.approx(0.51, rel=0.03)
    energy, radius = many.muons.double().unbind(1)
    median = [float(torch.quantile(x, 0.5)) for x in (energy, radius)]
    assert median == pytest.approx([133, 10.8], rel=0.05)
    assert float(torch.corrcoef(torch.stack([energy.log(), radius.log()]))[0, 1]) == pytest.approx(-0.45, abs=0.03)


def test_the_density_integrates_to_one():
    condition = torch.tensor([[1e5, 0.2, 1, 1500.0], [1e6, 1.0, 56, 1900.0], [3e7, 0.0, 14, 2700.0]])
    for one in condition:
        log_e = torch.linspace(math.log(1e-3), math.log(float(one[0] / one[2])), 700, dtype=torch.float64)
        log_r = torch.linspace(math.log(1e-3), math.log(1e4), 500, dtype=torch.float64)
        e, r = torch.meshgrid(log_e.exp(), log_r.exp(), indexing="ij")
        muons = torch.stack([e.flatten(), r.flatten()], 1)
        density = showers.log_density(muons, one.expand(len(muons), 4)).exp() * muons.prod(1)
        mass = torch.trapezoid(torch.trapezoid(density.reshape(e.shape), log_r), log_e)
        assert float(mass) == pytest.approx(1, abs=0.01)


def test_the_density_is_the_derivative_of_the_survival():
    condition = torch.tensor([[2e5, 0.7, 4, 1400.0]]).double()
    energy = torch.tensor([5.0, 80.0, 900.0], dtype=torch.float64, requires_grad=True)
    survival = showers.energy_survival(energy, condition.expand(3, 4))
    (slope,) = torch.autograd.grad(survival.sum(), energy)
    r = torch.logspace(-4, 5, 4000, dtype=torch.float64)
    for k in range(3):
        muons = torch.stack([energy[k].detach().expand(4000), r], 1)
        over_r = torch.trapezoid(showers.log_density(muons, condition.expand(4000, 4)).exp(), r)
        assert float(over_r) == pytest.approx(-float(slope[k]), rel=1e-3)


def test_counts_are_those_of_their_exact_distribution():
    """Mean and variance of counts at fixed condition, and superposition: heavier primaries fluctuate less."""
    relative = {}
    for mass in (1, 56):
        here = showers.arrival(torch.tensor([[1e7, 0.0, mass, 1500.0]]))
        n = torch.arange(20_000.0, dtype=torch.float64)[:, None]
        p = showers.log_probability_of_count(n, torch.tensor([[1e7, 0.0, mass, 1500.0]])).exp()[:, 0]
        assert float(p.sum()) == pytest.approx(1, abs=1e-6)
        mean = float((p * n[:, 0]).sum())
        assert mean == pytest.approx(float(here.mean), rel=1e-6)
        variance = float((p * (n[:, 0] - mean) ** 2).sum())
        assert variance == pytest.approx(mean + mean**2 * (0.35 / mass + 0.02), rel=1e-5)
        relative[mass] = math.sqrt(variance) / mean
    assert relative[1] > 0.6 > 0.3 > relative[56]


def test_energies_follow_their_survival_function(many):
    """The probability integral transform of all energies is uniform (KS, n large: 1.63 / sqrt(n) at 1%)."""
    where, owner = many.rows_of_muons(torch.arange(len(many)))
    u = showers.energy_survival(many.muons[where, 0], many.condition[owner]).sort().values
    first = torch.unique(owner, return_inverse=True)[1]
    events = int(first.max()) + 1
    gap = (u - (torch.arange(len(u)) + 0.5) / len(u)).abs().max()
    assert float(gap) < 1.63 / math.sqrt(len(u))
    assert events > 10_000


def test_one_shower_at_two_depths_is_the_same_shower():
    events = simulate(60_000, depths=2, index=2.0, seed=2)
    count, radius_of = events.count.reshape(-1, 2), events.muons[:, 1]
    assert bool((count[:, 1] <= count[:, 0]).all())  # fewer arrive deeper
    assert bool((events.condition.reshape(-1, 2, 4)[:, 0, :3] == events.condition.reshape(-1, 2, 4)[:, 1, :3]).all())
    for row in torch.nonzero(count[:, 1] > 0).flatten()[:200].tolist():
        shallow, deep = (events.take(torch.tensor([2 * row + k])) for k in (0, 1))
        assert set(deep.muons[:, 1].tolist()) <= set(shallow.muons[:, 1].tolist())
    assert len(radius_of) == int(count.sum())


def test_deeper_at_one_zenith_the_survivors_are_harder():
    """Mean energy of the vertical exact spectrum of 2.5 km over that of 1.5 km: 1.5 within 25% (Becherini et al. 2006)."""
    u = ((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000).repeat(1)
    means = []
    for depth in (1500.0, 2500.0):
        condition = torch.tensor([[1e5, 0.0, 1.0, depth]]).expand(4000, 4)
        here = showers.arrival(condition)
        means.append(float(physics.depth_energy(showers.surface_energies(here, u), here.column).mean()))
    assert means[1] / means[0] == pytest.approx(246.9 / 160.6, rel=0.25)


def test_the_same_seed_gives_the_same_showers_and_shares_are_checked():
    a, b, c = (simulate(5000, seed=s, keep_empty=0.5) for s in (3, 3, 4))
    assert torch.equal(a.condition, b.condition)
    assert torch.equal(a.muons, b.muons)
    assert a.condition.shape != c.condition.shape or not torch.equal(a.condition, c.condition)
    with pytest.raises(ConfigError, match="keep_empty=0"):
        simulate(10, keep_empty=0)
