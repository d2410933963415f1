"""The smaller side as a sum of discs: against closed forms, another rule, and the laws that every rule keeps."""

import math

import pytest
import torch

from dodo_closure import Discs, asymptotic_state, conservation_error, draw_states
from dodo_closure.box3d import STEEPEST
from dodo_closure.discs import disc_moments
from dodo_closure.fluxes import four_flux, heavy_average, total_density
from dodo_closure.minerbo import maximum_entropy
from dodo_closure.quadrature import CrossingAware
from dodo_closure.states import random_rotations, rotate


def unit(family: str, rows: int, seed: int = 0) -> torch.Tensor:
    F = draw_states(family, rows, seed)
    return F / total_density(F)[:, None, None, None]


def beams(*species: tuple[int, int, float, float, tuple[float, float, float]]) -> torch.Tensor:
    """[2, 3, 4] with N = 1 of (nu or nubar, e or x, density, flux factor, direction); mu and tau alike."""
    F = torch.zeros(2, 3, 4, dtype=torch.float64)
    for s, kind, n, factor, direction in species:
        h = torch.nn.functional.normalize(torch.tensor(direction, dtype=torch.float64), dim=0)
        F[s, (1 if kind else 0) : (3 if kind else 1)] = four_flux(torch.tensor(n, dtype=torch.float64), n * factor * h)
    return F / total_density(F)


def found(F: torch.Tensor, how: Discs) -> torch.Tensor:
    m = heavy_average(F)
    return disc_moments(maximum_entropy(m, STEEPEST), m, how)[1]


def difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).abs().flatten(1).amax(dim=1)


def test_discs_agree_with_cut_meridians():
    F = unit("random", 160)
    fine = asymptotic_state(F, CrossingAware(96, 24, 64))[0]
    error = difference(asymptotic_state(F, Discs())[0], fine)
    assert found(F, Discs()).double().mean() > 0.95
    assert error.mean() < 3e-5
    assert error.max() < 1e-3
    closer = difference(asymptotic_state(F, Discs(32, 10, 16, tolerance=1e-8, doublings=3))[0], fine)
    assert closer.mean() < error.mean()


def test_beams_are_resolved():
    """Six species of flux factor 0.97: narrower than what a disc's few nodes see."""
    F = unit("random", 24, seed=11)
    h = torch.nn.functional.normalize(F[..., :3], dim=-1)
    F = four_flux(F[..., 3], 0.97 * F[..., 3:] * h)
    error = difference(asymptotic_state(F, Discs())[0], asymptotic_state(F, CrossingAware(96, 24, 64))[0])
    assert error.mean() < 1e-4


@pytest.mark.parametrize("radius", [0.03, 0.2, 0.9])
def test_a_cap_of_any_size_is_found_wherever_it_points(radius):
    """An isotropic gas of nu_e and a beam of nu_x: G < 0 in a cap about the beam, whose contents have a closed form."""
    z = 20.0  # flux factor 0.95
    peak = 0.5 / (1 + 2) * z / (2 * math.pi * (1 - math.exp(-2 * z)))
    edge = 1 - math.cos(radius)
    isotropic = peak * math.exp(-z * edge)
    F = beams((0, 0, 4 * math.pi * isotropic, 0.0, (0, 0, 1)), (0, 1, 0.5 / 3, 1 / math.tanh(z) - 1 / z, (0.3, -0.5, 0.8)))
    scale = 1 / (4 * math.pi * isotropic + 1 / 3)
    inside = scale * 2 * math.pi * (peak * (1 - math.exp(-z * edge)) / z - isotropic * edge)
    outside = inside + scale * (4 * math.pi * isotropic - 0.5 / 3)
    turned = rotate(F.expand(20, 2, 3, 4), random_rotations(20, torch.Generator().manual_seed(0)))
    after = asymptotic_state(turned, Discs(24, 10, tolerance=1e-7))[1]
    assert bool(found(turned, Discs(24, 10, tolerance=1e-7)).all())
    assert bool(after.unstable.all())
    expected = torch.full((20,), min(inside, outside), dtype=torch.float64)
    torch.testing.assert_close(after.smaller, expected, rtol=0, atol=1e-7)


TWO = {
    "two caps": (0.5, 0.12, 0.10),
    "a sphere without two caps": (0.12, 0.3, 0.25),
}


@pytest.mark.parametrize("kind", TWO)
def test_two_discs(kind):
    """Beams of nubar_e and nu_x in a gas of nu_e: G < 0 in two caps, which are the smaller side or the larger one."""
    gas, first, second = TWO[kind]
    F = beams((0, 0, gas, 0.1, (1, 0, 0)), (1, 0, first, 0.9, (0.2, 0.1, 1)), (0, 1, second, 0.85, (0.1, -0.9, -0.4)))[None]
    fine, side = asymptotic_state(F, CrossingAware(512, 24, 128))
    assert bool(side.unstable)
    how = Discs(32, 10, 16, tolerance=1e-6, doublings=3)
    assert bool(found(F, how))
    assert difference(asymptotic_state(F, how)[0], fine) < 5e-5


@pytest.mark.parametrize(
    ("how", "round_off"), [(Discs(), 1e-6), (Discs(tolerance=1e-6, doublings=3), 1e-9)], ids=["single", "double"]
)
def test_discs_keep_the_laws(how, round_off):
    F = unit("random", 200, seed=2)
    after = asymptotic_state(F, how)[0]
    assert max(part.max() for part in conservation_error(F, after)) < 1e-14
    torch.testing.assert_close(asymptotic_state(F.flip(1), how)[0].flip(1), after, rtol=0, atol=round_off)
    R = random_rotations(200, torch.Generator().manual_seed(1))
    turned = asymptotic_state(rotate(F, R), how)[0]
    assert difference(turned, rotate(after, R)).quantile(0.95) < round_off
    alone = torch.cat([asymptotic_state(row[None], how)[0] for row in F[:12]])
    torch.testing.assert_close(alone, after[:12], rtol=0, atol=round_off)
    torch.testing.assert_close(asymptotic_state(F * 1e33, how)[0] / 1e33, after, rtol=0, atol=round_off)
    for family in ("isotropic", "one_flavor"):
        stable = unit(family, 50)
        assert torch.equal(asymptotic_state(stable, how)[0], stable)
    same = F.clone()
    same[:, :, 0] = same[:, :, 1]
    assert torch.equal(asymptotic_state(same, how)[0], same)
    sure = unit("near_isotropic", 300)
    assert torch.equal(asymptotic_state(sure, how)[1].unstable, asymptotic_state(sure)[1].unstable)


def test_discs_in_float32():
    m = heavy_average(unit("random", 200, seed=3))
    exact, seen = disc_moments(maximum_entropy(m, STEEPEST), m, Discs())
    single, also = disc_moments(maximum_entropy(m.float(), STEEPEST), m.float(), Discs())
    assert single.dtype == torch.float32
    both = seen & also
    assert both.double().mean() > 0.9
    error = difference(single[both].double(), exact[both])
    assert error.median() < 1e-6
    assert error.max() < 1e-3
