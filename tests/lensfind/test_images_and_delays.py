"""Critical curves, caustics, images, delays and distances: golden numbers and the laws of image formation."""

import math

import numpy as np
import pytest
import torch

from lensfind.lensing import (
    EPL,
    NFW,
    SIE,
    SIS,
    Composite,
    Cosmology,
    PseudoJaffe,
    Shear,
    Sheet,
    critical_curves,
    effective_einstein_radius,
    einstein_radius,
    enclosed_area,
    fermat_potential,
    find_images,
    time_delays,
    velocity_dispersion,
)
from lensfind.lensing.images import _newton
from skyloom.errors import ConfigError, DataError


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("q", [0.4, 0.7, 0.95])
def test_einstein_radius_of_the_ellipsoid_is_the_stated_one(q):
    """The critical curve is the ellipse with semi-axes theta_E/sqrt(q) and theta_E sqrt(q), at the angle of the mass."""
    lens = SIE(1.3, q, 0.5, x=0.1, y=-0.2)
    curves = critical_curves(lens, centre=(0.1, -0.2))
    (loop,) = curves.tangential
    assert not curves.radial
    assert math.sqrt(enclosed_area(loop) / math.pi) == pytest.approx(1.3, abs=1e-4)
    x, y = (torch.from_numpy(loop[:, k]) for k in range(2))
    assert (1 / lens.magnification(x, y)).abs().max() < 1e-8
    dx, dy = loop[:, 0] - 0.1, loop[:, 1] + 0.2
    along, across = dx * math.cos(0.5) + dy * math.sin(0.5), dy * math.cos(0.5) - dx * math.sin(0.5)
    assert np.abs(np.sqrt(q * along**2 + across**2 / q) - 1.3).max() < 1e-6
    beta = torch.stack(lens.source(x, y), dim=-1).numpy()
    assert np.array_equal(beta, curves.tangential_caustics[0])


@pytest.mark.parametrize(("q", "cusp_x", "cusp_y"), [(0.7, 0.26337, 0.21257), (0.3, 1.09878, None)])
def test_cusps_of_the_astroid(q, cusp_x, cusp_y):
    (caustic,) = critical_curves(SIE(1.0, q), n=400).tangential_caustics
    assert caustic[:, 0].max() == pytest.approx(cusp_x, abs=1e-3)
    assert caustic[:, 0].min() == pytest.approx(-cusp_x, abs=1e-3)
    if cusp_y:
        assert caustic[:, 1].max() == pytest.approx(cusp_y, abs=2e-4)


def test_a_sphere_in_shear_has_points_of_zero_determinant_and_its_sheet_is_a_rescaling():
    lens = Composite([SIS(1.0), Shear(0.1, 0.0)])
    (loop,) = critical_curves(lens).tangential
    x, y = (torch.from_numpy(loop[:, k]) for k in range(2))
    assert (1 / lens.magnification(x, y)).abs().max() < 1e-6
    assert effective_einstein_radius(Composite([SIS(1.0), Sheet(0.2)])) == pytest.approx(1.25, rel=1e-4)


def test_a_cored_lens_has_a_radial_critical_curve_and_a_weak_one_none_at_all():
    curves = critical_curves(SIE(1.0, 0.8, core=0.05))
    assert len(curves.tangential) == len(curves.radial) == 1
    assert enclosed_area(curves.radial[0]) < enclosed_area(curves.tangential[0])
    assert effective_einstein_radius(SIE(1.0, 1.0, core=2.0)) is None  # kappa = 0.25 at most
    assert effective_einstein_radius(Sheet(0.4)) is None
    with pytest.raises(DataError, match="leaves a box"):
        critical_curves(SIS(30.0), radius=0.1)


def test_a_satellite_has_a_loop_of_its_own_that_does_not_count():
    lens = Composite([SIS(1.0), SIS(0.15, x=6.0)])
    loops = critical_curves(lens, radius=3.0, n=400).tangential
    assert len(loops) == 2
    assert effective_einstein_radius(lens, radius=3.0, n=400) == pytest.approx(1.0, rel=0.02)


def test_golden_images_of_the_ellipsoid():
    images = find_images(SIE(1.0, 0.7), (0.05, 0.03))
    golden = [(0.22156, 1.06149, 4.544, -0.58622), (0.27874, -0.98747, 5.925, -0.52469), (0.96982, -0.13907, -4.823, -0.47824),
              (-0.87636, -0.08441, -2.848, -0.38587)]  # fmt: skip
    found = torch.stack([images.x, images.y, images.magnification, images.fermat], dim=-1)
    assert torch.allclose(found[:, :2], torch.tensor(golden, dtype=torch.float64)[:, :2], atol=1e-5)
    assert torch.allclose(found[:, 2], torch.tensor(golden, dtype=torch.float64)[:, 2], atol=1e-3)
    assert torch.allclose(found[:, 3], torch.tensor(golden, dtype=torch.float64)[:, 3], atol=1e-5)
    assert images.kind == ["minimum", "minimum", "saddle", "saddle"]
    days = time_delays(images.fermat, 0.5, 2.0)
    assert days.tolist() == pytest.approx([0.0, 5.121, 8.986, 16.676], abs=0.01)
    two = find_images(SIE(1.0, 0.7), (0.5, 0.0))
    assert two.x.tolist() == pytest.approx([1.43186, -0.43186], abs=1e-5)
    assert two.magnification.tolist() == pytest.approx([6.051, -0.566], abs=1e-3)
    assert len(find_images(SIE(1.0, 0.7), (1.2, 0.0))) == 1


def random_lens(rng: np.random.Generator, core: float) -> tuple[Composite, tuple[float, float]]:
    theta_e, q, angle, g1, g2 = rng.uniform([0.7, 0.4, 0, -0.08, -0.08], [1.6, 0.95, math.pi, 0.08, 0.08])
    beta = rng.uniform(0.02, 0.9) * theta_e, rng.uniform(0, 2 * math.pi)
    lens = Composite([SIE(theta_e, q, angle, core * theta_e), Shear(g1, g2)])
    return lens, (float(beta[0] * math.cos(beta[1])), float(beta[0] * math.sin(beta[1])))


def _odd(seeds: range) -> None:
    for seed in seeds:
        lens, beta = random_lens(np.random.default_rng(seed), core=0.05)
        images = find_images(lens, beta, radius=1.2)
        assert len(images) % 2 == 1, seed
        assert int(torch.sign(images.magnification).sum()) == 1, seed
        bx, by = lens.source(images.x, images.y)
        assert (bx - beta[0]).abs().max() < 1e-9
        assert (by - beta[1]).abs().max() < 1e-9


def test_the_number_of_images_is_odd_and_their_parities_add_to_one():
    _odd(range(25))


def test_a_search_without_starts_has_no_roots():
    lens, beta = random_lens(np.random.default_rng(0), core=0.0)
    points, residual = _newton(lens, torch.zeros(0, 2, dtype=torch.float64), torch.as_tensor(beta, dtype=torch.float64))
    assert points.shape == (0, 2)
    assert residual.shape == (0,)


@pytest.mark.slow
def test_odd_numbers_for_five_hundred_lenses():
    _odd(range(500))


def brute_force(lens: Composite, beta: tuple[float, float]) -> list[tuple[float, float]]:
    """Newton's method from 1024 starts, by an independent route: scipy on numbers."""
    from scipy.optimize import least_squares

    target = np.array(beta)

    def residual(p: np.ndarray) -> np.ndarray:
        x, y = torch.from_numpy(p[:1]), torch.from_numpy(p[1:])
        return np.array([float(b) for b in lens.source(x, y)]) - target

    found: list[tuple[float, float]] = []
    for r in np.linspace(0.1, 2.6, 8):
        for phi in np.linspace(0, 2 * math.pi, 16, endpoint=False):
            s = least_squares(residual, [r * math.cos(phi), r * math.sin(phi)], xtol=1e-14, ftol=1e-14, gtol=1e-14)
            at = (float(s.x[0]), float(s.x[1]))
            if s.cost < 1e-18 and math.hypot(*at) > 2e-3 and all(math.hypot(at[0] - a, at[1] - b) > 1e-4 for a, b in found):
                found.append(at)
    return found


@pytest.mark.slow
def test_brute_force_finds_no_other_images():
    for seed in range(60):
        lens, beta = random_lens(np.random.default_rng(1000 + seed), core=0.0)
        images = find_images(lens, beta, radius=1.2)
        brute = brute_force(lens, beta)
        ours = list(zip(images.x.tolist(), images.y.tolist(), strict=True))
        assert all(min(math.hypot(a - c, b - d) for c, d in ours) < 1e-6 for a, b in brute), seed
        assert len(ours) in (1, 2, 3, 4)


def test_agrees_with_lenstronomys_solver():
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

    rng = np.random.default_rng(0)
    for _ in range(5):
        lens, beta = random_lens(rng, core=0.0)
        sie, shear = lens.parts
        e = (1 - sie.q) / (1 + sie.q)
        kwargs = [
            {"theta_E": sie.theta_e, "e1": e * math.cos(2 * sie.angle), "e2": e * math.sin(2 * sie.angle), "center_x": 0,
             "center_y": 0}, {"gamma1": shear.gamma1, "gamma2": shear.gamma2, "ra_0": 0, "dec_0": 0},
        ]  # fmt: skip
        solver = LensEquationSolver(LensModel(["SIE", "SHEAR"]))
        x, _ = solver.image_position_from_source(*beta, kwargs, min_distance=0.02, search_window=6, magnification_limit=1e-3)
        ours = find_images(lens, beta, radius=1.2)
        assert len(ours) == len(x)
        assert np.allclose(np.sort(ours.x.numpy()), np.sort(x), atol=1e-6)


def test_other_models_are_solved_too():
    for lens in (EPL(1.0, 0.7, 0.2, 2.3), PseudoJaffe(1.2, 0.7, 0.2, 0.02, 5.0), NFW(0.6, 10.0, 0.9, 0.3)):
        radius = effective_einstein_radius(lens, radius=3.0)
        images = find_images(lens, (0.05 * radius, 0.02 * radius), radius=radius)
        assert len(images) >= 3


def test_delay_of_the_isothermal_sphere():
    lens, x = SIS(1.0), torch.tensor([1.3, -0.7], dtype=torch.float64)
    tau = fermat_potential(lens, x, 0 * x, 0.3, 0.0)
    assert tau.tolist() == pytest.approx([-0.8, -0.2])
    assert time_delays(tau, 0.5, 2.0).tolist() == pytest.approx([0.0, 49.94], abs=0.01)
    halved = time_delays(tau, 0.5, 2.0, Cosmology(H0=140.0))
    assert halved[1] == pytest.approx(49.94 / 2, abs=0.01)
    cluster = fermat_potential(SIS(20.0), torch.tensor([22.0, -18.0], dtype=torch.float64), number(0.0), 2.0, 0.0)
    assert float(time_delays(cluster, 0.4, 1.2)[1]) == pytest.approx(5913.5, abs=1.0)


def test_no_image_tells_a_mass_sheet_from_a_lens():
    """kappa -> L kappa + (1 - L), beta -> L beta: the same images and relative magnifications, delays times L."""
    scale, lens = 0.8, SIE(1.0, 0.7, 0.4)
    other = Composite([SIE(scale * 1.0, 0.7, 0.4), Sheet(1 - scale)])
    one, two = find_images(lens, (0.06, 0.04)), find_images(other, (0.06 * scale, 0.04 * scale))
    assert torch.allclose(one.x, two.x, atol=1e-9)
    assert torch.allclose(one.y, two.y, atol=1e-9)
    assert torch.allclose(two.magnification / one.magnification, number(1 / scale**2))
    assert torch.allclose(time_delays(two.fermat, 0.5, 2.0), scale * time_delays(one.fermat, 0.5, 2.0))


@pytest.mark.parametrize(
    ("z_lens", "z_source", "d_l", "d_s", "d_ls", "ratio", "d_dt", "sigma", "days"),
    [(0.5, 2.0, 1259.08, 1726.62, 1097.08, 0.63539, 2972.4, 2078.6, 83.228),
     (0.3, 1.5, 918.77, 1745.54, 1267.78, 0.72630, 1644.5, 2492.0, 46.047),
     (0.2, 1.0, 680.60, 1651.91, 1243.55, 0.75279, 1084.9, 3245.6, 30.378)],
)  # fmt: skip
def test_distances_are_those_of_flat_lcdm(z_lens, z_source, d_l, d_s, d_ls, ratio, d_dt, sigma, days):
    flat = Cosmology()
    assert flat.distance(z_lens) == pytest.approx(d_l, rel=2e-5)
    assert flat.distance(z_source) == pytest.approx(d_s, rel=2e-5)
    assert flat.distance_between(z_lens, z_source) == pytest.approx(d_ls, rel=2e-5)
    assert flat.distance_ratio(z_lens, z_source) == pytest.approx(ratio, rel=2e-5)
    assert flat.time_delay_distance(z_lens, z_source) == pytest.approx(d_dt, rel=1e-4)
    assert flat.critical_density(z_lens, z_source) / 1e12 == pytest.approx(sigma, rel=1e-4)  # Msun/pc^2
    assert flat.days_per_arcsec2(z_lens, z_source) == pytest.approx(days, rel=1e-4)


def test_scales_of_clusters():
    flat = Cosmology()
    assert flat.critical_density(0.4, 1.2) == pytest.approx(2.553e15, rel=5e-3)
    assert flat.kpc_per_arcsec(0.4) == pytest.approx(5.37, rel=5e-3)
    halo = flat.halo(1e15, 5.0, 0.3, 2.0)
    assert halo.r200 == pytest.approx(1.8622, abs=1e-4)
    assert halo.theta_s == pytest.approx(83.616, abs=5e-3)
    assert halo.kappa_s == pytest.approx(0.25444, abs=1e-5)
    assert flat.halo_radius(1e15, 5.0, 0.3, 2.0) == pytest.approx(14.865, abs=1e-3)
    assert effective_einstein_radius(NFW(halo.kappa_s, halo.theta_s), radius=10.0) == pytest.approx(14.865, abs=2e-3)
    for mass, c, theta in ((1e14, 4, 0.2), (5e14, 4, 3.0), (1e15, 4, 7.6), (1e15, 8, 21.4), (2e15, 6, 28.5)):
        assert flat.halo_radius(mass, c, 0.4, 1.2) == pytest.approx(theta, abs=0.06)
    for mass, theta in ((2.3e13, 10), (9.3e13, 20), (2.1e14, 30)):
        assert flat.point_mass_radius(mass, 0.4, 1.2) == pytest.approx(theta, rel=0.01)
    ratio = number(flat.distance_ratio(0.4, 1.2))
    for sigma, theta in ((700, 8.3), (1000, 17.0), (1300, 28.6)):
        assert float(einstein_radius(number(sigma), ratio)) == pytest.approx(theta, abs=0.06)


def test_velocity_dispersion_is_the_inverse():
    ratio = number(Cosmology().distance_ratio(0.5, 2.0))
    assert float(velocity_dispersion(number(1.0), ratio)) == pytest.approx(233.6, abs=0.05)
    assert float(einstein_radius(velocity_dispersion(number(1.7), ratio), ratio)) == pytest.approx(1.7)


def test_a_source_in_front_of_its_lens_is_refused():
    with pytest.raises(ConfigError, match="behind its lens"):
        Cosmology().distance_between(0.5, 0.5)
