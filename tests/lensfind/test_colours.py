"""Colours of arcs: the chi-squared law of one source, dust, and the picture it is measured on."""

import pytest
import torch
from scipy.stats import chi2 as chi2_law
from scipy.stats import kstest

from lensfind.features.colours import arc_colours, colour_chi2, reddening, sector_fluxes

RED = torch.tensor([0.96, 0.65], dtype=torch.float64)
BANDS = torch.tensor([486.4, 625.0, 756.5])


def segments(batch=4000, n=4, dust=0.0, seed=0):
    """Colours [B, n, 2] of one source with correlated errors (neighbouring colours share a band) and dust."""
    rng = torch.Generator().manual_seed(seed)
    sigma = 0.03 + 0.1 * torch.rand(batch, n, 3, generator=rng, dtype=torch.float64)
    step = torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
    covariance = step @ torch.diag_embed(sigma**2) @ step.T
    magnitudes = sigma * torch.randn(batch, n, 3, generator=rng, dtype=torch.float64)
    ebv = dust * torch.randn(batch, n, 1, generator=rng, dtype=torch.float64)
    return torch.tensor([0.4, 0.2]) + magnitudes @ step.T + ebv * RED, covariance, torch.ones(batch, n, dtype=torch.bool)


@pytest.mark.parametrize("dust", [0.0, 0.1])
def test_one_source_follows_the_chi_squared_law(dust):
    """With the covariance in the place of its inverse, as once, it would not."""
    colours, covariance, present = segments(dust=dust)
    chi2, freedom, common = colour_chi2(colours, covariance, present, RED, dust)
    assert (freedom == 6).all()
    assert kstest(chi2.numpy(), chi2_law(6).cdf).pvalue > 0.01
    assert torch.allclose(common.mean(dim=0), torch.tensor([0.4, 0.2], dtype=torch.float64), atol=0.01)


def test_the_marginal_form_is_the_ridge_minimised_objective():
    colours, covariance, present = segments(batch=3, dust=0.2)
    dust = 0.15
    chi2, _, common = colour_chi2(colours, covariance, present, RED, dust)
    inverse, away = torch.linalg.inv(covariance), colours - common[:, None]
    pull = torch.einsum("k,bnkl,bnl->bn", RED, inverse, away)
    excess = pull / (torch.einsum("k,bnkl,l->bn", RED, inverse, RED) + dust**-2)
    rest = (away - excess[..., None] * RED)[..., None]
    objective = (rest.transpose(-1, -2) @ inverse @ rest)[..., 0, 0] + excess**2 / dust**2
    assert torch.allclose(objective.sum(dim=1), chi2, rtol=1e-8)


def test_order_and_absent_segments_do_not_matter_and_an_interloper_does():
    colours, covariance, present = segments(batch=200)
    chi2, freedom, _ = colour_chi2(colours, covariance, present, RED, 0.1)
    order = torch.tensor([2, 0, 3, 1])
    again = colour_chi2(colours[:, order], covariance[:, order], present, RED, 0.1)[0]
    assert torch.allclose(again, chi2)
    fewer = present.clone()
    fewer[:, 3] = False
    colours[:, 3] = torch.nan
    less, freedom, _ = colour_chi2(colours, covariance, fewer, RED, 0.1)
    assert (freedom == 4).all()
    assert torch.isfinite(less).all()
    colours[:, 3] = torch.tensor([1.6, -0.6])  # at right angles to dust
    assert (colour_chi2(colours, covariance, present, RED, 0.1)[0] > 3 * less).float().mean() > 0.95
    alone = torch.zeros_like(present)
    alone[:, 0] = True
    assert (colour_chi2(colours, covariance, alone, RED, 0.1)[0] == 0).all()


def test_reddening_is_a_difference_of_extinctions():
    """Total extinctions were once taken for colour excesses."""
    assert reddening(torch.tensor([482.7, 622.3, 754.6, 869.1, 971.2])).tolist() == pytest.approx(
        [0.960, 0.647, 0.464, 0.282], abs=2e-3
    )


def picture(colours, positions, size=60):
    """A red round galaxy and blobs of given (g - r, r - i) at given angles."""
    line = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    galaxy = 400 * torch.exp(-0.5 * (x**2 + y**2) / 9)
    image = torch.stack([galaxy * 0.3, galaxy * 0.7, galaxy])
    for (gr, ri), angle in zip(colours, positions, strict=True):
        angle = torch.tensor(angle)
        blob = 60 * torch.exp(-0.5 * ((x - 9 * torch.cos(angle)) ** 2 + (y - 9 * torch.sin(angle)) ** 2) / 2.5)
        image = image + torch.stack([blob * 10 ** (-0.4 * gr), blob, blob * 10 ** (0.4 * ri)])
    return image[None]


def test_images_of_one_colour_agree_and_others_do_not():
    noise = torch.tensor([0.5, 0.5, 0.5])[:, None, None]
    same = picture([(0.3, 0.1)] * 3, [0.3, 2.4, 4.4])
    other = picture([(0.3, 0.1), (0.3, 0.1), (1.2, -0.4)], [0.3, 2.4, 4.4])
    found = arc_colours(torch.cat([same, other]), noise, BANDS, inner=5.0, outer=13.0)
    assert (found[:, 1] >= 3).all()
    assert float(found[1, 0]) > float(found[0, 0]) + 1.0
    assert float(found[1, 3]) < 1e-3 < float(found[0, 3])
    assert found[0, 4:6].tolist() == pytest.approx([0.3, 0.1], abs=0.1)
    assert (found[0, 6:8] < -0.25).all()  # bluer than the galaxy


def test_an_empty_sky_and_a_round_galaxy_have_no_arcs():
    noise = torch.tensor([0.5, 0.5, 0.5])[:, None, None]
    found = arc_colours(torch.cat([picture([], []), torch.zeros(1, 3, 60, 60)]), noise, BANDS, 5.0, 13.0)
    assert torch.isfinite(found).all()
    assert (found[:, 1] == 0).all()


def test_flux_of_a_sector_is_the_flux_of_its_blob():
    image = picture([(0.0, 0.0)], [0.785]) - picture([], [])
    flux, variance = sector_fluxes(image, torch.ones(3, 1, 1), 4.0, 14.0, sectors=4)
    assert float(flux[0, 1].max()) == pytest.approx(60 * 2 * torch.pi * 2.5, rel=0.1)
    assert float(variance[0, 0, 0]) == pytest.approx(torch.pi * (14**2 - 4**2) / 4)


def test_gradients_reach_the_image():
    """A colour term once depended on measured colours alone: its gradient was zero by construction."""
    image = picture([(0.3, 0.1), (1.0, -0.2)], [0.3, 2.4]).requires_grad_()
    arc_colours(image, torch.full((3, 1, 1), 0.5), BANDS, 5.0, 13.0)[:, 0].sum().backward()
    assert image.grad.abs().sum() > 0
    assert torch.isfinite(image.grad).all()
