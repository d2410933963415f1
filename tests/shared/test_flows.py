"""Laws of the flows: what goes in comes out, densities integrate, Jacobians are those of autograd."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from FrEIA.modules import GLOWCouplingBlock, PermuteRandom
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.functional import jacobian

from skyloom.flows import (
    Affine,
    AroundRegression,
    Chain,
    Complement,
    GlowCoupling,
    Identity,
    InUserUnits,
    Log,
    Logit,
    PerColumn,
    Relative,
    Saturation,
    Standardise,
    Whiten,
    from_json,
)

SINCE = Chain(Complement(1, offset=13.8, slope=-1.0), Log())
EVERY = PerColumn([SINCE, Identity(), Log(0.0999), Logit(0.0, 1.05), Affine(-3.0, 0.2)])
BENT = PerColumn([Identity(), Identity(), Identity(), Saturation(1.2, 6.0), Identity()])
MIXED = Whiten([1.0, 0.0, -1.0, 0.3, 2.0], np.eye(5) + np.tril(np.full((5, 5), 0.3)))
SCALED = Chain(BENT, Relative(3, to=2, over=1), PerColumn([SINCE, Log(), Log(0.0999), Log(), Identity()]), MIXED)
PLAIN = Chain(EVERY, Standardise([1.0, 0.0, -1.0, 0.3, 2.0], [0.5, 2.0, 1.5, 0.7, 3.0]))


def inside(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points in the support of `SCALED`, and a context whose column 1 is a lookback time."""
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(n, 7, generator=g, dtype=torch.float64) * 0.98 + 0.01
    context = torch.stack([u[:, 5], 8 * u[:, 6]], 1)
    y = torch.stack([(13.8 - context[:, 1]) * u[:, 0], 9 * u[:, 1] + 0.1, 0.1 + 5 * u[:, 2], u[:, 3], u[:, 4] - 2], 1)
    return y, context


def trained_like(seed: int = 0, growth: float = 2.0, **sizes) -> GlowCoupling:
    """A flow whose weights are `growth` times those of an initialisation, which is close to a translation."""
    torch.manual_seed(seed)
    flow = GlowCoupling(6, 7, **sizes)
    for parameter in flow.parameters():
        parameter.data.mul_(growth)
    return flow


@pytest.mark.parametrize("transform", [PLAIN, SCALED])
@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_a_transform_returns_what_it_was_given(transform, seed):
    y, context = inside(20, seed)
    z, _ = transform(y, context)
    torch.testing.assert_close(transform.inverse(z, context), y, rtol=1e-9, atol=1e-9)
    assert transform.supports(y, context).all()


@pytest.mark.parametrize("transform", [PLAIN, SCALED])
def test_log_derivatives_are_those_of_autograd(transform):
    y, context = inside(12, 3)
    _, ladj = transform(y, context)
    for row in range(len(y)):
        dz = jacobian(lambda v, c=context[row]: transform(v, c)[0], y[row])
        torch.testing.assert_close(torch.linalg.slogdet(dz)[1], ladj[row].sum(), rtol=1e-9, atol=1e-9)


def test_json_rebuilds_a_transform_exactly_even_after_it_was_cast():
    y, context = inside(5, 1)
    text = json.dumps(SCALED.to_json())
    again = from_json(json.loads(text))
    assert torch.equal(again(y, context)[0], SCALED(y, context)[0])
    assert json.dumps(copy.deepcopy(SCALED).float().to_json()) == text


def test_standardised_rows_have_mean_zero_and_unit_variance():
    sample = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1.0, 1e5]) + 7
    z, _ = Standardise.fit(sample)(sample.double())
    torch.testing.assert_close(z.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_whitened_rows_are_uncorrelated_in_the_order_of_the_columns():
    g = torch.Generator().manual_seed(0)
    mass = torch.randn(2000, 1, generator=g).double()
    sample = torch.cat([mass, 2 * mass + 1e-3 * torch.randn(2000, 1, generator=g).double()], 1)
    whiten = Whiten.fit(sample)
    z, _ = whiten(sample)
    torch.testing.assert_close(z.T.cov(correction=0), torch.eye(2, dtype=torch.float64), atol=1e-3, rtol=0)
    torch.testing.assert_close(z[:, :1], (mass - mass.mean()) / mass.std(correction=0), atol=1e-6, rtol=0)


def test_a_saturating_quantity_is_itself_far_from_its_ceiling_and_never_beyond():
    saturation = Saturation(1.0, 8.0)
    z = torch.tensor([0.01, 0.3, 1.0, 30.0, 1e8], dtype=torch.float64)
    y = saturation.inverse(z)
    torch.testing.assert_close(y[:2], z[:2], rtol=1e-4, atol=0)
    assert (y <= 1).all()
    assert torch.isfinite(saturation.inverse(torch.tensor([1e30]))).all()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="constant"):
        Standardise.fit(torch.ones(4, 2))
    with pytest.raises(ValueError, match="low < high"):
        Logit(1.0, 0.0)
    with pytest.raises(ValueError, match="no transform is called 'cube'"):
        from_json({"kind": "cube"})
    with pytest.raises(ValueError, match="context"):
        SCALED(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="5 columns"):
        SCALED(torch.zeros(2, 4), torch.zeros(2, 2))


def test_the_published_size_has_52368_parameters():
    assert sum(p.numel() for p in GlowCoupling(6, 7, blocks=12, hidden=128, clamp=2.0).parameters()) == 52_368


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_sampling_inverts_the_density_pass(dtype, tolerance):
    assert _round_trip(1.0, dtype).max() < tolerance


def test_a_clamp_of_two_over_twelve_blocks_loses_the_digits_of_some_rows():
    """Why the default clamp is 1: the published size, fresh, sends one row in a thousand far enough to lose digits."""
    error = _round_trip(2.0, torch.float32)
    assert error.median() < 1e-5
    assert error.max() > 1e-4


def _round_trip(clamp: float, dtype: torch.dtype) -> torch.Tensor:
    flow = trained_like(growth=1.0, blocks=12, hidden=128, clamp=clamp).to(dtype)
    y, x = torch.randn(1000, 6, dtype=dtype), torch.randn(1000, 7, dtype=dtype)
    transform = flow(x).transform
    z, _ = transform.call_and_ladj(y)
    return (transform.inv(z) - y).abs().amax(1).detach()


def test_log_determinant_is_that_of_the_autograd_jacobian():
    flow = trained_like(blocks=6, hidden=32, clamp=1.0).double()
    y, x = torch.randn(8, 6, dtype=torch.float64), torch.randn(8, 7, dtype=torch.float64)
    _, ladj = flow(x).transform.call_and_ladj(y)
    for row in range(8):
        dz = jacobian(lambda v, c=x[row]: flow(c).transform.call_and_ladj(v)[0], y[row])
        torch.testing.assert_close(torch.linalg.slogdet(dz)[1], ladj[row], rtol=1e-7, atol=1e-7)


def test_both_halves_move_in_one_block_and_the_clamp_is_a_soft_arctangent():
    """u1 = y1 exp(c(s2)) + t2, then u2 = y2 exp(c(s1)) + t1, c(s) = clamp 0.636 arctan s: written out by hand."""
    flow = trained_like(blocks=1, hidden=16, clamp=1.7).double()
    coupling = flow.steps[0].block
    assert isinstance(coupling, GLOWCouplingBlock)
    y, x = torch.randn(50, 6, dtype=torch.float64), torch.randn(50, 7, dtype=torch.float64)

    def clamped(s):
        return 1.7 * 0.636 * torch.arctan(s)

    s2, t2 = coupling.subnet2(torch.cat([y[:, 3:], x], 1)).split(3, dim=1)
    u1 = y[:, :3] * clamped(s2).exp() + t2
    s1, t1 = coupling.subnet1(torch.cat([u1, x], 1)).split(3, dim=1)
    u2 = y[:, 3:] * clamped(s1).exp() + t1
    order = np.random.RandomState(0).permutation(6)
    z, ladj = flow(x).transform.call_and_ladj(y)
    torch.testing.assert_close(z, torch.cat([u1, u2], 1)[:, order])
    torch.testing.assert_close(ladj, clamped(s1).sum(1) + clamped(s2).sum(1))
    assert (z[:, np.argsort(order)] != y).all()  # no half is frozen


def test_a_block_stretches_by_at_most_its_clamp():
    flow = trained_like(blocks=1, clamp=2.0).double()
    for parameter in flow.parameters():
        parameter.data.mul_(1e6)
    _, ladj = flow(torch.randn(200, 7, dtype=torch.float64)).transform.call_and_ladj(torch.randn(200, 6).double())
    assert ladj.abs().max() <= 6 * 2.0 * 0.636 * math.pi / 2 + 1e-9
    assert ladj.abs().max() > 6 * 1.9


def test_permutations_are_those_of_freia_seeded_by_the_block_and_leave_numpy_alone():
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    flow = GlowCoupling(6, 7, blocks=3)
    np.testing.assert_array_equal(np.random.random(3), expected)  # noqa: NPY002
    for k in range(3):
        theirs = PermuteRandom([(6,)], seed=k).perm
        torch.testing.assert_close(flow.steps[2 * k + 1].order, theirs.data)
    assert all(p.is_floating_point() for p in flow.parameters())


def test_an_identity_start_gives_three_nats_without_the_constant():
    flow = GlowCoupling(6, 7, identity_start=True)
    sample = torch.randn(4000, 6, generator=torch.Generator().manual_seed(1))
    z, _ = Standardise.fit(sample)(sample)
    nll = -flow(torch.randn(4000, 7)).log_prob(z).mean().item()
    assert nll - 3 * math.log(2 * math.pi) == pytest.approx(3.0, abs=1e-3)


def test_samples_follow_the_density():
    """Importance-weighted volume: E[q(y) / p(y)] over draws of p is the integral of q, which is one."""
    flow = trained_like(blocks=2, hidden=16, clamp=0.5)
    posterior = flow(torch.zeros(1, 7))
    torch.manual_seed(0)
    y = posterior.sample((40_000,)).detach()
    centre, spread = y.mean(0), 0.6 * y.std(0)
    q = torch.distributions.Independent(torch.distributions.Normal(centre, spread), 1)
    weight = (q.log_prob(y) - posterior.log_prob(y)).exp().mean()
    assert weight.item() == pytest.approx(1.0, abs=0.1)


def test_leading_axes_broadcast_and_the_seed_decides_the_draws():
    flow = trained_like(blocks=2)
    x = torch.randn(5, 7)
    torch.manual_seed(3)
    y = flow(x).sample((10,))
    torch.manual_seed(3)
    assert torch.equal(flow(x).sample((10,)), y)
    each = torch.stack([flow(x[k]).log_prob(y[:, k]) for k in range(5)], 1)
    torch.testing.assert_close(flow(x).log_prob(y), each)


def test_density_in_user_units_is_changed_by_the_jacobian_alone():
    """Relabelling kilometres as metres shifts ln p by -ln 1000 per column and moves nothing else."""
    flow = trained_like(blocks=2).double()
    x, km = torch.randn(9, 7).double(), torch.rand(9, 6).double() + 0.5
    scale = Standardise(torch.zeros(7), torch.ones(7))
    in_km = InUserUnits(flow, Log(), scale)
    in_m = InUserUnits(flow, Chain(Affine(0.0, 1000.0), Log()), scale)
    expected = in_km(x).log_prob(km) - 6 * math.log(1000)
    torch.testing.assert_close(in_m(x).log_prob(1000 * km), expected)
    user, scaled = in_m(x).log_probs(1000 * km)
    torch.testing.assert_close(user - scaled, -6 * math.log(1000) - km.log().sum(1))


@pytest.mark.parametrize("transform", [PLAIN, SCALED])
def test_nothing_is_drawn_outside_the_support_and_nothing_is_likely_there(transform):
    y, context = inside(50, 7)
    flow = InUserUnits(GlowCoupling(5, 2, blocks=4), transform, Standardise([0.5, 4.0], [0.3, 2.3]))
    posterior = flow(context.float())
    draws = posterior.sample((200,))
    assert (draws[..., 0] <= 13.8 - context[:, 1].float()).all()
    assert (draws[..., 2] >= 0.0999).all()
    assert (draws[..., 3] <= (1.2 if transform is SCALED else 1.05) * (1 + 1e-6)).all()
    late = y.clone()
    late[:, 0] = 14.5 - context[:, 1]
    assert torch.isneginf(posterior.log_prob(late.float())).all()
    assert torch.isfinite(posterior.log_prob(y.float())).all()


def test_a_flow_around_a_regression_starts_as_that_regression():
    g = torch.Generator().manual_seed(0)
    a, b, l = (
        torch.randn(7, 6, generator=g),
        torch.randn(6, generator=g),
        torch.randn(6, 6, generator=g).tril(-1) + torch.eye(6),
    )
    flow = AroundRegression(GlowCoupling(6, 7, blocks=3, identity_start=True), a, b, l @ l.T)
    w, z = torch.randn(20, 7, generator=g), torch.randn(20, 6, generator=g)
    exact = torch.distributions.MultivariateNormal(w @ a + b, scale_tril=l)
    torch.testing.assert_close(flow(w).log_prob(z), exact.log_prob(z), rtol=1e-4, atol=1e-4)
    moved = AroundRegression(trained_like(blocks=3, hidden=16, clamp=0.5), a, b, l @ l.T)
    transform = moved(w).transform
    u, ladj = transform.call_and_ladj(z)
    torch.testing.assert_close(transform.inv(u), z, rtol=1e-3, atol=1e-3)
    dz = jacobian(lambda v: moved(w[0]).transform.call_and_ladj(v)[0], z[0])
    torch.testing.assert_close(torch.linalg.slogdet(dz)[1], ladj[0], rtol=1e-3, atol=1e-3)


def test_training_reaches_the_entropy_of_a_linear_gaussian():
    """y = A x + L eps has conditional entropy 0.5 ln det(2 pi e L L'); a flow must come within 0.05 nat of it."""
    torch.manual_seed(0)
    a, scale = torch.randn(3, 2), torch.tensor([[0.7, 0, 0], [0.4, 0.3, 0], [-0.2, 0.1, 0.5]])
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * scale @ scale.T).item()
    flow = GlowCoupling(3, 2, blocks=4, hidden=32, identity_start=True)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)

    def draw(n):
        x = torch.randn(n, 2)
        return x, x @ a.T + torch.randn(n, 3) @ scale.T

    for _ in range(200):
        x, y = draw(256)
        loss = -flow(x).log_prob(y).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    x, y = draw(20_000)
    with torch.no_grad():
        excess = -flow(x).log_prob(y).mean().item() - entropy
    assert -0.02 < excess < 0.05
