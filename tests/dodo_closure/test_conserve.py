"""The projector is orthogonal, the limiter keeps what is conserved, the layout means what it says."""

import torch

from dodo_closure import conservation_error, draw_states, limit, project
from dodo_closure.fluxes import density, flux, flux_factor, four_flux, from_public, is_physical, to_public, total_density
from dodo_closure.states import random_rotations, rotate


def normal(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit_states(rows: int) -> torch.Tensor:
    F = draw_states("random", rows, seed=0)
    return F / total_density(F)[:, None, None, None]


def test_projection_is_orthogonal():
    matrix = project(torch.zeros(24, 2, 3, 4, dtype=torch.float64), torch.eye(24, dtype=torch.float64).reshape(24, 2, 3, 4))
    matrix = matrix.reshape(24, 24)
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-15)
    torch.testing.assert_close(matrix @ matrix, matrix, rtol=0, atol=1e-15)
    assert round(matrix.trace().item()) == 24 - 10  # eleven conserved numbers, of which ten are independent


def test_projection_conserves_and_turns_with_the_state():
    F, guess = unit_states(50), normal(50)
    trace, lepton = conservation_error(F, project(F, guess))
    assert max(trace.max(), lepton.max()) < 1e-13
    R = random_rotations(50, torch.Generator().manual_seed(1))
    torch.testing.assert_close(project(rotate(F, R), rotate(guess, R)), rotate(project(F, guess), R), rtol=0, atol=1e-13)


def test_limiter_preserves_conservation():
    F = unit_states(20_000)
    wild = project(F, F + 0.3 * normal(20_000))
    assert is_physical(wild).double().mean() < 0.1
    tame = limit(F, wild)
    assert bool((density(tame) >= 0).all())
    assert bool((flux(tame).norm(dim=-1) <= density(tame) * (1 + 1e-12)).all())
    trace, lepton = conservation_error(F, tame)
    assert max(trace.max(), lepton.max()) < 1e-12
    step, whole = (tame - F).flatten(1), (wild - F).flatten(1)
    share = (step * whole).sum(dim=1) / (whole * whole).sum(dim=1)
    assert bool(((share >= 0) & (share <= 1)).all())
    torch.testing.assert_close(step, share[:, None] * whole, rtol=0, atol=1e-13)
    assert share.median() > 0.02  # as far as the cone allows, not back to the start


def test_projection_uses_density_component():
    """Net flavor numbers are kept by moving densities; an earlier correction moved the x flux."""
    F, guess = unit_states(5), unit_states(5)
    guess[:, 0, 0, 3] += 0.01  # net electron number off, and the sum over flavors
    fixed = project(F, F + (guess - unit_states(5)))
    torch.testing.assert_close(flux(fixed), flux(F), rtol=0, atol=1e-16)
    assert (density(fixed) - density(F)).abs().max() > 1e-3


def test_limiter_leaves_physical_predictions_alone():
    F = unit_states(100)
    assert torch.equal(limit(F.roll(1, 0), F), F)


def test_a_wrong_flux_is_no_wrong_density():
    """Components are (x, y, z, t): the density is the last, the flux the first three."""
    F = unit_states(3)
    other = four_flux(density(F), flux(F) + torch.tensor([0.5, 0, 0], dtype=torch.float64))
    assert torch.equal(density(other), density(F))
    assert not torch.equal(flux_factor(other), flux_factor(F))
    torch.testing.assert_close(density(F).sum(dim=(1, 2)), torch.ones(3, dtype=torch.float64))


def test_public_layout_and_back():
    F = torch.arange(5 * 4 * 2 * 3, dtype=torch.float64).reshape(5, 4, 2, 3)
    assert torch.equal(to_public(from_public(F)), F)
    assert from_public(F)[2, 1, 0, 3] == F[2, 3, 1, 0]  # the density of nubar_e


def test_flux_factor_neither_underflows_nor_divides_by_nothing():
    F = torch.tensor([[3e-30, 0, 4e-30, 1e-29], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.float32)
    torch.testing.assert_close(flux_factor(F), torch.tensor([0.5, 0, 0]))
