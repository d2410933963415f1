"""Light: totals, shapes, and what a PSF may and may not change."""

import math

import numpy as np
import pytest
import torch
from scipy.special import gammainc

from lensfind.light import bin_pixels, convolve, pixel_grid, psf_kernel, sersic, sersic_b, spiral_arms


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("n", [0.5, 1.0, 2.0, 4.0, 5.0])
def test_half_the_light_lies_within_the_effective_radius(n):
    b = float(sersic_b(number(n)))
    assert gammainc(2 * n, b) == pytest.approx(0.5, abs=3e-4)


@pytest.mark.parametrize(("n", "tolerance"), [(0.5, 1e-4), (1.0, 2e-3), (2.0, 1e-2), (4.0, 2.5e-2)])
def test_cells_hold_the_total_flux(n, tolerance):
    x, y = pixel_grid(200, 0.2, 4, torch.float64)
    for centre in (0.0, 0.025, 0.013):  # on a corner of four cells, on the middle of one, between
        light = sersic(x - centre, y - centre, number(3.0), number(0.6), number(n), number(0.7), number(0.4), cell=0.05)
        assert float(light.sum()) * 0.05**2 == pytest.approx(3.0, rel=tolerance)


def test_sersic_agrees_with_lenstronomy():
    from lenstronomy.LightModel.light_model import LightModel

    rng = np.random.default_rng(0)
    x, y = rng.uniform(-3, 3, (2, 100))
    q, angle = 0.6, 0.9
    size = (1 - q) / (1 + q)
    peer = LightModel(["SERSIC_ELLIPSE"]).surface_brightness(
        x, y, [{"amp": 1.0, "R_sersic": 0.8, "n_sersic": 2.5, "e1": size * math.cos(2 * angle),
                "e2": size * math.sin(2 * angle), "center_x": 0, "center_y": 0}]
    )  # fmt: skip
    ours = sersic(torch.from_numpy(x), torch.from_numpy(y), *(number(v) for v in (1.0, 0.8, 2.5, q, angle)))
    ratio = ours.numpy() / peer
    assert ratio.std() / ratio.mean() < 2e-3  # lenstronomy's b_n is another approximation; the shape is the same


@pytest.mark.parametrize("beta", [None, 3.0])
def test_psf_keeps_flux_and_wraps_nothing(beta):
    kernel = psf_kernel(number(0.8)[None], 80, 0.2, beta)
    assert float(kernel.sum()) == pytest.approx(1.0)
    image = torch.zeros(1, 40, 40, dtype=torch.float64)
    image[0, 20, 20] = 5.0
    blurred = convolve(image, kernel)
    assert float(blurred.sum()) == pytest.approx(5.0, rel=1e-3 if beta is None else 2e-2)
    assert int(blurred.argmax()) == 20 * 40 + 20
    edge = torch.zeros_like(image)
    edge[0, 0, 0] = 1.0
    assert float(convolve(edge, kernel)[0, -1, -1]) < 1e-4  # the far corner sees nothing of it


@pytest.mark.parametrize("beta", [None, 3.0])
def test_psf_has_the_stated_width(beta):
    fwhm = 0.9
    kernel = torch.fft.fftshift(psf_kernel(number(fwhm)[None], 401, 0.02, beta)[0])
    profile = kernel[200] / kernel.max()
    half = np.interp(-0.5, -profile[200:].numpy(), np.arange(201) * 0.02)
    assert 2 * half == pytest.approx(fwhm, rel=1e-3)


def test_gaussian_widths_add_in_quadrature():
    x, y = pixel_grid(60, 0.1, 1, torch.float64)
    galaxy = torch.exp(-(x**2 + y**2) / (2 * 0.4**2))[None]
    blurred = convolve(galaxy, psf_kernel(number(0.7)[None], 120, 0.1, None))[0]
    width2 = float((blurred * x**2).sum() / blurred.sum())
    assert width2 == pytest.approx(0.4**2 + (0.7 / 2.354820) ** 2, rel=1e-3)


def test_binning_sums():
    image = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    binned = bin_pixels(image, 4)
    assert torch.allclose(binned[0, 1, 0, 2], image[0, 1, :4, 8:].sum())
    assert torch.allclose(binned.sum(), image.sum())


def test_spiral_arms_repeat_after_half_a_turn():
    x, y = pixel_grid(31, 0.2, 1, torch.float64)
    arms = spiral_arms(x, y, *(number(v) for v in (0.8, 0.35, 0.7, 0.5, 1.0)))
    assert torch.allclose(arms, arms.flip(0, 1), atol=1e-10)
