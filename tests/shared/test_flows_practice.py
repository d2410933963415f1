"""What a user leans on: the mode, hard bounds, missing observables, the alarm for the unfamiliar, the example of the docs."""

import json
import math
import re
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from skyloom.errors import DataError
from skyloom.flows import (
    AroundRegression,
    Box,
    Chain,
    ContextMLP,
    GlowCoupling,
    InUserUnits,
    Log,
    Logit,
    MaskedContext,
    OutsideSupport,
    SplineAutoregressive,
    Standardise,
    TrainingSupport,
    hide,
)

# ---------------------------------------------------------------- the mode


def gaussian(features=4, context=3, seed=0):
    """A flow that is exactly N(A^T c + b, L L^T)."""
    torch.manual_seed(seed)
    a, b = torch.randn(context, features), torch.randn(features)
    l = torch.randn(features, features).tril(-1) * 0.5 + torch.diag(torch.rand(features) + 0.3)
    inner = SplineAutoregressive(features, context, transforms=1, hidden=(8,), identity_start=True)
    return AroundRegression(inner, a, b, l @ l.T).eval(), a, b, l


def test_the_mode_of_a_gaussian_is_its_mean():
    flow, a, b, l = gaussian()
    c = torch.randn(20, 3)
    found = flow(c).map_estimate(draws=500, generator=torch.Generator().manual_seed(0))
    error = torch.linalg.solve_triangular(l, (found - c @ a - b).T, upper=False)
    assert error.abs().max() < 0.05  # in deviations
    with torch.no_grad():  # as at inference
        assert torch.equal(found, flow(c).map_estimate(draws=500, generator=torch.Generator().manual_seed(0)))


def test_the_mode_is_never_less_probable_than_the_best_draw():
    torch.manual_seed(1)
    flow = GlowCoupling(3, 2, blocks=4, hidden=32).eval()
    c = torch.randn(10, 2)
    _, log_p = flow(c).sample_and_log_prob((500,), torch.Generator().manual_seed(3))
    found = flow(c).map_estimate(draws=500, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert (flow(c).log_prob(found) >= log_p.max(0).values - 1e-4).all()


def test_the_mode_is_that_of_the_density_in_the_users_units_and_inside_the_support():
    """ln y ~ N(m, s): the maximum of p(y) is exp(m - s^2), not exp(m); and a density that rises to an edge ends at the edge."""
    flow, _, b, l = gaussian(2, 1)
    posterior = InUserUnits(flow, Log(), Standardise([0.0], [1.0])).eval()(torch.zeros(3, 1))
    found = posterior.map_estimate(draws=2000, steps=100, generator=torch.Generator().manual_seed(0))
    mean, covariance = b, l @ l.T
    expected = torch.exp(mean - covariance.sum(1))  # stationary point of the bivariate lognormal
    torch.testing.assert_close(found, expected.expand(3, -1), rtol=0.05, atol=1e-3)


def test_a_kernel_of_one_width_for_all_units_is_not_a_mode_and_this_is():
    """Skew normal of deviation 0.15: the published estimator's kernel of width 0.5 returns about the mean."""
    shape, scale = 6.0, 0.15 / stats.skewnorm(6.0).std()
    law = stats.skewnorm(shape, scale=scale)
    draws = law.rvs(4000, random_state=0)
    grid = np.linspace(draws.min(), draws.max(), 2000)
    mode = grid[law.pdf(grid).argmax()]
    wide = np.linspace(draws.min(), draws.max(), 200)
    kernel = np.exp(-0.5 * ((wide[:, None] - draws) / 0.5) ** 2).sum(1)
    assert abs(wide[kernel.argmax()] - mode) > 0.3 * 0.15
    torch.manual_seed(0)
    sample = torch.tensor(draws, dtype=torch.float32)[:, None]
    flow = InUserUnits(SplineAutoregressive(1, transforms=1, hidden=(8,), identity_start=True), Standardise.fit(sample))
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(200):
        loss = -flow().log_prob(sample).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(flow.eval()().map_estimate().item() - mode) < 0.25 * 0.15


# ---------------------------------------------------------------- bounds by construction


def test_nothing_leaks_and_drawing_costs_the_same_however_narrow_the_prior_is():
    times = []
    for width in (100.0, 1e-3):
        torch.manual_seed(0)
        flow = InUserUnits(SplineAutoregressive(3, 2, transforms=2, hidden=(32, 32)), Logit(-width, width), None).eval()
        at = flow(torch.randn(50, 2))
        at.sample((10,))
        began = time.process_time()
        draws = at.sample((400,))
        times.append(time.process_time() - began)
        assert (draws.abs() < width).all()
        with torch.no_grad():
            assert torch.isfinite(at.log_prob(draws)).all()
    assert 0.2 < times[1] / times[0] < 5


def test_the_density_on_a_bounded_support_integrates_to_one():
    torch.manual_seed(0)
    axis = (torch.arange(600) + 0.5) / 300 - 1  # [-1, 1]
    grid = torch.cartesian_prod(axis, axis)
    for target, base in ((Logit(-1.0, 1.0), None), (Standardise([0.0, 0.0], [0.2, 0.2]), Box)):
        flow = InUserUnits(SplineAutoregressive(2, 1, transforms=2, hidden=(16,), base=base), target, None)
        with torch.no_grad():
            assert flow(torch.zeros(1)).log_prob(grid).exp().sum().item() / 300**2 == pytest.approx(1.0, abs=2e-3)


# ---------------------------------------------------------------- missing observables


def test_one_flow_answers_for_every_subset_of_the_observables_and_widens_without_them():
    """y = x1 + x2 + noise: without x2 the variance grows by that of x2; without both it is the prior's."""
    torch.manual_seed(0)
    flow = SplineAutoregressive(
        1, 2, transforms=1, hidden=(32,), identity_start=True, embed=lambda c: MaskedContext(c, ContextMLP)
    )
    optimizer = torch.optim.Adam(flow.parameters(), lr=4e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
    for _ in range(500):
        x = torch.randn(512, 2)
        y = x.sum(1, keepdim=True) + 0.5 * torch.randn(512, 1)
        loss = -flow(hide(x, 0.5)).log_prob(y).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    nan = math.nan
    at = flow.eval()(torch.tensor([[0.5, -0.2], [0.5, nan], [nan, nan]]))
    draws = at.sample((20_000,), torch.Generator().manual_seed(0)).squeeze(-1)
    torch.testing.assert_close(draws.mean(0), torch.tensor([0.3, 0.5, 0.0]), rtol=0, atol=0.15)
    torch.testing.assert_close(draws.std(0), torch.tensor([0.5, 1.25**0.5, 1.5]), rtol=0.12, atol=0)


def test_hiding_hides_the_stated_share_and_never_what_must_be_seen():
    hidden = torch.isnan(hide(torch.zeros(20_000, 5), 0.3, torch.Generator().manual_seed(0), always_seen=(4,)))
    assert hidden[:, :4].float().mean().item() == pytest.approx(0.27, abs=0.01)  # one row in ten is left complete
    assert not hidden[:, 4].any()
    assert hidden[:, :4].all(1).any() and (~hidden).all(1).float().mean() > 0.1


# ---------------------------------------------------------------- the alarm


def crescent(n: int, seed: int) -> torch.Tensor:
    """A curved, skewed cloud in five dimensions: not an ellipsoid."""
    e = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
    return torch.stack([e[:, 0], e[:, 0] ** 2 + 0.3 * e[:, 1], e[:, 2].exp(), e[:, 3] + e[:, 0], e[:, 4]], 1)


def test_the_alarm_rings_as_often_as_it_says_and_finds_what_is_strange():
    support = TrainingSupport.fit(crescent(4000, 0), alarm=0.01)
    false = [(~support.familiar(crescent(2000, k))).float().mean().item() for k in range(1, 6)]
    assert max(false) < 0.025 and np.mean(false) < 0.015
    plain = crescent(1000, 9)
    shifted = plain + torch.tensor([0.0, 0.0, 0.0, 0.0, 6.0])  # one observable, six deviations
    units = plain * torch.tensor([1.0, 1.0, 10.0, 1.0, 1.0])  # a wrong unit, of a quantity that spans that much anyway
    detected = [(~support.familiar(x)).float().mean().item() for x in (shifted, units)]
    assert detected[0] > 0.9 and detected[1] > 0.15


def test_the_alarm_sees_a_hole_that_no_range_and_no_ellipsoid_sees():
    angle, noise = 2 * math.pi * torch.rand(3000, generator=torch.Generator().manual_seed(0)), torch.randn(3000, 2)
    ring = torch.stack([3 * angle.cos(), 3 * angle.sin(), noise[:, 0]], 1) + 0.1 * noise[:, 1:]
    centre = torch.tensor([[0.0, 0.0, z] for z in (-1.0, 0.0, 1.0)])
    assert not TrainingSupport.fit(ring).familiar(centre).any()


def test_the_alarm_knows_what_is_missing():
    support = TrainingSupport.fit(crescent(3000, 0), alarm=0.02)
    rows = crescent(2000, 5)
    rows[:, 2:] = math.nan
    assert (~support.familiar(rows)).float().mean() < 0.04
    rows[:, 1] = 9.0
    assert (~support.familiar(rows)).float().mean() > 0.9
    assert support.familiar(torch.full((2, 5), math.nan)).all()
    again = TrainingSupport.from_json(json.loads(json.dumps(support.to_json())))
    torch.testing.assert_close(again.p_value(rows[:50]), support.p_value(rows[:50]), rtol=0, atol=2e-3)
    with pytest.raises(DataError, match="cannot support an alarm"):
        TrainingSupport.fit(crescent(100, 0), alarm=0.01)


def test_a_flow_in_evaluation_warns_of_contexts_unlike_its_training():
    train = crescent(3000, 0)
    flow = InUserUnits(GlowCoupling(2, 5, blocks=1), Log(), Standardise.fit(train), TrainingSupport.fit(train)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow(crescent(500, 1)).sample()
        flow.train()(torch.full((3, 5), 50.0))
    with pytest.warns(OutsideSupport, match="4 of 4 contexts"):
        flow.eval()(torch.full((4, 5), 50.0)).sample((2,))
    assert flow.familiar(torch.cat([train[:1], train[:1] + 50])).tolist() == [True, False]


# ---------------------------------------------------------------- unconditional, in user units; the documentation


def test_a_flow_without_context_works_in_user_units_too():
    flow = InUserUnits(GlowCoupling(2, blocks=2), Chain(Log(), Standardise([0.0, 0.0], [0.5, 0.5])))
    y, log_p = flow().sample_and_log_prob((100,))
    with torch.no_grad():
        torch.testing.assert_close(flow().log_prob(y), log_p, rtol=1e-3, atol=1e-3)
    assert y.shape == (100, 2) and (y > 0).all()


def test_the_example_of_the_documentation_runs():
    page = (Path(__file__).parents[2] / "docs" / "flows.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) >= 3
    space: dict = {}
    for block in blocks:
        exec(compile(block, "docs/flows.md", "exec"), space)
