"""Every data transform inverts, has autograd's slope, is rebuilt from its JSON, and keeps its inverse inside its support."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from skyloom.errors import ConfigError, DataError
from skyloom.flows import (
    Affine,
    Chain,
    InUserUnits,
    Log,
    Log10,
    Logit,
    PerColumn,
    Quantile,
    Saturation,
    SplineAutoregressive,
    Standardise,
    Whiten,
    YeoJohnson,
    fit,
    from_json,
)

SKEWED = torch.exp(torch.randn(3000, 1, generator=torch.Generator().manual_seed(0)).double()) - 0.7
TRANSFORMS = {
    "affine": (Affine(-3.0, 0.2), -9.0, 9.0),
    "log": (Log(0.1), 0.1001, 60.0),
    "log10": (Log10(), 1e-3, 1e4),
    "logit": (Logit(-1.0, 2.0), -0.9999, 1.9999),
    "saturation": (Saturation(1.2, 6.0), 1e-3, 1.15),
    "quantile": (Quantile.fit(SKEWED), -3.0, 60.0),
    "yeo_johnson": (YeoJohnson(0.3), -30.0, 30.0),
    "yeo_johnson_0": (YeoJohnson(0.0), -30.0, 30.0),
    "yeo_johnson_2": (YeoJohnson(2.0), -30.0, 30.0),
    "chain": (Chain(Log10(), Quantile.fit(SKEWED.abs().log10()), YeoJohnson(1.4), Affine(0.3, 2.0)), 1e-3, 1e3),
}
EACH = pytest.mark.parametrize("name", TRANSFORMS)


@EACH
@given(st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_a_transform_inverts_and_its_slope_is_that_of_autograd(name, seed):
    transform, low, high = TRANSFORMS[name]
    u = torch.rand(60, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = (low + (high - low) * u).requires_grad_()
    z, ladj = transform(y)
    torch.testing.assert_close(transform.inverse(z), y, rtol=1e-9, atol=1e-9)
    (slope,) = torch.autograd.grad(z.sum(), y, create_graph=True)
    torch.testing.assert_close(slope.log(), ladj, rtol=1e-8, atol=1e-8)
    if name != "affine":  # whose slope does not vary
        (curvature,) = torch.autograd.grad(ladj.sum(), y, retain_graph=True)
        (again,) = torch.autograd.grad(slope.log().sum(), y)
        torch.testing.assert_close(curvature, again, rtol=1e-6, atol=1e-6)
    single = transform(y.detach().float())[0]
    torch.testing.assert_close(transform.inverse(single).double(), y.detach(), rtol=1e-4, atol=1e-4)


@EACH
def test_json_rebuilds_a_transform_to_the_last_bit(name):
    transform, low, high = TRANSFORMS[name]
    y = torch.linspace(low, high, 200, dtype=torch.float64)[:, None]
    again = from_json(json.loads(json.dumps(transform.to_json())))
    for ours, theirs in zip(again(y), transform(y), strict=True):
        assert torch.equal(ours, theirs)


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_of_anything_is_finite_and_inside_the_support(name, dtype):
    """No draw lies on an edge, where its own density would be zero (a logit's sigmoid rounds to one beyond 17)."""
    transform, _, _ = TRANSFORMS[name]
    z = torch.tensor([-1e30, -1e4, -200.0, -40.0, -17.0, 0.0, 1e-20, 17.0, 40.0, 200.0, 1e4, 1e30], dtype=dtype)[:, None]
    z = z[z > 0][:, None] if name == "saturation" else z
    z = z.clamp(-30, 30) if name == "chain" else z
    y = transform.inverse(z)
    assert torch.isfinite(y).all()
    assert transform.supports(y).all()


def test_yeo_johnson_agrees_with_scipy_in_value_and_in_fitted_power():
    y = np.linspace(-4, 4, 81)
    for power in (0.0, 0.4, 1.0, 1.7, 2.0):
        ours = YeoJohnson(power)(torch.tensor(y))[0].numpy()
        np.testing.assert_allclose(ours, stats.yeojohnson(y, power), rtol=1e-9, atol=1e-9)
    skewed = SKEWED[:, 0] / 3
    assert YeoJohnson.fit(SKEWED / 3).power.item() == pytest.approx(max(0.0, stats.yeojohnson(skewed.numpy())[1]), abs=1e-3)
    with pytest.raises(ValueError, match=r"\[0, 2\]"):
        YeoJohnson(-0.5)


def test_quantiles_become_normal_and_the_map_has_no_edge():
    """scikit-learn's clips outside of its training range: what lies beyond could not be told apart, nor drawn."""
    held_out = torch.exp(torch.randn(3000, 1, generator=torch.Generator().manual_seed(1)).double()) - 0.7
    z, ladj = Quantile.fit(SKEWED)(held_out)
    assert stats.kstest(z.numpy().ravel(), "norm").pvalue > 1e-3
    assert torch.isfinite(ladj).all()
    far = torch.tensor([[-500.0], [-499.0], [1e4], [1e4 + 1]], dtype=torch.float64)
    assert (Quantile.fit(SKEWED)(far)[0].diff(dim=0) > 0).all()
    ties = torch.tensor([0.0] * 40 + [1.0] * 30 + [2.0] * 30)
    assert torch.isfinite(Quantile.fit(ties)(ties[:, None])[0]).all()
    with pytest.raises(DataError, match="20 finite values"):
        Quantile.fit(torch.zeros(3))
    with pytest.raises(DataError, match="does not vary"):
        Quantile.fit(torch.ones(50))


MIXED = ["log10", {"kind": "logit", "low": 0.0, "high": 1.0}, "quantile", "yeo_johnson", "standardise"]


def catalogue(n: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    e = torch.randn(n, 5, generator=g).double()
    return torch.stack(
        [10 ** (14 + 0.4 * e[:, 0]), torch.sigmoid(e[:, 1] + e[:, 0]), e[:, 2] ** 3, e[:, 3].exp(), 1e-3 * e[:, 4]], 1
    )


@pytest.mark.parametrize("whiten", [False, True])
def test_a_fitted_transform_standardises_the_split_that_it_was_fitted_on(whiten):
    train, other = catalogue(4000, 0), catalogue(4000, 1)
    transform = fit(train, MIXED, whiten)
    z = transform(train)[0]
    torch.testing.assert_close(z.mean(0), torch.zeros(5).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(5).double(), rtol=0, atol=1e-6)
    assert transform(other)[0].mean(0).abs().max() > 1e-4
    if whiten:
        torch.testing.assert_close(z.T.cov(correction=0), torch.eye(5).double(), rtol=0, atol=1e-6)
    again = from_json(json.loads(json.dumps(transform.to_json())))
    assert torch.equal(again(other)[0], transform(other)[0])
    torch.testing.assert_close(transform.inverse(transform(other)[0]), other, rtol=1e-8, atol=1e-9)


def test_mistakes_of_fitting_are_named():
    with pytest.raises(ConfigError, match="Did you mean 'log10'"):
        fit(catalogue(50, 0), "log01")
    with pytest.raises(ConfigError, match="2 transforms were given for 5 columns"):
        fit(catalogue(50, 0), ["log10", "log10"])
    with pytest.raises(DataError, match="outside the support"):
        fit(torch.tensor([[1.0], [-1.0], [2.0]]), "log10")
    with pytest.raises(DataError, match="not finite"):
        fit(torch.tensor([[1.0], [math.nan]]), "standardise")


def test_likelihoods_in_user_units_do_not_depend_on_the_transform():
    """One lognormal density by three routes: each trained flow reports nats per unit of the user's mass, near the entropy."""
    g = torch.Generator().manual_seed(0)
    sample, test = (torch.exp(0.5 * torch.randn(n, 1, generator=g)) * 3 for n in (6000, 20_000))
    entropy = stats.lognorm(0.5, scale=3).entropy()
    for how in ("log10", "quantile", "yeo_johnson"):
        torch.manual_seed(0)
        flow = InUserUnits(SplineAutoregressive(1, transforms=1, hidden=(8,), identity_start=True), fit(sample, how))
        optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
        for _ in range(150):
            loss = -flow().log_prob(sample[torch.randint(6000, (512,), generator=g)]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            assert -flow().log_prob(test).mean().item() == pytest.approx(entropy, abs=0.02), how


def test_columns_keep_their_own_transforms():
    transform = PerColumn([Log(), Logit()])
    y = torch.tensor([[2.0, 0.25]])
    torch.testing.assert_close(transform(y)[0], torch.tensor([[math.log(2), math.log(1 / 3)]]))
    assert isinstance(fit(catalogue(100, 0), MIXED, whiten=True).steps[1], Whiten)
    assert isinstance(fit(catalogue(100, 0), MIXED).steps[1], Standardise)
