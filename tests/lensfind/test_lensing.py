"""Laws of gravitational lensing, golden numbers, and agreement with lenstronomy."""

import math

import numpy as np
import pytest
import torch

from lensfind.lensing import (
    einstein_radius,
    shear_deflection,
    sie_convergence,
    sie_deflection,
    sie_potential,
    sis_images,
    source_position,
)
from lensfind.light import pixel_grid


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def test_golden_values_of_the_isothermal_ellipsoid():
    x, y, one, q, zero = number(0.7), number(0.5), number(1.0), number(0.7), number(0.0)
    alpha = sie_deflection(x, y, one, q, zero)
    assert [float(a) for a in alpha] == pytest.approx([0.7264911, 0.6593499], abs=1e-7)
    assert float(sie_convergence(x, y, one, q, zero)) == pytest.approx(0.5975533, abs=1e-7)


@pytest.mark.parametrize("q", [0.3, 0.5, 0.7, 0.9, 0.999, 0.99995, 1.0])
def test_deflection_is_a_gradient_with_divergence_two_kappa(q):
    x, y = pixel_grid(20, 0.3, 1, torch.float64)
    x, y = (x + 0.013).requires_grad_(), (y - 0.021).requires_grad_()
    mass = (number(1.1), number(q), number(0.6))
    ax, ay = sie_deflection(x, y, *mass)
    axx, axy = torch.autograd.grad(ax.sum(), (x, y), retain_graph=True)
    ayx, ayy = torch.autograd.grad(ay.sum(), (x, y))
    assert torch.allclose(axx + ayy, 2 * sie_convergence(x, y, *mass), rtol=1e-7, atol=1e-9)
    assert torch.allclose(axy, ayx, atol=1e-8)
    gx, gy = torch.autograd.grad(sie_potential(x, y, *mass).sum(), (x, y))
    assert torch.allclose(gx, ax, atol=1e-8)
    assert torch.allclose(gy, ay, atol=1e-8)


def test_finite_differences_on_a_grid():
    """By an independent route: central differences at 0.01 arcsec, outside 0.3 theta_E."""
    step, theta_e, q = 0.01, 1.0, 0.8
    x, y = pixel_grid(400, step, 1, torch.float64)
    ax, ay = sie_deflection(x, y, number(theta_e), number(q), number(0.0))
    (axy, axx), (ayy, ayx) = torch.gradient(ax, spacing=step), torch.gradient(ay, spacing=step)
    kappa = sie_convergence(x, y, number(theta_e), number(q), number(0.0))
    far = torch.hypot(x, y) > 0.3 * theta_e
    far[[0, -1]] = far[:, [0, -1]] = False  # differences are one-sided there
    assert ((axx + ayy) / (2 * kappa) - 1)[far].abs().max() < 3e-3
    assert (ayx - axy)[far].abs().max() < 5e-3


@pytest.mark.parametrize("q", [0.5, 0.8, 1.0])
def test_mean_convergence_inside_the_critical_ellipse_is_one(q):
    x, y = pixel_grid(1000, 0.004, 1, torch.float64)
    inside = q * x**2 + y**2 / q < 1
    kappa = sie_convergence(x, y, number(1.0), number(q), number(0.0))
    assert float(kappa[inside].mean()) == pytest.approx(1.0, abs=2e-3)
    assert float(inside.sum() * 0.004**2) == pytest.approx(math.pi, rel=1e-3)


def test_round_limit_is_continuous():
    """The series and the closed form agree where they meet, and both approach the isothermal sphere linearly in 1 - q."""
    x, y = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None], torch.linspace(-2, 2, 39, dtype=torch.float64)
    below, above = (sie_deflection(x, y, number(1.0), number(1 - e), number(0.3)) for e in (0.999999e-4, 1.000001e-4))
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(below, above, strict=True))
    ax, ay = sie_deflection(x, y, number(1.3), number(1.0), number(0.7))
    r = torch.hypot(x, y)
    off_centre = r > 1e-9
    assert torch.allclose(ax[off_centre], (1.3 * x / r)[off_centre], atol=1e-12)
    assert torch.allclose(ay[off_centre], (1.3 * y / r)[off_centre], atol=1e-12)


@pytest.mark.parametrize("q", [0.6, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_the_centre_and_for_a_round_lens(q, dtype):
    parameters = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in (0.0, 0.0, 1.0, q, 0.4)]
    alpha = sie_deflection(*parameters)
    gradients = torch.autograd.grad(alpha[0] + alpha[1] + sie_convergence(*parameters).clamp(max=1.0), parameters)
    assert all(torch.isfinite(g) for g in gradients)


def test_isothermal_sphere_makes_two_images():
    beta, theta_e = number(0.5), number(1.0)
    images, magnification = sis_images(beta, theta_e)
    assert images.tolist() == pytest.approx([1.5, -0.5])
    bx, _ = source_position(images, 0 * images, theta_e, number(1.0), number(0.0), number(0.0), number(0.0))
    assert bx.tolist() == pytest.approx([0.5, 0.5])
    assert float(magnification[0] / -magnification[1]) == pytest.approx(3.0)
    assert float(magnification.abs().sum()) == pytest.approx(4.0)
    assert torch.isnan(sis_images(number(1.5), theta_e)[0][1])


@pytest.mark.parametrize("case", range(20))
def test_agrees_with_lenstronomy(case):
    from lenstronomy.LensModel.lens_model import LensModel

    rng = np.random.default_rng(case)
    theta_e, q, angle, g1, g2 = rng.uniform([0.3, 0.2, -4, -0.2, -0.2], [3, 0.999, 4, 0.2, 0.2])
    x, y = rng.uniform(-4, 4, (2, 50))
    size = (1 - q) / (1 + q)
    kwargs = [
        {"theta_E": theta_e, "e1": size * math.cos(2 * angle), "e2": size * math.sin(2 * angle), "center_x": 0, "center_y": 0},
        {"gamma1": g1, "gamma2": g2, "ra_0": 0, "dec_0": 0},
    ]
    bx, by = LensModel(["SIE", "SHEAR"]).ray_shooting(x, y, kwargs)
    mass = [number(v) for v in (theta_e, q, angle, g1, g2)]
    ours = source_position(torch.from_numpy(x), torch.from_numpy(y), *mass)
    assert np.allclose(ours[0], bx, atol=1e-6)
    assert np.allclose(ours[1], by, atol=1e-6)


def test_rotating_the_lens_rotates_the_deflection():
    x, y = pixel_grid(11, 0.4, 1, torch.float64)
    mass = (number(1.2), number(0.6))
    ax, ay = sie_deflection(x, y, *mass, number(0.3))
    bx, by = sie_deflection(-y, x, *mass, number(0.3 + math.pi / 2))  # the same sky, turned by a quarter
    assert torch.allclose(bx, -ay, atol=1e-12)
    assert torch.allclose(by, ax, atol=1e-12)


def test_shear_has_no_convergence():
    x, y = torch.randn(2, 100, dtype=torch.float64).requires_grad_()
    ax, ay = shear_deflection(x, y, number(0.06), number(-0.08))
    (axx, axy), (ayx, ayy) = (torch.autograd.grad(a.sum(), (x, y), retain_graph=True) for a in (ax, ay))
    assert torch.allclose(axx + ayy, torch.zeros_like(x))
    assert torch.allclose((1 - axx) * (1 - ayy) - axy * ayx, torch.full_like(x, 1 - 0.1**2))


def test_velocity_dispersion_gives_the_einstein_radius():
    assert float(einstein_radius(number(250.0), number(0.5))) == pytest.approx(0.901, abs=5e-4)
    assert float(einstein_radius(number(220.0), number(0.63539))) == pytest.approx(0.8869, abs=5e-4)
