"""Counting random numbers and photons."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, kstest

from lensfind.simulation.artefacts import ARTEFACTS, add_artefacts
from lensfind.simulation.draws import Uniforms, normals
from lensfind.simulation.noise import observe
from lensfind.simulation.population import KINDS, Population
from lensfind.survey import Survey

from .conftest import load_survey


def test_uniform_numbers_are_uniform_and_independent_by_name_and_seed():
    seeds = torch.arange(40_000)
    u, v, w = Uniforms(seeds)("a"), Uniforms(seeds)("b"), Uniforms(seeds + 1)("a")
    for x in (u, v):
        assert kstest(x.numpy(), "uniform").pvalue > 1e-3
    for a, b in ((u, v), (u, w), (u[:-1], u[1:])):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.02
    many = Uniforms(seeds[:3])("c", 5)
    assert torch.equal(many[:, 0], Uniforms(seeds[:3])("c"))


def test_normal_numbers_are_normal_and_rows_differ():
    z = normals(torch.arange(30), 4001, "noise")
    assert kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert (z**4).mean() == pytest.approx(3.0, abs=0.05)
    assert abs(float((z[1:] * z[:-1]).mean())) < 0.01
    assert torch.equal(normals(torch.tensor([7]), 4001, "noise")[0], z[7])
    assert not torch.equal(normals(torch.tensor([7]), 4001, "other")[0], z[7])


def camera(sky: float, read_noise: float) -> Survey:
    band = {"wavelength": 755, "psf_fwhm": 0.8, "zero_point": 31.4, "sky": sky, "exposure": 1.0, "exposures": 1}
    return Survey.of(
        {"i": band}, name="x", pixel_scale=1.0, gain=1.0, read_noise=read_noise, moffat_beta=3.0, seeing_scatter=0.0
    )


@pytest.mark.parametrize("electrons", [80.0, 400.0, 5000.0])
def test_photons_and_read_noise_together_have_the_cumulants_and_the_distribution_of_their_sum(electrons):
    """One electron per nJy: against Poisson plus Gaussian numbers of NumPy."""
    survey = camera(31.4 - 2.5 * np.log10(electrons), 5.0)
    level = electrons / 2
    image, variance = observe(torch.full((4, 1, 250, 250), level), survey, torch.arange(4))
    rng = np.random.default_rng(0)
    exact = rng.poisson(1.5 * electrons, 250_000) + rng.normal(0, 5.0, 250_000) - electrons
    assert torch.allclose(variance, torch.full_like(variance, 1.5 * electrons + 25), rtol=1e-4)
    ours = image.flatten().double().numpy()
    assert ours.mean() == pytest.approx(level, abs=4 * np.sqrt(1.5 * electrons / 250_000))
    assert ours.var() == pytest.approx(1.5 * electrons + 25, rel=0.02)
    skewness = ((ours - ours.mean()) ** 3).mean() / ours.std() ** 3
    assert skewness == pytest.approx(1.5 * electrons / (1.5 * electrons + 25) ** 1.5, abs=0.02)
    assert ks_2samp(ours, exact).pvalue > 1e-3


def test_a_dark_sky_is_counted_photon_by_photon():
    image, _ = observe(torch.full((2, 1, 80, 80), 2.0), camera(31.4 + 5, 0.0), torch.arange(2))
    counts = image + 0.01
    assert torch.allclose(counts, counts.round(), atol=1e-4)
    assert counts.mean() == pytest.approx(2.0, abs=0.1)


def test_artefacts_strike_all_kinds_alike_and_are_named(lsst):
    seeds = torch.arange(4000)
    image, variance = torch.zeros(4000, 3, 8, 8), torch.ones(4000, 3, 8, 8)
    kinds = torch.zeros(4000, dtype=torch.int64)
    which = add_artefacts(image, variance, seeds, kinds, lsst, Population(artefacts=0.1))
    assert (which >= 0).float().mean() == pytest.approx(0.1, abs=0.02)
    assert set(which.tolist()) == {-1, *range(len(ARTEFACTS))}
    assert (image[which < 0] == 0).all()
    all_struck = add_artefacts(image[:50], variance[:50], seeds[:50], kinds[:50] + KINDS.index("artefact"), lsst, Population())
    assert (all_struck >= 0).all()


@pytest.mark.parametrize("name", ARTEFACTS)
def test_each_artefact_is_seen(name, lsst):
    seeds = torch.arange(300)
    image, variance = torch.zeros(300, 3, 40, 40), torch.ones(300, 3, 40, 40)
    which = add_artefacts(image, variance, seeds, torch.full((300,), KINDS.index("artefact")), lsst, Population())
    struck = image[which == ARTEFACTS.index(name)]
    assert len(struck) > 20
    assert (struck.abs().amax(dim=(1, 2, 3)) > 1).all()
    bands = (struck.abs().amax(dim=(2, 3)) > 0.5).sum(dim=1)
    assert (bands == (3 if name in ("saturated star", "ghost") else 1)).all()


def test_charge_bleeds_in_silicon_alone():
    """Along a column in CCDs up to 1000 nm; an infrared camera's saturated star is round."""
    seeds = torch.arange(200)
    kinds = torch.full((200,), KINDS.index("artefact"))
    for name, bleeds in (("euclid", True), ("euclid_nisp", False)):
        survey = load_survey(name)
        image = torch.zeros(200, len(survey.bands), 48, 48)
        which = add_artefacts(image, torch.ones_like(image), seeds, kinds, survey, Population())
        stars = image[which == ARTEFACTS.index("saturated star")]
        along, across = ((stars > 1e3).any(dim).sum(-1) for dim in (-1, -2))  # rows and columns that are saturated
        assert len(stars) > 20
        assert ((along > across + 3).float().mean() > 0.8) == bleeds
