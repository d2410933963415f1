"""Published parametrisations at their published values; integrals and means."""

import pytest
import torch

from muonflow import physics, published

DEPTHS = torch.tensor([1.5, 2.0, 2.5], dtype=torch.float64)
H = physics.water_equivalent(DEPTHS)
ONE, HALF, DOWN = (torch.tensor(v, dtype=torch.float64) for v in (1.0, 0.5, 0.0))


def test_flux_of_bundles_at_its_reference_values():
    for cosine, scale, index in (
        (ONE, [1.875e-3, 8.201e-4, 4.072e-4], [2.973, 3.071, 3.187]),
        (HALF, [4.404e-4, 1.476e-4, 5.616e-5], [3.083, 3.222, 3.396]),
    ):
        assert published.bundle_flux(ONE, H, cosine).tolist() == pytest.approx(scale, rel=4e-4)
        assert published.multiplicity_index(H, cosine).tolist() == pytest.approx(index, rel=2e-4)
    pairs = published.bundle_flux(torch.tensor(2.0), H[:1], ONE) / published.bundle_flux(ONE, H[:1], ONE)
    assert float(pairs) == pytest.approx(0.127, abs=0.005)


def test_lateral_shape_at_its_reference_values_and_its_integral():
    mean, alpha, scale = published.lateral_shape(torch.tensor(2.0), H, DOWN)
    assert mean.tolist() == pytest.approx([17.84, 13.11, 10.33], rel=4e-4)
    assert alpha.tolist() == pytest.approx([6.247, 7.217, 8.337], rel=4e-4)
    assert scale.tolist() == pytest.approx([28.96, 27.64, 27.56], rel=4e-4)
    r = torch.linspace(0, 4000, 400_001, dtype=torch.float64)
    for k in range(3):
        density = published.lateral_density(r, torch.tensor(2.0), H[k], DOWN)
        assert float(torch.trapezoid(density, r)) == pytest.approx(1, abs=1e-4)
        assert float(torch.trapezoid(r * density, r)) == pytest.approx(float(mean[k]), rel=1e-3)
    four, nine = (published.lateral_shape(torch.tensor(m), H, DOWN)[0] for m in (4.0, 9.0))
    assert torch.equal(four, nine)


def test_single_muon_energies_at_their_reference_values():
    gamma, offset = published.single_energy(H, ONE)
    assert gamma.tolist() == pytest.approx([3.890, 3.822, 3.770], rel=2e-4)
    assert offset.tolist() == pytest.approx([303.5, 375.5, 437.2], rel=4e-4)
    assert (offset / (gamma - 2)).tolist() == pytest.approx([160.6, 206.0, 246.9], rel=4e-4)


def test_muons_of_bundles_at_values_worked_out_by_hand():
    """m = 2, vertical, r = 10 m, h = 1.817: a = 0.013896, b = 5.69933, q = -0.266337, 3.23183 TeV r^-0.328196."""
    h, r = torch.tensor(1.817, dtype=torch.float64), torch.tensor(10.0, dtype=torch.float64)
    gamma, offset = published.bundle_energy(torch.tensor(2.0), r, h, DOWN)
    assert float(gamma) == pytest.approx(5.6396, abs=2e-4)
    assert float(offset) == pytest.approx(810.3, abs=0.2)
    assert float(offset / (gamma - 2)) == pytest.approx(222.6, abs=0.1)
    # inclined by 60 degrees: c = (-0.069 h + 0.488) exp(-1.17) = 0.112553 TeV per rad, the column twice as long
    gamma, offset = published.bundle_energy(torch.tensor(2.0), r, h, torch.tensor(torch.pi / 3, dtype=torch.float64))
    assert float(gamma) == pytest.approx(5.6396, abs=2e-4)
    assert float(offset) == pytest.approx((1517.93 + 112.553 * torch.pi / 3) * (1 - 0.466200**2), rel=3e-4)


def test_muons_of_bundles_are_softer_far_from_the_axis():
    h, zenith = H[1], torch.tensor(0.3, dtype=torch.float64)
    gamma, offset = published.bundle_energy(torch.tensor(3.0), torch.tensor([2.0, 10.0, 30.0]).double(), h, zenith)
    mean = offset / (gamma - 2)
    assert bool((mean.diff() < 0).all())
