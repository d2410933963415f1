"""The published formulas at their published values, and the laws between them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muonflow import physics


@pytest.mark.parametrize(
    ("primary", "mass", "muon", "cosine", "expected"),
    [
        (1e6, 1, 1e3, 1.0, 2.692),
        (1e6, 56, 1e3, 1.0, 5.318),
        (1e6, 1, 500.0, 1.0, 9.123),
        (1e7, 56, 1e3, 1.0, 39.94),
        (1e5, 1, 1e3, 0.5, 0.8934),
    ],
)
def test_elbert_formula_at_its_reference_values(primary, mass, muon, cosine, expected):
    assert float(physics.elbert_mean(primary, mass, muon, cosine)) == pytest.approx(expected, rel=3e-4)


def test_the_refit_with_prompt_muons_at_its_reference_values():
    for mass, conventional, prompt in ((1, 3.312, 0.0271), (56, 4.572, 0.0132)):
        values = physics.mceq_mean(1e6, mass, 1e3, 1.0)
        assert float(values[0]) == pytest.approx(conventional, rel=3e-4)
        assert float(values[1]) == pytest.approx(prompt, rel=5e-3)


def test_no_muon_above_the_energy_of_a_nucleon():
    energies = torch.tensor([999.0, 1000.0, 1001.0]) * 1e6 / 1000 / 56
    assert (physics.elbert_mean(1e6, 56, energies, 1.0) > 0).tolist() == [True, False, False]


def test_far_above_threshold_iron_beats_protons_by_superposition():
    """N_Fe / N_p tends to A^(1 - 0.757) at equal E0."""
    ratio = physics.elbert_mean(1e12, 56, 1e2, 1.0) / physics.elbert_mean(1e12, 1, 1e2, 1.0)
    assert float(ratio) == pytest.approx(56**0.243, rel=1e-6)


@given(st.floats(700, 1e8), st.integers(1, 56), st.floats(0.05, 1.0))
@settings(max_examples=50, deadline=None)
def test_yield_falls_with_muon_energy(primary, mass, cosine):
    energies = torch.logspace(0, 8, 200, dtype=torch.float64)
    assert bool((physics.elbert_mean(primary, mass, energies, cosine).diff() <= 0).all())


@given(st.floats(0.0, 12.0), st.floats(0.0, 1e7))
@settings(max_examples=100, deadline=None)
def test_energy_loss_and_its_inverse(column, energy):
    surface = physics.surface_energy(energy, column)
    assert float(physics.depth_energy(surface, column)) == pytest.approx(energy, rel=1e-9, abs=1e-6)
    assert float(physics.surface_energy(0.0, column)) == pytest.approx(
        float(physics.threshold_energy(column)), rel=1e-9, abs=1e-9
    )


@given(st.floats(0.1, 5.0), st.floats(0.1, 5.0), st.floats(1.0, 1e6))
@settings(max_examples=50, deadline=None)
def test_two_slabs_lose_what_one_of_both_loses(first, second, surface):
    between = physics.depth_energy(surface, first)
    assert float(physics.depth_energy(between, second)) == pytest.approx(
        float(physics.depth_energy(surface, first + second)), rel=1e-9, abs=1e-6
    )


def test_slant_length_at_its_reference_values_and_between_them():
    lengths = [float(physics.slant_length(1.95, c)) for c in (1.0, 0.5, 0.2, 0.1, 0.0)]
    assert lengths == pytest.approx([1.95, 3.898, 9.714, 19.21, 157.7], rel=5e-4)
    depth = torch.linspace(1.0, 2.8, 10, dtype=torch.float64)
    assert torch.allclose(physics.slant_length(depth, 1.0), depth, rtol=1e-12)
    assert bool((physics.slant_length(1.95, torch.linspace(0, 1, 100, dtype=torch.float64)).diff() < 0).all())
    assert torch.allclose(physics.slant_depth(depth, 1.0), physics.water_equivalent(depth))


def test_the_atmosphere_curves():
    cosine = torch.linspace(0, 1, 50, dtype=torch.float64)
    effective = physics.effective_cosine(cosine)
    assert bool((effective.diff() > 0).all())
    assert float(effective[-1]) == pytest.approx(1.0)
    low = cosine < 0.7  # near the vertical the fit agrees with it to 1e-3
    assert bool((effective[low] > cosine[low]).all())
    assert torch.allclose(effective[~low], cosine[~low], rtol=1e-3)
    assert math.isclose(float(physics.production_height(1.0)), 25_000)
