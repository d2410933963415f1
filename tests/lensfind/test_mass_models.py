"""Every lens model obeys the laws of lensing, meets its golden numbers and agrees with lenstronomy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lensfind.lensing import (
    EPL,
    NFW,
    SIE,
    SIS,
    Composite,
    PointMass,
    PseudoJaffe,
    Shear,
    Sheet,
    nfw_deflection,
    nfw_hessian,
    nfw_mean_convergence,
    nfw_potential,
    point_images,
)


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def ellipticity(q: float, angle: float) -> dict[str, float]:
    size = (1 - q) / (1 + q)
    return {"e1": size * math.cos(2 * angle), "e2": size * math.sin(2 * angle)}


def points(seed: int, count: int, reach: float = 4.0) -> torch.Tensor:
    """[2, count] positions at least 0.05 arcsec from the origin."""
    rng = np.random.default_rng(seed)
    r, phi = rng.uniform(0.05, reach, count), rng.uniform(0, 2 * math.pi, count)
    return torch.from_numpy(np.stack([r * np.cos(phi), r * np.sin(phi)]))


lengths = st.floats(0.3, 3.0)
ratios = st.floats(0.2, 1.0)
angles = st.floats(-4.0, 4.0)
places = st.floats(-0.5, 0.5)
masses = st.one_of(
    st.builds(SIE, lengths, ratios, angles, st.sampled_from([0.0, 1e-3, 0.2]), places, places),
    st.builds(EPL, lengths, ratios, angles, st.floats(1.4, 2.7), places, places),
    st.builds(NFW, st.floats(0.05, 0.8), st.floats(0.5, 40.0), st.floats(0.6, 1.0), angles, places, places),
    st.builds(PseudoJaffe, lengths, ratios, angles, st.floats(1e-3, 0.2), st.floats(0.5, 20.0), places, places),
    st.builds(PointMass, lengths, places, places),
    st.builds(Shear, places, places, places, places),
    st.builds(Sheet, places, places, places),
)


@settings(max_examples=150, deadline=None)
@given(masses, st.integers(0, 10_000))
def test_deflection_is_the_gradient_of_the_potential_and_the_hessian_its_gradient(lens, seed):
    """alpha = grad psi, curl alpha = 0, div alpha = 2 kappa, by automatic differentiation."""
    x, y = points(seed, 40)
    for cx, cy in lens.centres():
        x, y = x + cx, y + cy
    x, y = x.requires_grad_(), y.requires_grad_()
    ax, ay = lens.deflection(x, y)
    gx, gy = torch.autograd.grad(lens.potential(x, y).sum() + 0 * (x + y).sum(), (x, y))
    scale = float(torch.hypot(ax, ay).detach().max()) + 1
    assert torch.allclose(gx, ax, atol=1e-8 * scale)
    assert torch.allclose(gy, ay, atol=1e-8 * scale)
    (axx, axy), (ayx, ayy) = (torch.autograd.grad(a.sum() + 0 * (x + y).sum(), (x, y), retain_graph=True) for a in (ax, ay))
    size = axx.abs() + ayy.abs() + 1
    assert ((axy - ayx).abs() / size).max() < 1e-8
    xx, yy, xy = (h.detach() for h in lens.hessian(x, y))
    for ours, slope in ((xx, axx), (yy, ayy), (xy, axy)):
        assert ((ours - slope).abs() / size).max() < 1e-7
    assert torch.allclose(lens.convergence(x, y).detach() * 2, axx + ayy, atol=1e-7, rtol=1e-7)
    assert (lens.convergence(x, y) > -0.6).all()


def _peer_cases():
    rng = np.random.default_rng(5)
    for _ in range(5):
        theta_e, q, angle, x, y = (float(v) for v in rng.uniform([0.4, 0.3, -3, -0.3, -0.3], [2.5, 0.98, 3, 0.3, 0.3]))
        slope, core, cut, kappa_s, theta_s = (float(v) for v in rng.uniform([1.5, 0.02, 2, 0.1, 2], [2.5, 0.3, 9, 0.6, 30]))
        centre = {"center_x": x, "center_y": y}
        shape = {**ellipticity(q, angle), **centre}
        yield "SIS", SIS(theta_e, x, y), {"theta_E": theta_e, **centre}
        yield "SIE", SIE(theta_e, q, angle, x=x, y=y), {"theta_E": theta_e, **shape}
        yield "NIE", SIE(theta_e, q, angle, core, x, y), {"theta_E": theta_e, "s_scale": core, **shape}
        yield "EPL", EPL(theta_e, q, angle, slope, x, y), {"theta_E": theta_e, "gamma": slope, **shape}
        at_scale = 4 * kappa_s * theta_s * (1 + math.log(0.5))  # deflection at the scale radius
        yield "NFW", NFW(kappa_s, theta_s, x=x, y=y), {"Rs": theta_s, "alpha_Rs": at_scale, **centre}
        wide = 0.8 + 0.2 * q
        yield "NFW_ELLIPSE_POTENTIAL", NFW(kappa_s, theta_s, wide, angle, x, y), {
            "Rs": theta_s, "alpha_Rs": at_scale, **ellipticity(wide, angle), **centre}  # fmt: skip
        yield "PJAFFE", PseudoJaffe(theta_e, 1.0, 0.0, core, cut, x, y), {
            "sigma0": theta_e / (2 * core), "Ra": core, "Rs": cut, **centre}  # fmt: skip
        yield "POINT_MASS", PointMass(theta_e, x, y), {"theta_E": theta_e, **centre}
        yield "SHEAR", Shear(0.1 * x, 0.2 * y, x, y), {"gamma1": 0.1 * x, "gamma2": 0.2 * y, "ra_0": x, "dec_0": y}
        yield "CONVERGENCE", Sheet(0.3 * q, x, y), {"kappa": 0.3 * q, "ra_0": x, "dec_0": y}


@pytest.mark.parametrize("name", ["SIS", "SIE", "NIE", "EPL", "NFW", "NFW_ELLIPSE_POTENTIAL", "PJAFFE", "POINT_MASS", "SHEAR",
                                  "CONVERGENCE"])  # fmt: skip
def test_agrees_with_lenstronomy_at_a_thousand_points(name):
    """Deflection to 1e-6, five draws of the parameters at 200 points each; the Hessian where lenstronomy has a closed form.

    It takes finite differences for the isothermal ellipsoid and for the elliptical potential.
    """
    from lenstronomy.LensModel.lens_model import LensModel

    peer = LensModel([name])
    for k, (lens, kwargs) in enumerate((lens, kw) for n, lens, kw in _peer_cases() if n == name):
        x, y = points(k, 200)
        for cx, cy in lens.centres():
            x, y = x + cx, y + cy
        ours = lens.deflection(x, y)
        theirs = peer.alpha(x.numpy(), y.numpy(), [kwargs])
        for a, b in zip(ours, theirs, strict=True):
            assert np.abs(a.numpy() - b).max() < 1e-6
        if name in ("SIE", "NIE", "NFW_ELLIPSE_POTENTIAL"):
            continue
        xx, xy, _, yy = peer.hessian(x.numpy(), y.numpy(), [kwargs])
        for a, b in zip(lens.hessian(x, y), (xx, yy, xy), strict=True):
            assert np.abs((a.numpy() - b) / (1 + np.abs(b))).max() < 1e-6


def test_an_elliptical_pseudo_jaffe_is_the_difference_of_two_of_lenstronomys_cored_ellipsoids():
    from lenstronomy.LensModel.lens_model import LensModel

    q, angle, core, cut = 0.6, 0.8, 0.1, 3.0
    x, y = points(3, 1000)
    strength = 1.3 * cut / (cut - core)
    kwargs = [{"theta_E": strength, "s_scale": s, **ellipticity(q, angle), "center_x": 0, "center_y": 0} for s in (core, cut)]
    inner, outer = (LensModel(["NIE"]).alpha(x.numpy(), y.numpy(), [kw]) for kw in kwargs)
    ours = PseudoJaffe(1.3, q, angle, core, cut).deflection(x, y)
    assert all(np.abs(a.numpy() - (b - c)).max() < 1e-6 for a, b, c in zip(ours, inner, outer, strict=True))


NFW_TABLE = [  # x, kappa/kappa_s, mean kappa/kappa_s, alpha/(kappa_s theta_s), gamma/kappa_s, psi/(kappa_s theta_s^2)
    (0.1, 4.0571761, 5.0279505, 0.5027951, 0.9707745, 0.0300577),
    (0.5, 1.3885120, 2.1503621, 1.0751811, 0.7618501, 0.3748679),
    (1.0, 0.6666667, 1.2274113, 1.2274113, 0.5607446, 0.9609060),
    (2.0, 0.2636001, 0.6045998, 1.2091996, 0.3409996, 2.1932454),
    (10.0, 0.0172161, 0.0702897, 0.7028967, 0.0530736, 9.5060795),
]


@pytest.mark.parametrize("row", NFW_TABLE, ids=[f"x={row[0]}" for row in NFW_TABLE])
def test_golden_values_of_the_nfw_halo(row):
    x, kappa, mean, alpha, gamma, psi = row
    one, zero, at = number(1.0), number(0.0), number(x)
    xx, yy, _ = nfw_hessian(at, zero, one, one, one, zero)
    assert float((xx + yy) / 2) == pytest.approx(kappa, rel=1e-6)
    assert float((yy - xx) / 2) == pytest.approx(gamma, rel=1e-6)
    assert float(nfw_mean_convergence(at, one, one)) == pytest.approx(mean, rel=1e-6)
    assert float(nfw_deflection(at, zero, one, one, one, zero)[0]) == pytest.approx(alpha, rel=1e-6)
    assert float(nfw_potential(at, zero, one, one, one, zero)) == pytest.approx(psi, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nfw_has_no_jump_at_the_scale_radius_nor_loses_figures_at_the_centre(dtype):
    """Against 50-digit arithmetic on both sides of every change of formula."""
    import mpmath

    mpmath.mp.dps = 50
    near = [1e-4, 1e-3, 0.0299, 0.0301, 0.1999, 0.2001, 0.9486, 0.9488, 0.999999, 1.0, 1.000001, 1.0487, 1.0489, 3.0]
    x = torch.tensor(near, dtype=dtype)
    one, zero = torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype)
    xx, yy, _ = nfw_hessian(x, 0 * x, one, one, one, zero)
    psi = nfw_potential(x, 0 * x, one, one, one, zero)
    tolerance = 3e-5 if dtype == torch.float32 else 1e-10
    for k, value in enumerate(x.double().tolist()):
        v = mpmath.mpf(value)
        g = 1 if v == 1 else (mpmath.acosh(1 / v) if v < 1 else mpmath.acos(1 / v)) / mpmath.sqrt(abs(1 - v * v))
        f = mpmath.mpf(1) / 3 if v == 1 else (g - 1) / (1 - v * v)
        assert float((xx + yy)[k] / 2) == pytest.approx(float(2 * f), rel=tolerance)
        mean = 4 * (mpmath.log(v / 2) + g) / v**2
        assert float(yy[k]) == pytest.approx(float(mean), rel=tolerance)
        exact = 2 * (mpmath.log(v / 2) ** 2 - (1 - v * v) * g**2)
        assert float(psi[k]) == pytest.approx(float(exact), rel=3 * tolerance)


def test_isothermal_power_law_is_the_isothermal_ellipsoid():
    x, y = points(1, 300)
    for q in (0.25, 0.6, 0.9, 0.9999, 1.0):
        sie, epl = SIE(1.3, q, 0.4), EPL(1.3, q, 0.4, 2.0)
        for a, b in zip((*sie.deflection(x, y), *sie.hessian(x, y)), (*epl.deflection(x, y), *epl.hessian(x, y)), strict=True):
            assert ((a - b).abs() / (1 + a.abs())).max() < 1e-8


def test_identities_of_the_isothermal_ellipsoid():
    """Homothety, |gamma| = kappa, det A = 1 - 2 kappa, and no core as the limit of a small one."""
    x, y = points(2, 200)
    lens = SIE(1.1, 0.6, 0.7)
    kappa, (g1, g2) = lens.convergence(x, y), lens.shear(x, y)
    assert torch.allclose(torch.hypot(g1, g2), kappa, rtol=1e-8)
    assert torch.allclose(1 / lens.magnification(x, y), 1 - 2 * kappa, atol=1e-8)
    assert torch.allclose(lens.convergence(3 * x, 3 * y) * 3, kappa)
    for a, b in zip(lens.deflection(3 * x, 3 * y), lens.deflection(x, y), strict=True):
        assert torch.allclose(a, b)
    small = SIE(1.1, 0.6, 0.7, core=1e-7)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(small.deflection(x, y), lens.deflection(x, y), strict=True))
    det = 1 / SIE(1.0, 0.7).magnification(number(0.7), number(0.5))
    assert float(det) == pytest.approx(-0.1951067, abs=1e-7)


def test_single_precision_is_good_to_a_few_parts_in_a_million():
    x, y = points(4, 200)
    lens = Composite([SIE(1.1, 0.6, 0.7, 0.05), EPL(0.5, 0.8, 0.2, 2.2), NFW(0.3, 5.0, 0.9, 0.1), Shear(0.05, -0.02)])
    for a, b in zip(lens.deflection(x.float(), y.float()), lens.deflection(x, y), strict=True):
        assert (a.double() - b).abs().max() < 1e-5


def test_turning_the_lens_turns_everything_with_it():
    """One position angle for deflection, convergence and shear: they turn together (they did not once)."""
    x, y = points(6, 100)
    for make in (
        lambda a: SIE(1.1, 0.5, a, 0.1), lambda a: EPL(1.1, 0.5, a, 2.3), lambda a: NFW(0.4, 6.0, 0.7, a),
        lambda a: PseudoJaffe(1.1, 0.5, a, 0.1, 4.0),
    ):  # fmt: skip
        here, turned = make(0.3), make(0.3 + math.pi / 2)
        assert torch.allclose(turned.convergence(-y, x), here.convergence(x, y), atol=1e-10)
        (ax, ay), (bx, by) = here.deflection(x, y), turned.deflection(-y, x)
        assert torch.allclose(bx, -ay, atol=1e-10)
        assert torch.allclose(by, ax, atol=1e-10)
        g, h = here.shear(x, y), turned.shear(-y, x)
        assert torch.allclose(h[0], -g[0], atol=1e-10)
        assert torch.allclose(h[1], -g[1], atol=1e-10)
    long = SIE(1.0, 0.5, 0.5)  # the major axis lies at the stated angle
    along, across = ((r * math.cos(a), r * math.sin(a)) for r, a in ((1.0, 0.5), (1.0, 0.5 + math.pi / 2)))
    assert long.convergence(number(along[0]), number(along[1])) > long.convergence(number(across[0]), number(across[1]))


def test_batches_meet_their_parameters():
    x = torch.linspace(-2, 2, 24, dtype=torch.float64).reshape(2, 3, 4)
    radii = torch.tensor([0.8, 1.4], dtype=torch.float64)
    both = SIE(radii, q=torch.tensor([0.5, 0.9], dtype=torch.float64)).deflection(x, x + 0.3)[0]
    for k, q in enumerate((0.5, 0.9)):
        assert torch.allclose(both[k], SIE(float(radii[k]), q).deflection(x[k], x[k] + 0.3)[0])


def test_gradients_reach_the_parameters():
    theta_e, q, slope = (number(v).requires_grad_() for v in (1.0, 0.7, 2.1))
    x, y = points(7, 10)
    ax, _ = EPL(theta_e, q, 0.2, slope).deflection(x, y)
    assert all(torch.isfinite(g) and g != 0 for g in torch.autograd.grad(ax.sum(), (theta_e, q, slope)))


def test_point_mass_magnifies_by_the_golden_number_at_its_einstein_radius():
    images, mu = point_images(number(1.0), number(1.0))
    assert float(mu.abs().sum()) == pytest.approx(3 / math.sqrt(5))
    beta, _ = PointMass(1.0).source(images, 0 * images)
    assert torch.allclose(beta, torch.ones_like(beta))


def test_shear_and_sheet_have_the_stated_jacobian():
    x, y = points(8, 20)
    assert torch.allclose(1 / Shear(0.06, -0.08).magnification(x, y), number(1 - 0.01))
    assert torch.allclose(1 / Sheet(0.2).magnification(x, y), number(0.64))
