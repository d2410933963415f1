"""Box3D against known answers, and the laws it keeps: conservation, positivity, symmetries, stability."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import i0e

from dodo_closure import asymptotic_state, conservation_error, draw_states
from dodo_closure.conserve import project
from dodo_closure.fluxes import density, flux, flux_factor, four_flux, is_physical, total_density
from dodo_closure.golden import CASES, FINAL, INTEGRALS, PLACE, E
from dodo_closure.minerbo import maximum_entropy
from dodo_closure.quadrature import CrossingAware, Lebedev, Product
from dodo_closure.states import random_rotations, rotate, state
from skyloom.errors import DataError


@pytest.mark.parametrize("case", CASES)
def test_box3d_golden(case):
    F = CASES[case]
    after, found = asymptotic_state(F)
    unit = after / total_density(F)
    assert (found.smaller.item(), found.larger.item(), found.survival.item()) == pytest.approx(INTEGRALS[case], abs=2e-13)
    for species, values in FINAL[case].items():
        row = unit[PLACE[species]]
        got = [row[3].item(), *row[:3].tolist()][: len(values)]
        assert got == pytest.approx(values, abs=1e-12)
    torch.testing.assert_close(unit[:, 1], unit[:, 2], rtol=0, atol=0)


def test_golden_growth_and_densities_in_physical_units():
    after, found = asymptotic_state(CASES["NSM1"])
    assert found.growth.item() == pytest.approx(0.04718216312335, abs=1e-13)
    assert after[..., 3].flatten()[[0, 3, 1]].tolist() == pytest.approx(
        [1.084222681e33, 1.576892159e33, 6.600009738e32], rel=1e-9
    )


def test_fiducial_integral_has_a_closed_form():
    z = 1.0745628999535313  # inverse Langevin of 1/3
    assert asymptotic_state(CASES["Fiducial"])[1].smaller.item() == pytest.approx(0.5 * math.tanh(z / 2), abs=1e-13)


@pytest.mark.parametrize("name", ["NSM1", "NSM2"])
def test_smaller_side_by_one_dimensional_integrals(name):
    """For identical heavies the crossing is a circle: caps by adaptive quadrature of exp(Z_par mu) I_0(Z_perp sin)."""
    F = CASES[name] / total_density(CASES[name])
    electron = maximum_entropy(F[:, 0])
    axis = electron.z[0] - electron.z[1]
    size = axis.norm()
    cosine = (-(electron.log_mean[0] - electron.log_mean[1]) / size).item()

    def cap(s: int, low: float, high: float) -> float:
        parallel = (electron.z[s] @ axis / size).item()
        across = math.sqrt(max(electron.z[s].norm().item() ** 2 - parallel**2, 0))
        peak = math.exp(electron.log_mean[s].item())

        def density_at(mu: float) -> float:
            sine = math.sqrt(1 - mu * mu)
            return math.exp(parallel * mu + across * sine) * i0e(across * sine)

        return 2 * math.pi * peak * quad(density_at, low, high, epsabs=1e-14, epsrel=1e-13)[0]

    above = cap(0, cosine, 1) - cap(1, cosine, 1)
    below = cap(1, -1, cosine) - cap(0, -1, cosine)
    found = asymptotic_state(F)[1]
    assert (found.smaller.item(), found.larger.item()) == pytest.approx((min(above, below), max(above, below)), abs=1e-12)


def test_box3d_heavy_average_not_sum():
    """A fully mixed gas keeps all its neutrinos; with the sum of mu and tau for one heavy flavor a third would be lost."""
    after, _ = asymptotic_state(CASES["Fiducial"])
    assert (total_density(after) / total_density(CASES["Fiducial"])).item() == pytest.approx(1, abs=1e-14)


def test_box3d_equal_sides_full_mixing():
    for rule in (Lebedev(17), Product(8, 8), CrossingAware(8, 8, 16)):
        after, _ = asymptotic_state(CASES["90Degree"], rule)
        mean = CASES["90Degree"].mean(dim=1, keepdim=True).expand(2, 3, 4)
        torch.testing.assert_close(after, mean, rtol=0, atol=1e-14 * E)


# ------------------------------------------------------------------------------------------------ laws, on states of any kind

unit_vector = st.tuples(st.floats(-1, 1), st.floats(0, 2 * math.pi))
factor = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.98, 0.9999999, 1.0]))
amount = st.one_of(st.floats(1e-6, 1), st.sampled_from([0.0, 1e-12, 0.3, 1.0]))


@st.composite
def six_species(draw, factor=factor, alike=None):
    """Any physical state: empty species, no flux, beams, equal species, mu unlike tau."""
    n = torch.tensor([draw(amount) for _ in range(6)], dtype=torch.float64)
    rows = []
    for k in range(6):
        cosine, azimuth = draw(unit_vector)
        sine = math.sqrt(1 - cosine**2)
        h = torch.tensor([sine * math.cos(azimuth), sine * math.sin(azimuth), cosine], dtype=torch.float64)
        rows.append(four_flux(n[k], n[k] * draw(factor) * h / h.norm().clamp(min=1.0)))
    F = torch.stack(rows).reshape(2, 3, 4)
    alike = draw(st.sampled_from(["none", "mu and tau", "all heavy", "e and x"])) if alike is None else alike
    if alike != "none":
        F[:, 2] = F[:, 1]
    if alike == "all heavy":
        F[1, 1:] = F[0, 1:]
    if alike == "e and x":
        F[:, 0] = F[:, 1]
    assume(total_density(F) > 1e-6)
    return F


@pytest.mark.parametrize("smooth", [False, True], ids=["box", "smooth"])
@settings(max_examples=60, deadline=None)
@given(F=six_species(), scale=st.sampled_from([1.0, 1e33]))
def test_box3d_conservation(smooth, F, scale):
    after, found = asymptotic_state(F * scale, variant="smooth" if smooth else "box")
    trace, lepton = conservation_error(F * scale, after)
    assert trace <= 1e-13
    assert lepton <= 1e-13
    total = total_density(F) * scale
    assert bool((density(after) >= -1e-15 * total).all())
    assert bool((flux(after).norm(dim=-1) <= density(after) + 4e-15 * total).all())
    torch.testing.assert_close(project(F * scale, after), after, rtol=0, atol=1e-13 * total.item())
    assert 1 / 3 - 1e-12 <= found.survival <= 1


@settings(max_examples=60, deadline=None)
@given(F=six_species(factor=st.floats(0, 0.9), alike="mu and tau"), seed=st.integers(0, 2**31), mirror=st.booleans())
def test_commutes_with_rotations_and_reflections(F, seed, mirror):
    R = random_rotations(1, torch.Generator().manual_seed(seed)) * (-1 if mirror else 1)
    turned = asymptotic_state(rotate(F[None], R))[0]
    torch.testing.assert_close(turned, rotate(asymptotic_state(F)[0][None], R), rtol=0, atol=1e-10 * total_density(F).item())


@settings(max_examples=40, deadline=None)
@given(F=six_species(factor=st.floats(0, 0.9)), scale=st.floats(-33, 33))
def test_box3d_scale_and_swap_symmetry(F, scale):
    after, tolerance = asymptotic_state(F)[0], 1e-11 * total_density(F).item()
    torch.testing.assert_close(asymptotic_state(F.flip(0))[0], after.flip(0), rtol=0, atol=tolerance)
    torch.testing.assert_close(asymptotic_state(F[:, [0, 2, 1]])[0], after[:, [0, 2, 1]], rtol=0, atol=tolerance)
    torch.testing.assert_close(asymptotic_state(F * 10**scale)[0] / 10**scale, after, rtol=0, atol=tolerance)


def test_exchange_of_e_and_mu_is_no_symmetry_of_box3d():
    F = draw_states("random", 20, seed=3)
    change = (asymptotic_state(F[:, :, [1, 0, 2]])[0] - asymptotic_state(F)[0][:, :, [1, 0, 2]]).abs().amax(dim=(1, 2, 3))
    assert (change / total_density(F)).median() > 1e-3


@pytest.mark.parametrize("family", ["isotropic", "one_flavor"])
def test_box3d_identity_on_stable(family):
    F = draw_states(family, 200, seed=0)
    after, found = asymptotic_state(F)
    assert torch.equal(after, F)
    assert not found.unstable.any()
    assert bool((found.survival == 1).all())


def test_identity_where_electron_and_heavy_flavors_are_alike():
    F = draw_states("random", 50, seed=1)
    F[:, :, 0] = F[:, :, 1]
    after, found = asymptotic_state(F)
    assert torch.equal(after, F)
    assert not found.unstable.any()


def test_identity_exactly_where_the_lepton_number_keeps_its_sign():
    F = draw_states("near_isotropic", 300, seed=2)
    after, found = asymptotic_state(F)
    same = (after == F).flatten(1).all(dim=1)
    assert torch.equal(same, ~found.unstable)
    points = torch.nn.functional.normalize(
        torch.randn(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )
    f = maximum_entropy(F / total_density(F)[:, None, None, None]).along(points[None, None])
    G = (f[:, 0, 0] - f[:, 1, 0]) - (f[:, 0, 1] - f[:, 1, 1])
    seen = (G.amax(dim=1) > 0) & (G.amin(dim=1) < 0)
    deep = found.smaller > 1e-5  # a smaller cap can fall between the points
    assert torch.equal(seen[deep | ~found.unstable], found.unstable[deep | ~found.unstable])
    assert 0.3 < found.unstable.double().mean() < 0.6


def test_smooth_variant_is_box3d_where_both_sides_are_equal():
    for case in ("Fiducial", "90Degree"):
        torch.testing.assert_close(
            asymptotic_state(CASES[case], variant="smooth")[0], asymptotic_state(CASES[case])[0], rtol=0, atol=1e-12 * E
        )


def test_smooth_variant_depends_continuously_on_the_state():
    """Across I_< = I_> the roles of the sides are exchanged; neither variant may jump there."""
    for smooth in (False, True):
        lower, upper = (
            asymptotic_state(CASES["Fiducial"] * scale, variant="smooth" if smooth else "box")[0] for scale in _tilt(1e-9)
        )
        assert (lower - upper).abs().max() < 1e-7 * E


def _tilt(step: float) -> tuple[torch.Tensor, torch.Tensor]:
    more, less = torch.ones(2, 3, 4, dtype=torch.float64), torch.ones(2, 3, 4, dtype=torch.float64)
    more[0], less[0] = 1 + step, 1 - step
    return less, more


def test_box3d_removes_crossing_on_distribution():
    """G' = G (3 P - 1) / 2 for any distributions mixed with P, which has one sign where P = 1/3 on the smaller side."""
    generator = torch.Generator().manual_seed(0)
    e, ebar, x, xbar = torch.rand(4, 500, generator=generator, dtype=torch.float64)
    P = 1 / 3 + 2 / 3 * torch.rand(500, generator=generator, dtype=torch.float64)
    mixed = [(P * a + (1 - P) * b, (1 - P) / 2 * a + (1 + P) / 2 * b) for a, b in ((e, x), (ebar, xbar))]
    G, after = (e - ebar) - (x - xbar), (mixed[0][0] - mixed[1][0]) - (mixed[0][1] - mixed[1][1])
    torch.testing.assert_close(after, G * (3 * P - 1) / 2, rtol=0, atol=1e-15)
    assert bool((after * G >= -1e-15).all())  # and no P above 1/3 turns its sign


@pytest.mark.parametrize("name", CASES)
def test_caps_are_what_the_cut_meridians_say(name):
    """Two ways to the same integrals: closed form in the azimuth, and nodes all over the sphere."""
    exact, found = asymptotic_state(CASES[name])
    cut, other = asymptotic_state(CASES[name], CrossingAware(64, 32, 96))
    assert found.smaller.item() == pytest.approx(other.smaller.item(), abs=1e-13)
    assert ((exact - cut) / total_density(CASES[name])).abs().max() < 1e-13


def test_pairwise_equals_box_when_mutau():
    F = draw_states("random", 60, seed=4)
    both = [asymptotic_state(F, CrossingAware(32, 16, 32), variant=variant)[0] for variant in ("box", "pairwise")]
    error = ((both[0] - both[1]) / total_density(F)[:, None, None, None]).abs().amax(dim=(1, 2, 3))
    assert error.max() < 1e-14


def unlike(rows: int, seed: int) -> torch.Tensor:
    """States whose six species all differ, with N = 1."""
    F = draw_states("random", rows, seed)
    F[:, :, 2] = draw_states("random", rows, seed + 1)[:, :, 1]
    return F / total_density(F)[:, None, None, None]


def test_pairwise_permutation():
    F, rule = unlike(60, 8), CrossingAware(32, 16, 32)
    after, found = asymptotic_state(F, rule, variant="pairwise")
    assert found.unstable.double().mean() > 0.8
    assert max(part.max() for part in conservation_error(F, after)) < 1e-13
    assert bool(is_physical(after, 1e-12).all())
    for order in ([1, 0, 2], [2, 1, 0], [1, 2, 0]):
        turned = asymptotic_state(F[:, :, order], rule, variant="pairwise")[0]
        torch.testing.assert_close(turned, after[:, :, order], rtol=0, atol=1e-13)
    torch.testing.assert_close(asymptotic_state(F.flip(1), rule, variant="pairwise")[0].flip(1), after, rtol=0, atol=1e-13)


def test_one_crossing_pair_mixes_to_a_half_and_not_beyond():
    """Heavy neutrinos that cross among themselves alone: two-flavor equipartition on the smaller side."""
    n = torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    factor = torch.zeros(2, 3, 3, dtype=torch.float64)
    factor[0, 1, 2], factor[0, 2, 2] = 0.4, -0.4
    F = four_flux(n, n[..., None] * factor)
    F[:, 0] = (F[:, 1] + F[:, 2]) / 2  # electron flavor sits between: its own differences cross too
    alone = F.clone()
    alone[:, 0] = 0
    alone[0, 0, 3] = 10.0  # so many electron neutrinos that only mu and tau cross
    after, found = asymptotic_state(alone, variant="pairwise")
    assert bool(found.unstable)
    torch.testing.assert_close(after[0, 0], alone[0, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(after[0, 1], alone[0, 1:].mean(dim=0), rtol=0, atol=1e-12)


def test_smooth_conservation_and_continuity():
    """a solves the net electron number, and P is 1/3 on both sides of G = 0."""
    from dodo_closure.conversion import _spread

    generator = torch.Generator().manual_seed(0)
    excess = torch.randn(300, 200, generator=generator, dtype=torch.float64)
    excess[:, 0] = -1e-12
    weights = torch.rand(300, 200, generator=generator, dtype=torch.float64)
    outside = weights * (-excess).clamp(min=0)
    ratio = 10 ** (-5 * torch.rand(300, generator=generator, dtype=torch.float64))
    ratio[:100] = 1 - 10 ** (-13 * torch.rand(100, generator=generator, dtype=torch.float64))
    smaller = ratio * outside.sum(dim=1)
    h = _spread(excess, outside, weights, smaller)
    torch.testing.assert_close((h * outside).sum(dim=1), smaller, rtol=1e-13, atol=0)
    torch.testing.assert_close(h[:, 0], torch.ones(300, dtype=torch.float64), rtol=0, atol=1e-9)
    assert bool((h <= 1 + 1e-9).all())


def test_two_flavors_mix_to_a_half():
    after, found = asymptotic_state(CASES["Fiducial"], p0=0.5)
    assert found.survival.item() == pytest.approx(0.5, abs=1e-13)
    assert (after[0, 0, 3] / E).item() == pytest.approx(0.5, abs=1e-13)


def test_rules_agree_within_their_known_errors():
    F = CASES["NSM1"]
    best = asymptotic_state(F)[0]
    for rule, error in ((Lebedev(17), 2e-3), (Lebedev(29), 2e-3), (Product(64, 128), 1e-3)):
        coarse = asymptotic_state(F, rule)[0]
        assert 1e-7 < ((coarse - best) / total_density(F)).abs().max() < error
        assert max(conservation_error(F, coarse)) < 1e-13
    fine = asymptotic_state(F, CrossingAware(96, 48, 128))[0]
    assert ((fine - best) / total_density(F)).abs().max() < 1e-14


def test_rows_do_not_see_each_other():
    F = draw_states("random", 40, seed=5)
    together = asymptotic_state(F)[0]
    alone = torch.cat([asymptotic_state(row[None])[0] for row in F[:8]])
    torch.testing.assert_close(
        alone / total_density(F)[:8, None, None, None],
        together[:8] / total_density(F)[:8, None, None, None],
        rtol=0,
        atol=1e-12,
    )


def test_impossible_rows_come_back_as_nan_and_harm_no_other():
    F = draw_states("merger", 6, seed=0)
    good = asymptotic_state(F)[0]
    F[0, 0, 0, 0] = torch.nan
    F[1, 0, 0, 3] *= -1
    F[2, 1, 0, :3] *= 100
    F[3] = 0
    after, found = asymptotic_state(F)
    assert found.valid.tolist() == [False, False, False, False, True, True]
    assert bool(torch.isnan(after[:4]).all())
    assert torch.equal(after[4:], good[4:])


def test_wrong_axis_order_is_refused():
    with pytest.raises(DataError, match="from_public"):
        asymptotic_state(torch.ones(5, 4, 2, 3))


def test_two_opposite_beams():
    beams = state((1.0, 1.0, 0.0), ((0, 0, 1), (0, 0, -1), (0, 0, 0)))
    after, found = asymptotic_state(beams)
    assert bool(found.unreliable)
    torch.testing.assert_close(after, beams.mean(dim=1, keepdim=True).expand(2, 3, 4), rtol=0, atol=1e-14)
    assert bool(is_physical(after, 1e-12))
    assert flux_factor(after).max() <= 1 + 1e-14
