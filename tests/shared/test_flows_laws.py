"""Every flow obeys the same laws: it inverts, its Jacobian is autograd's, it integrates to one, its draws follow its density,
it is finite everywhere, and it survives a checkpoint, bfloat16 and a compiler."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.autograd.functional import jacobian
from zuko.transforms import MonotonicRQSTransform

from skyloom.flows import (
    AffineAutoregressive,
    AroundRegression,
    Box,
    ContextMLP,
    ContextResidual,
    GaussianMixture,
    GlowCoupling,
    MaskedContext,
    SplineAutoregressive,
    SplineCoupling,
    StudentT,
    TailTransform,
)
from skyloom.flows.bound import ROWS_AT_ONCE, Given
from skyloom.flows.spline_gradient import trained_spline
from skyloom.flows.splines import knots, spline, spline_inverse
from skyloom.flows.univariate import SplineMap

SMALL = {"hidden": (24, 24)}
FLOWS = {
    "glow": lambda d, c: GlowCoupling(d, c, blocks=3, hidden=24, clamp=1.0),
    "glow_learned": lambda d, c: GlowCoupling(
        d, c, blocks=3, hidden=(24, 24), clamp=1.0, mixing="learned", actnorm=True, embed=ContextMLP
    ),
    "glow_rotation": lambda d, c: GlowCoupling(d, c, blocks=3, hidden=24, clamp=1.0, mixing="rotation", base=StudentT),
    "spline_autoregressive": lambda d, c: SplineAutoregressive(d, c, transforms=2, **SMALL),
    "spline_coupling": lambda d, c: SplineCoupling(d, c, transforms=3, embed=ContextResidual, base=GaussianMixture, **SMALL),
    "affine_autoregressive": lambda d, c: AffineAutoregressive(d, c, transforms=3, activation="elu", **SMALL),
    "tails": lambda d, c: SplineAutoregressive(d, c, transforms=1, mixing="learned", tails=TailTransform, **SMALL),
    "masked_context": lambda d, c: SplineAutoregressive(d, c, transforms=2, embed=MaskedContext, **SMALL),
    "around_regression": lambda d, c: AroundRegression(
        SplineAutoregressive(d, c, transforms=2, **SMALL), 0.3 * torch.ones(c, d), torch.zeros(d), 0.5 * torch.eye(d) + 0.2
    ),
}
CONDITIONAL = pytest.mark.parametrize("name", FLOWS)
FREE = pytest.mark.parametrize("name", [n for n in FLOWS if n != "around_regression"])


def make(name: str, features: int = 3, context: int = 4, seed: int = 0, growth: float = 1.3):
    """A flow in evaluation whose weights are larger than an initialisation's, so that it bends."""
    torch.manual_seed(seed)
    flow = FLOWS[name](features, context)
    for parameter in flow.parameters():
        if parameter.dim() > 1 and not parameter.any():  # a block that begins as nothing
            parameter.data.normal_(0, 0.1)
        elif parameter.dim() > 1 and parameter.shape[0] != parameter.shape[1]:
            parameter.data.mul_(growth)
    for module in flow.modules():
        if hasattr(module, "started"):
            module.started.fill_(True)
        if hasattr(module, "generator"):
            module.generator.data.normal_(0, 0.5)
    return flow.eval()


# ---------------------------------------------------------------- bijections


@CONDITIONAL
@given(seed=st.integers(0, 10_000), features=st.integers(2, 5), scale=st.sampled_from([0.3, 1.0, 3.0]))
@settings(max_examples=8, deadline=None)
def test_data_return_from_the_latent(name, seed, features, scale):
    flow = make(name, features, seed=seed, growth=1.0)
    g = torch.Generator().manual_seed(seed)
    y, c = scale * torch.randn(30, features, generator=g), torch.randn(30, 4, generator=g)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        at = flow.to(dtype)(c.to(dtype)).transform
        z, ladj = at.to_latent(y.to(dtype))
        back, same = at.to_data(z)
        # a spline may be a thousand times flatter than the identity, and divides the rounding of z by that
        slope = torch.exp(-ladj.abs()).clamp(min=1e-3).unsqueeze(-1)
        assert ((back - y).abs() * slope).max() < tolerance * max(1.0, scale)
        torch.testing.assert_close(same, ladj, rtol=1e-3 if dtype is torch.float32 else 1e-7, atol=200 * tolerance)


@CONDITIONAL
@given(seed=st.integers(0, 10_000))
@settings(max_examples=4, deadline=None)
def test_the_log_determinant_is_that_of_autograd(name, seed):
    flow = make(name, seed=seed).double()
    y, c = torch.randn(2, 3, 3, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    z, ladj = flow(c).transform.to_latent(y)
    for i in range(2):
        for j in range(3):
            dz = jacobian(lambda v, c=c[j]: flow(c).transform.to_latent(v)[0], y[i, j])
            torch.testing.assert_close(torch.linalg.slogdet(dz)[1], ladj[i, j], rtol=1e-8, atol=1e-8)
            dy = jacobian(lambda v, c=c[j]: flow(c).transform.to_data(v)[0], z[i, j].detach())
            torch.testing.assert_close(torch.linalg.slogdet(dy)[1], -ladj[i, j], rtol=1e-7, atol=1e-7)


@FREE
def test_densities_integrate_to_one(name):
    """On a grid in two dimensions, for two contexts and for a flow without context."""
    axis = torch.linspace(-14, 14, 401)
    grid = torch.cartesian_prod(axis, axis)
    cell = (axis[1] - axis[0]).item() ** 2
    heavy = name in ("tails", "glow_rotation")  # power-law tails: what lies outside of the grid is known to be little
    for context in (0, 4):
        if context == 0 and name in ("masked_context",):
            continue
        flow = make(name, 2, context, seed=1)
        with torch.no_grad():
            log_p = flow(*([torch.full((4,), 0.3)] if context else [])).log_prob(grid)
        assert log_p.exp().sum().item() * cell == pytest.approx(1.0, abs=3e-2 if heavy else 1e-3)


@FREE
def test_draws_follow_the_density(name):
    """The probability integral transform of own draws is uniform: in the first coordinate, by the density on a grid."""
    flow = make(name, 2, 4, seed=2)
    c = torch.full((4,), -0.2)
    draws = flow(c).sample((4000,), generator=torch.Generator().manual_seed(0))
    first, other = torch.linspace(-12, 12, 401), torch.linspace(-20, 20, 301)
    with torch.no_grad():
        log_p = flow(c).log_prob(torch.cartesian_prod(first, other)).view(401, 301)
    marginal = log_p.exp().sum(1)
    below = torch.cumsum(marginal, 0) - marginal / 2
    pit = np.interp(draws[:, 0].numpy(), first.numpy(), (below / marginal.sum()).numpy())
    assert stats.kstest(pit, "uniform").pvalue > 1e-3
    y, log_q = flow(c).sample_and_log_prob((500,))
    with torch.no_grad():
        torch.testing.assert_close(flow(c).log_prob(y), log_q, rtol=2e-3, atol=2e-3)


@CONDITIONAL
def test_every_parameter_is_reached_from_density_and_from_draws(name):
    flow = make(name).train()
    c = torch.randn(40, 4)
    if name == "masked_context":
        c[::3, 1:] = torch.nan
    flow(c).log_prob(torch.randn(5, 40, 3)).sum().backward()
    wanted = {n for n, p in flow.named_parameters() if p.requires_grad}
    assert {n for n, p in flow.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0} == wanted
    flow.zero_grad()
    y, log_q = flow(c).rsample_and_log_prob((20,))
    (log_q.sum() + y.square().sum()).backward()
    reached = {n for n, p in flow.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == wanted


# ---------------------------------------------------------------- shapes, sharing, state


@CONDITIONAL
def test_sharing_a_context_over_draws_changes_nothing(name):
    """Against the usual way: the context repeated for each draw, one row at a time through every layer."""
    flow = make(name)
    c, y = torch.randn(7, 4), torch.randn(11, 7, 3)
    with torch.no_grad():
        repeated = flow(c.repeat(11, 1)).log_prob(y.reshape(-1, 3)).view(11, 7)
        torch.testing.assert_close(flow(c).log_prob(y), repeated, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(flow(c[2]).log_prob(y[:, 2]), repeated[:, 2], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(flow(c[:1]).log_prob(y[:, :1]), repeated[:, :1], rtol=1e-4, atol=1e-4)
        one_many = flow(c.view(7, 1, 4)).log_prob(y.transpose(0, 1))  # the context itself is broadcast
    torch.testing.assert_close(one_many.T, repeated, rtol=1e-4, atol=1e-4)


def test_many_rows_go_through_in_blocks():
    flow = make("glow")
    for objects, draws in ((5, ROWS_AT_ONCE), (300, 120), (ROWS_AT_ONCE + 7, 2)):
        c = torch.randn(objects, 4)
        y = flow(c).sample((draws,), generator=torch.Generator().manual_seed(5))
        whole = flow(c).rsample((draws,), generator=torch.Generator().manual_seed(5)).detach()
        torch.testing.assert_close(y, whole, rtol=1e-4, atol=1e-4)


@CONDITIONAL
def test_a_checkpoint_brings_back_the_same_numbers(name, tmp_path):
    flow = make(name, seed=3)
    c, y = torch.randn(6, 4), torch.randn(6, 3)
    torch.save(flow.state_dict(), tmp_path / "flow.pt")
    again = make(name, seed=4)
    again.load_state_dict(torch.load(tmp_path / "flow.pt", weights_only=True))
    with torch.no_grad():
        assert torch.equal(again(c).log_prob(y), flow(c).log_prob(y))
        assert torch.equal(copy.deepcopy(flow)(c).log_prob(y), flow(c).log_prob(y))


@CONDITIONAL
def test_bfloat16_autocast_gives_the_same_to_its_tolerance(name):
    flow = make(name, growth=1.0)
    c, y = torch.randn(200, 4), torch.randn(200, 3)
    with torch.no_grad():
        exact = flow(c).log_prob(y)
        with torch.autocast("cpu", torch.bfloat16):
            rough = flow(c).log_prob(y)
            draws = flow(c).sample((3,))
    assert rough.dtype == torch.float32 and draws.dtype == torch.float32
    assert (rough - exact).abs().median() < 0.03
    assert torch.isfinite(draws).all() and torch.isfinite(rough).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["glow", "glow_learned", "spline_autoregressive", "tails"])
def test_compiled_passes_give_the_same(name):
    flow = make(name)
    c, y = torch.randn(50, 4), torch.randn(50, 3)
    exact = flow(c).log_prob(y)
    with torch.no_grad():
        drawn = flow(c).sample((20,), generator=torch.Generator().manual_seed(0))
    flow.compile()
    torch.testing.assert_close(flow(c).log_prob(y), exact, rtol=1e-4, atol=1e-4)
    again = flow(c).sample((20,), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again, drawn, rtol=1e-3, atol=1e-3)


def test_an_identity_start_is_the_identity_whatever_the_context():
    for kind in (SplineAutoregressive, SplineCoupling, AffineAutoregressive):
        flow = kind(4, 2, identity_start=True, mixing="reversal")
        z, ladj = flow(torch.randn(9, 2)).transform.to_latent(y := torch.randn(9, 4))
        torch.testing.assert_close(z, y, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ladj, torch.zeros(9), rtol=0, atol=1e-5)


@given(st.integers(2, 9), st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_mixings_are_permutations_and_rotations_that_the_seed_decides(features, seed):
    from skyloom.flows.mixing import LearnedRotation, Permutation, Rotation

    eye = torch.eye(features, dtype=torch.float64)
    for kind in (Permutation, Rotation, LearnedRotation):
        mixing = kind(features, seed).double()
        matrix, ladj = mixing(eye, None)
        torch.testing.assert_close(matrix @ matrix.T, eye, rtol=0, atol=1e-12)
        torch.testing.assert_close(mixing.inverse(matrix, None)[0], eye, rtol=0, atol=1e-12)
        assert ladj is None
        assert torch.equal(kind(features, seed).double()(eye, None)[0], matrix)


def test_actnorm_is_set_by_the_first_training_batch_and_not_again_after_a_reload():
    """FrEIA's layer keeps that flag outside of its state, and divides by the deviation of a constant column."""
    torch.manual_seed(0)
    flow = GlowCoupling(3, blocks=1, actnorm=True)
    sample = torch.randn(500, 3) * torch.tensor([5.0, 0.1, 0.0]) + 2.0
    flow().log_prob(sample)
    norm = flow.steps[0]
    z, _ = norm(sample.T, None)
    torch.testing.assert_close(z.mean(1), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.std(1), torch.tensor([1.0, 1.0, 0.0]), rtol=0, atol=1e-4)
    again = GlowCoupling(3, blocks=1, actnorm=True)
    again.load_state_dict(flow.state_dict())
    again.train()().log_prob(torch.randn(500, 3) * 100)
    assert torch.equal(again.steps[0].log_scale, norm.log_scale)


# ---------------------------------------------------------------- peers


def test_the_passes_over_columns_are_those_of_freia():
    flow = GlowCoupling(5, 3, blocks=2, hidden=16)
    y, c = torch.randn(40, 5), torch.randn(40, 3)
    theirs, ladj = y, torch.zeros(40)
    for coupling, permutation in zip(flow.steps[::2], flow.steps[1::2], strict=True):
        (theirs,), part = coupling.block((theirs,), c=[c])
        theirs, ladj = theirs[:, permutation.order], ladj + part
    z, ours = flow(c).transform.to_latent(y)
    torch.testing.assert_close(z, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, ladj, rtol=1e-5, atol=1e-5)


@given(st.integers(0, 10_000), st.integers(2, 12))
@settings(max_examples=20, deadline=None)
def test_splines_are_those_of_zuko(seed, bins):
    g = torch.Generator().manual_seed(seed)
    raw = 3 * torch.randn(4, 3 * bins - 1, 50, generator=g, dtype=torch.float64)
    x = 6 * (2 * torch.rand(4, 50, generator=g, dtype=torch.float64) - 1)
    widths, heights, slopes = (r.transpose(1, 2) for r in raw.split([bins, bins, bins - 1], 1))
    theirs = MonotonicRQSTransform(widths, heights, slopes)
    y, ladj = spline(x, knots(raw, 5.0), 5.0)
    expected, expected_ladj = theirs.call_and_ladj(x)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ladj, expected_ladj, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(spline_inverse(y, knots(raw, 5.0), 5.0)[0], x, rtol=1e-7, atol=1e-7)


@given(st.integers(0, 10_000), st.integers(2, 9), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=20, deadline=None)
def test_the_written_gradient_of_a_spline_is_that_of_autograd(seed, bins, dtype):
    g = torch.Generator().manual_seed(seed)
    raw = (2 * torch.randn(3, 3 * bins - 1, 4, 15, generator=g, dtype=torch.float64)).to(dtype).requires_grad_()
    x = (8 * torch.rand(3, 4, 15, generator=g, dtype=torch.float64) - 4).to(dtype)
    x[0, 0, :4] = torch.tensor([-3.0, 3.0, 3.5, -9.0])  # on the ends of the box, and outside
    x.requires_grad_()
    weights = torch.randn(2, *x.shape, generator=g, dtype=torch.float64).to(dtype)
    plain, written = spline(x, knots(raw, 3.0), 3.0), trained_spline(x, raw, 3.0)
    slopes = [torch.autograd.grad((weights * torch.stack(out)).sum(), [x, raw]) for out in (plain, written)]
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 2e-2, "atol": 2e-3}
    for ours, theirs in zip([*written, *slopes[1]], [*plain, *slopes[0]], strict=True):
        inner = torch.ones_like(ours, dtype=torch.bool) if ours.dim() == 4 else (x.abs() != 3)  # two slopes at the ends
        torch.testing.assert_close(ours[inner], theirs[inner], **tolerance)


def test_a_second_derivative_of_a_trained_spline_is_refused():
    x = torch.randn(1, 5, requires_grad=True)
    y, _ = trained_spline(x, torch.randn(1, 11, 5), 3.0)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        slope.sum().backward()


def test_a_masked_network_sees_only_what_comes_before():
    flow = make("affine_autoregressive", 4).double()
    y, c = torch.randn(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    step = flow.steps[0]
    given = Given(c[:, None, None], ready=False)
    dz = jacobian(lambda v: step(v[:, None, None], given)[0].squeeze(), y)
    assert torch.equal(dz, dz.tril()) and (dz.tril(-1).abs().sum(1)[1:] > 0).all()


# ---------------------------------------------------------------- finite everywhere


def sweep(n: int, features: int, generator: torch.Generator) -> torch.Tensor:
    """Far tails of both signs, ordinary values, and the edges of the spline's box and its neighbours, mixed over columns."""
    edge = 5.0
    special = torch.tensor([0.0, edge, -edge, np.nextafter(np.float32(edge), 9), 1e-30, -1e-30, 1e10, -1e10, 1e30, -1e30, 3e38])
    far = (
        torch.exp(80 * torch.rand(n, features, generator=generator) - 5) * torch.randn(n, features, generator=generator).sign()
    )
    plain = 3 * torch.randn(n, features, generator=generator)
    pick = torch.rand(n, features, generator=generator)
    chosen = special[torch.randint(len(special), (n, features), generator=generator)]
    return torch.where(pick < 0.4, plain, torch.where(pick < 0.8, far, chosen))


def assert_finite(name: str, rows: int, autocast: bool, growth: float) -> None:
    flow = make(name, 3, 4, seed=7, growth=growth)
    g = torch.Generator().manual_seed(8)
    y = sweep(rows, 3, g).requires_grad_()
    c = sweep(50, 4, g).clamp(-1e3, 1e3).repeat(rows // 50, 1)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        at = flow(c)
        log_p = at.log_prob(y)
        assert torch.isfinite(log_p).all()
        slopes = torch.autograd.grad(log_p.sum(), [y, *(p for p in flow.parameters() if p.requires_grad)])
        assert all(torch.isfinite(s).all() for s in slopes)
        z = (4 * torch.randn(rows, 3, generator=g)).requires_grad_()
        back, ladj = flow(c).transform.to_data(z)
        assert torch.isfinite(back).all() and torch.isfinite(ladj).all()
        slopes = torch.autograd.grad(
            back.sum() + ladj.sum(), [z, *(p for p in flow.parameters() if p.requires_grad)], allow_unused=True
        )
        assert all(s is None or torch.isfinite(s).all() for s in slopes)


@CONDITIONAL
@pytest.mark.parametrize("autocast", [False, True])
def test_values_and_gradients_are_finite_at_any_input(name, autocast):
    assert_finite(name, 2000, autocast, growth=2.0)


@pytest.mark.slow
@CONDITIONAL
def test_ten_million_inputs_without_one_that_is_not_finite(name):
    flow = make(name, 3, 4, seed=9, growth=2.0)
    g, bad = torch.Generator().manual_seed(10), 0
    for _ in range(100):
        c = torch.randn(200, 4, generator=g)
        y = sweep(100_000, 3, g).view(500, 200, 3).requires_grad_()
        log_p = flow(c).log_prob(y)
        (slope,) = torch.autograd.grad(log_p.sum(), y)
        bad += int((~torch.isfinite(log_p)).sum() + (~torch.isfinite(slope)).sum())
    assert bad == 0


@given(st.integers(0, 10_000), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=30, deadline=None)
def test_a_spline_is_finite_on_its_knots_and_its_slope_is_bounded(seed, dtype):
    """zuko takes the root of the discriminant unguarded; nflows aborts where rounding makes it negative."""
    g = torch.Generator().manual_seed(seed)
    raw = (60 * torch.randn(1, 29, 400, generator=g, dtype=dtype)).requires_grad_()
    k = knots(raw, 5.0)
    which = torch.randint(0, 11, (1, 1, 400), generator=g)
    for edges, function in ((k.x, spline), (k.y, spline_inverse)):
        at = torch.take_along_dim(edges, which, 1).squeeze(1).detach()
        for value in (at, torch.nextafter(at, at + 1), torch.nextafter(at, at - 1)):
            value = value.clone().requires_grad_()
            out, ladj = function(value, k, 5.0)
            assert torch.isfinite(out).all() and ladj.abs().max() < 30 and out.abs().max() <= 5.0001
            slopes = torch.autograd.grad(out.sum() + ladj.sum(), [value, raw], retain_graph=True)
            assert all(torch.isfinite(s).all() for s in slopes)


def test_a_box_holds_all_draws_and_nothing_else():
    flow = SplineAutoregressive(2, 1, transforms=3, base=Box, **SMALL)
    for parameter in flow.parameters():
        parameter.data.mul_(1.5)
    c = torch.randn(10, 1)
    draws = flow(c).sample((1000,))
    assert draws.abs().max() <= 5.0
    with torch.no_grad():
        assert torch.isfinite(flow(c).log_prob(draws)).all()
        assert torch.isneginf(flow(c).log_prob(torch.tensor([5.1, 0.0]))).all()
        axis = (torch.arange(400) + 0.5) / 40 - 5
        mass = flow(c[0]).log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1.0, abs=1e-3)


# ---------------------------------------------------------------- one dimension, mistakes


@pytest.mark.parametrize("kind", [SplineAutoregressive, AffineAutoregressive, SplineCoupling])
@pytest.mark.parametrize("context", [0, 2])
def test_one_dimension_works_too(kind, context):
    flow = kind(1, context)
    at = flow(torch.zeros(2)) if context else flow()
    axis = torch.linspace(-20, 20, 4001)[:, None]
    with torch.no_grad():
        assert at.log_prob(axis).exp().sum().item() * 0.01 == pytest.approx(1.0, abs=1e-3)
    assert at.sample((5,)).shape == (5, 1)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="at least 2 features"):
        GlowCoupling(1, 2)
    with pytest.raises(ValueError, match="mixing='twist'"):
        GlowCoupling(3, 2, mixing="twist")
    with pytest.raises(ValueError, match="is conditional"):
        GlowCoupling(3, 2)()
    with pytest.raises(ValueError, match="no context"):
        GlowCoupling(3)(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="5 columns, this flow was built for 2"):
        GlowCoupling(3, 2)(torch.zeros(1, 5))
    with pytest.raises(ValueError, match="bins >= 2"):
        SplineMap(bins=1)
    with pytest.raises(ValueError, match="dof > least"):
        StudentT(2, dof=0.1)


def test_the_seed_of_a_generator_decides_the_draws_and_leaves_the_global_one_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    for base in (None, StudentT, GaussianMixture):
        flow = make("glow") if base is None else GlowCoupling(3, 4, blocks=1, base=base)
        torch.manual_seed(1)
        c = torch.zeros(2, 4)
        a = flow(c).sample((5,), generator=torch.Generator().manual_seed(7))
        assert torch.equal(torch.rand(3), expected)
        assert torch.equal(a, flow(c).sample((5,), generator=torch.Generator().manual_seed(7)))
        assert a.shape == (5, 2, 3) and math.isfinite(a.sum())
