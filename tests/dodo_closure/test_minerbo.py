"""The maximum-entropy closure to machine precision, and its limits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dodo_closure.fluxes import density, flux, four_flux
from dodo_closure.minerbo import crossing_discriminant, inverse_langevin, langevin, maximum_entropy
from dodo_closure.quadrature import Lebedev
from dodo_closure.states import NSM, state

INVERSE = {
    0.0: 0.0,
    0.01: 0.0300018001697263,
    0.1: 0.301817149206338,
    1 / 3: 1.07456289995353,
    0.5: 1.79675598472371,
    0.7: 3.30354449010076,
    0.9: 9.99999958776895,
    0.95: 20.0,
    0.98: 50.0,
    0.999: 1000.0,  # a bracket that ends at Z = 50 would say 50
}


@pytest.mark.parametrize(("f", "z"), INVERSE.items())
def test_inverse_langevin_golden(f, z):
    assert inverse_langevin(torch.tensor(f, dtype=torch.float64)).item() == pytest.approx(z, rel=3e-13)


def test_langevin_inverse():
    f = torch.linspace(0, 1 - 1e-6, 10_001, dtype=torch.float64)
    assert (langevin(inverse_langevin(f)) - f).abs().max() < 1e-15
    tiny = torch.logspace(-300, -1, 300, dtype=torch.float64)
    assert ((langevin(inverse_langevin(tiny)) - tiny) / tiny).abs().max() < 1e-14


def test_langevin_matches_its_definition_in_high_precision():
    from mpmath import coth, mp, mpf

    with mp.workdps(40):
        for z in (1e-8, 1e-3, 0.1, 0.49999, 0.5, 0.50001, 1.0, 7.0, 40.0, 1e4):
            exact = float(coth(mpf(z)) - 1 / mpf(z))
            assert langevin(torch.tensor(z, dtype=torch.float64)).item() == pytest.approx(exact, rel=2e-15)


def test_outside_of_the_domain_is_not_a_number():
    z = inverse_langevin(torch.tensor([-0.1, 1.0, 1.0001, math.nan]))
    assert torch.isnan(z).tolist() == [True, False, True, True]
    assert z[1] == math.inf


@settings(max_examples=50, deadline=None)
@given(f=st.floats(0, 0.9), n=st.floats(1e-3, 1e33), cosine=st.floats(-1, 1), azimuth=st.floats(0, 6.28))
def test_minerbo_moments(f, n, cosine, azimuth):
    sine = math.sqrt(1 - cosine**2)
    h = torch.tensor([sine * math.cos(azimuth), sine * math.sin(azimuth), cosine], dtype=torch.float64)
    F = four_flux(torch.tensor([n], dtype=torch.float64), (n * f * h)[None])
    directions, weights = (part[0] for part in Lebedev(47)(lambda d: d, torch.eye(3, dtype=torch.float64)[None]))
    intensity = maximum_entropy(F).along(directions)
    assert bool((intensity >= 0).all())
    torch.testing.assert_close(intensity @ weights, density(F), rtol=1e-13, atol=0)
    torch.testing.assert_close((intensity * weights) @ directions, flux(F), rtol=0, atol=1e-13 * n)


def test_second_moment_is_the_eddington_factor():
    f = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    z = torch.zeros(3, 3, dtype=torch.float64)
    z[:, 2] = f
    directions, weights = (part[0] for part in Lebedev(47)(lambda d: d, torch.eye(3, dtype=torch.float64)[None]))
    second = (maximum_entropy(four_flux(torch.ones(3, dtype=torch.float64), z)).along(directions) * weights) @ directions[
        :, 2
    ] ** 2
    torch.testing.assert_close(second, 1 - 2 * f / inverse_langevin(f), rtol=1e-13, atol=0)


def test_minerbo_limits_no_nan():
    F = torch.zeros(6, 4, dtype=torch.float64)
    F[1:, 3] = torch.tensor([1.0, 1.0, 1.0, 1.0, 1e-300])
    F[2:, 0] = torch.tensor([1e-200, 1.0, 1 - 1e-6, 5e-301])
    directions = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, 1.0, 0]], dtype=torch.float64)
    value = maximum_entropy(F).along(directions)
    assert bool(torch.isfinite(value).all())
    assert value[0].abs().max() == 0  # an empty species
    torch.testing.assert_close(value[1:3], torch.full((2, 3), 1 / (4 * math.pi), dtype=torch.float64))


GOLDEN_DISCRIMINANT = {
    "NSM1": (0.494195580900, 0.182951793155),
    "NSM2": (0.026824038666, 0.693565960547),
    "NSM3": (0.111559584464, 0.576928602428),
}


@pytest.mark.parametrize("name", GOLDEN_DISCRIMINANT)
def test_crossing_discriminant_golden(name):
    F = state(*NSM[name])
    found, cosine = crossing_discriminant(F[0, 0], F[1, 0])
    assert (found.item(), cosine.item()) == pytest.approx(GOLDEN_DISCRIMINANT[name], abs=1e-11)


def test_crossing_discriminant_vs_sampling():
    generator = torch.Generator().manual_seed(1)
    n = torch.rand(2000, 2, generator=generator, dtype=torch.float64)
    h = torch.randn(2000, 2, 3, generator=generator, dtype=torch.float64)
    h = h / h.norm(dim=-1, keepdim=True) * 0.8 * torch.rand(2000, 2, 1, generator=generator, dtype=torch.float64)
    F = four_flux(n, n[..., None] * h)
    found, _ = crossing_discriminant(F[:, 0], F[:, 1])
    points = torch.randn(2000, 3, generator=generator, dtype=torch.float64)
    excess = maximum_entropy(F).along(points / points.norm(dim=1, keepdim=True))
    changes = ((excess[:, 0] > excess[:, 1]).float().mean(dim=1) % 1) > 0
    clear = found.abs() > 0.05  # 2000 points do not resolve a smaller cap
    assert bool(((found > 0) == changes)[clear].all())
    assert 0.2 < changes.double().mean() < 0.9
