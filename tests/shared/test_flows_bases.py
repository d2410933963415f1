"""Bases and tails: they integrate to one, draws have the stated moments, tails the stated index, and both can be learned."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.autograd.functional import jacobian

from skyloom.errors import DataError
from skyloom.flows import (
    AffineAutoregressive,
    Box,
    GaussianMixture,
    GlowCoupling,
    Normal,
    SplineAutoregressive,
    StudentT,
    TailTransform,
    hill,
)
from skyloom.flows.tails import half_normal_quantile, log_inverse_survival

BASES = {
    "normal": Normal,
    "student_t": StudentT,
    "student_t_joint": lambda d, c=0: StudentT(d, c, joint=True),
    "student_t_scaled": lambda d, c=0: wider(StudentT(d, c, scaled=True)),
    "mixture": GaussianMixture,
    "box": Box,
}


def wider(base: StudentT) -> StudentT:
    with torch.no_grad():
        base.log_scale.copy_(torch.linspace(0.4, -0.3, len(base.log_scale)))
    return base


@pytest.mark.parametrize("name", BASES)
def test_a_base_integrates_to_one_in_two_dimensions(name):
    base = BASES[name](2).double()
    reach = 5.0 if name == "box" else 400.0 if name.startswith("student") else 12.0
    u = (torch.arange(1200, dtype=torch.float64) + 0.5) / 600 - 1
    axis = reach * u if not name.startswith("student") else reach * u**5  # fine in the middle, wide outside
    weight = reach / 600 * (torch.ones_like(u) if not name.startswith("student") else 5 * u**4)
    with torch.no_grad():
        p = base().log_prob(torch.cartesian_prod(axis, axis)).exp().view(1200, 1200)
    assert (weight @ p @ weight).item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("name", BASES)
def test_draws_have_the_distribution_that_log_prob_states(name):
    """Each coordinate alone, against the integral of its density."""
    base = BASES[name](1)
    draws = base().rsample((20_000,), torch.Generator().manual_seed(0)).detach().squeeze(1)
    axis = torch.linspace(-300, 300, 600_001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        p = base.double()().log_prob(axis).exp()
    cdf = (torch.cumsum(p, 0) - p / 2) * 1e-3
    assert stats.kstest(np.interp(draws.numpy(), axis.squeeze(1).numpy(), cdf.numpy()), "uniform").pvalue > 1e-3


def test_densities_are_those_of_scipy():
    z = torch.randn(50, 3, dtype=torch.float64) * 3
    t = StudentT(3, dof=3.5).double()
    torch.testing.assert_close(t().log_prob(z), torch.tensor(stats.t(3.5).logpdf(z.numpy())).sum(1), rtol=1e-6, atol=1e-6)
    joint = StudentT(3, dof=3.5, joint=True).double()
    expected = torch.tensor(stats.multivariate_t(np.zeros(3), np.eye(3), df=3.5).logpdf(z.numpy()))
    torch.testing.assert_close(joint().log_prob(z), expected, rtol=1e-6, atol=1e-6)
    scaled = wider(StudentT(3, dof=3.5, joint=True, scaled=True)).double()
    shape = np.diag(np.exp(2 * scaled.log_scale.detach().numpy()))
    expected = torch.tensor(stats.multivariate_t(np.zeros(3), shape, df=3.5).logpdf(z.numpy()))
    torch.testing.assert_close(scaled().log_prob(z), expected, rtol=1e-6, atol=1e-6)


def test_a_standard_normal_in_two_dimensions_costs_2838_millinats():
    z = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0))
    assert -Normal(2)().log_prob(z).mean().item() == pytest.approx(2.838, abs=0.01)


@pytest.mark.parametrize("dof", [1.0, 3.0])
def test_draws_of_a_student_t_have_its_tail(dof):
    draws = StudentT(1, dof=dof)().rsample((200_000,), torch.Generator().manual_seed(1)).detach()
    assert hill(draws, 0.002).mean().item() == pytest.approx(1 / dof, rel=0.12)


@pytest.mark.parametrize("joint", [False, True])
def test_degrees_of_freedom_are_learned(joint):
    truth = StudentT(2, dof=1.5, joint=joint)
    sample = truth().rsample((4000,), torch.Generator().manual_seed(2)).detach()
    base = StudentT(2, dof=4.0, learned=True, joint=joint)
    optimizer = torch.optim.Adam(base.parameters(), lr=0.05)
    for _ in range(120):
        loss = -base().log_prob(sample).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(base.dof, torch.full_like(base.dof, 1.5), rtol=0.1, atol=0.0)
    again = StudentT(2, learned=True, joint=joint)
    again.load_state_dict(base.state_dict())
    assert torch.equal(again.dof, base.dof)


def test_gradients_through_draws_are_those_of_the_expectation():
    """E z^2 = v / (v - 2) for a Student-T: its derivative by v through reparametrised draws."""
    base = StudentT(1, dof=9.0, learned=True)
    second = base().rsample((400_000,), torch.Generator().manual_seed(0)).square().mean()
    (slope,) = torch.autograd.grad(second, base.raw)
    dof_by_raw = torch.sigmoid(base.raw).item()
    assert second.item() == pytest.approx(9 / 7, rel=0.02)
    assert slope.item() == pytest.approx(-2 / 49 * dof_by_raw, rel=0.15)


def test_a_mixture_finds_five_modes_and_lets_the_context_weigh_them():
    modes = torch.tensor([[-4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, -4.0], [0.0, 0.0]])
    g = torch.Generator().manual_seed(0)
    which = torch.randint(5, (3000,), generator=g)
    context = torch.nn.functional.one_hot(which, 5).float()
    sample = modes[which] + 0.3 * torch.randn(3000, 2, generator=g)
    base = GaussianMixture(2, 5, components=12, by_context=True, spread=3.0, seed=0)
    optimizer = torch.optim.Adam(base.parameters(), lr=0.05)
    for _ in range(250):
        loss = -base(context).log_prob(sample).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    entropy = math.log(2 * math.pi * math.e * 0.09)
    assert loss.item() < entropy + 0.1  # the context says which mode: nothing is left but its width
    draws = base(torch.eye(5)).rsample((500,), torch.Generator().manual_seed(1)).detach()
    assert ((draws - modes).norm(dim=-1) < 1.5).float().mean() > 0.97


# ---------------------------------------------------------------- tails


@given(st.floats(1e-3, 2.0), st.floats(1e-3, 2.0), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_tail_transform_inverts_and_its_slope_is_the_formula(lower, upper, seed):
    tails = TailTransform(2, shape=torch.tensor([[lower], [upper]])).double()
    tails.location.data[:] = torch.tensor([0.3, -1.0])
    tails.log_scale.data[:] = torch.tensor([0.2, -0.7])
    z = 6 * (2 * torch.rand(2, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1)
    y, ladj = tails.inverse(z, None)
    back, same = tails(y, None)
    torch.testing.assert_close(back, z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(same, ladj, rtol=1e-8, atol=1e-8)
    shape = torch.where(z[0] < 0, tails.shape[0, 0], tails.shape[1, 0])
    formula = tails.log_scale[0].exp() * math.sqrt(2 / math.pi) * torch.exp(-(z[0] ** 2) / 2)
    formula = formula * torch.special.erfc(z[0].abs() / math.sqrt(2)) ** (-shape - 1)
    (slope,) = torch.autograd.grad(tails.inverse(leaf := z.clone().requires_grad_(), None)[0][0].sum(), leaf)
    torch.testing.assert_close(slope[0], formula, rtol=1e-6, atol=1e-6)
    dz = jacobian(lambda v: tails(v[:, None], None)[0].squeeze(1), y[:, 3].detach())
    torch.testing.assert_close(torch.linalg.slogdet(dz)[1], ladj[:, 3].sum(), rtol=1e-8, atol=1e-8)


def test_the_half_normal_quantile_is_exact_from_zero_to_where_erfc_underflows():
    size = torch.cat([torch.tensor([0.0, 1e-12, 1e-6]), torch.linspace(0.001, 300, 4000)]).double()
    torch.testing.assert_close(half_normal_quantile(log_inverse_survival(size)), size, rtol=1e-10, atol=1e-10)
    level = torch.rand(5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(half_normal_quantile, (level,))


@pytest.mark.parametrize("shape", [0.5, 1.0])
def test_a_gaussian_behind_the_transform_has_tails_of_the_stated_index(shape):
    z = torch.randn(1, 1_000_000, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        y, _ = TailTransform(1, shape=shape).inverse(z, None)
    assert hill(y.T, 1e-3).mean().item() == pytest.approx(shape, abs=0.02 if shape < 1 else 0.04)


def _fit(flow, sample, steps=250, rate=1e-2):
    optimizer = torch.optim.Adam([p for p in flow.parameters() if p.requires_grad], lr=rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    g = torch.Generator().manual_seed(0)
    for _ in range(steps):
        loss = -flow().log_prob(sample[torch.randint(len(sample), (512,), generator=g)]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        optimizer.step()
        decay.step()
    return flow.eval()


def test_only_heavy_bases_and_tail_transforms_describe_a_power_law():
    """Student-T(3) data: a spline flow on a Gaussian pays in likelihood, both remedies reach the entropy."""
    truth = torch.distributions.StudentT(3.0)
    torch.manual_seed(0)
    sample, test = truth.sample((20_000, 1)), truth.sample((50_000, 1))
    entropy = stats.t(3).entropy().item()
    plain = {"transforms": 1, "hidden": (8,), "identity_start": True}
    found = {}
    for name, flow in {
        "normal": SplineAutoregressive(1, **plain),
        "student": SplineAutoregressive(1, base=lambda d, c: StudentT(d, c, learned=True), **plain),
        "tails": SplineAutoregressive(1, tails=lambda d: TailTransform(d, shape=hill(sample, 0.02)), **plain),
    }.items():
        _fit(flow, sample, rate=3e-2)
        with torch.no_grad():
            excess = -flow().log_prob(test).mean().item() - entropy
        draws = flow().sample((400_000,), torch.Generator().manual_seed(1))
        found[name] = (excess, hill(draws, 5e-4).mean().item())
    assert found["normal"][0] > 0.03 and found["normal"][1] < 0.15
    for name in ("student", "tails"):
        assert found[name][0] < 0.02
        assert found[name][1] == pytest.approx(1 / 3, abs=0.1)


def test_the_two_sides_have_tails_of_their_own_on_cauchy_like_and_bounded_data():
    """Below a power law of index 1, above an edge: draws have a heavy lower tail and no upper one."""
    g = torch.Generator().manual_seed(4)
    u = torch.rand(20_000, 1, generator=g)
    sample = torch.where(torch.rand(20_000, 1, generator=g) < 0.5, -(1 / u - 1), torch.rand(20_000, 1, generator=g))
    start = torch.tensor([hill(sample, 0.01)[0].item(), 0.1])[:, None]
    flow = SplineAutoregressive(
        1, transforms=1, hidden=(8,), identity_start=True, tails=lambda d: TailTransform(d, shape=start)
    )
    _fit(flow, sample, rate=3e-2)
    draws = flow().sample((400_000,), torch.Generator().manual_seed(1))
    assert hill(draws, 1e-3)[0].item() == pytest.approx(1.0, abs=0.2)
    assert draws.quantile(0.9999) < 3.0 and (sample > 1).sum() == 0


def test_hill_recovers_a_pareto_index_and_asks_for_enough_rows():
    u = torch.rand(100_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pareto = torch.cat([u**-0.7, -(u**-0.7)])
    torch.testing.assert_close(hill(pareto, 0.01), torch.full((2, 1), 0.7, dtype=torch.float64), rtol=0.06, atol=0)
    with pytest.raises(DataError, match="too few"):
        hill(torch.zeros(20, 1))


def test_a_conditional_gaussian_is_reached_by_every_kind_of_flow():
    """y = A c + L eps: its entropy is 0.5 ln det(2 pi e L L^T)."""
    torch.manual_seed(0)
    a, scale = 0.5 * torch.randn(2, 2), torch.tensor([[0.6, 0.0], [0.4, 0.3]])
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * scale @ scale.T).item()
    for flow in (
        GlowCoupling(2, 2, blocks=3, hidden=24, identity_start=True, mixing="rotation", actnorm=True),
        SplineAutoregressive(2, 2, transforms=2, hidden=(32, 32), identity_start=True),
        AffineAutoregressive(2, 2, transforms=2, hidden=(24,), identity_start=True),
    ):
        optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 250)
        for _ in range(250):
            c = torch.randn(256, 2)
            loss = -flow(c).log_prob(c @ a.T + torch.randn(256, 2) @ scale.T).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
        c = torch.randn(20_000, 2)
        with torch.no_grad():
            excess = -flow.eval()(c).log_prob(c @ a.T + torch.randn(20_000, 2) @ scale.T).mean().item() - entropy
        assert -0.02 < excess < 0.05, type(flow)
