"""Scores of posteriors against closed forms, properness, and what a wrong posterior does to them."""

import math
import time

import numpy as np
import pytest
import torch
from scipy import stats

from skyloom.metrics import (
    c2st,
    crps,
    energy_score,
    explained_variance,
    nmad,
    posterior_scores,
    regression_scores,
    sharpness,
    spread_against_error,
    standardised_error,
)


def gaussian_draws(mean, sd, draws, seed=0):
    return mean.unsqueeze(1) + sd.unsqueeze(1) * torch.randn(
        len(mean), draws, mean.shape[1], generator=torch.Generator().manual_seed(seed)
    )


def test_crps_of_a_gaussian_is_its_closed_form_whatever_the_number_of_draws():
    y = torch.linspace(-2, 3, 400)[:, None]
    mean, sd = torch.full_like(y, 0.4), torch.full_like(y, 1.7)
    w = ((y - mean) / sd).double().numpy()
    exact = 1.7 * (w * (2 * stats.norm.cdf(w) - 1) + 2 * stats.norm.pdf(w) - 1 / math.sqrt(math.pi))
    for draws in (5, 2000):
        found = crps(gaussian_draws(mean, sd, draws), y)
        assert found.mean().item() == pytest.approx(exact.mean(), abs=0.06 if draws == 5 else 0.01)
    np.testing.assert_allclose(crps(gaussian_draws(mean, sd, 20_000), y).numpy(), exact, atol=0.06)


def test_scores_do_not_depend_on_pieces_and_agree_with_all_pairs():
    g = torch.Generator().manual_seed(0)
    draws, y = torch.randn(7, 9, 2, generator=g), torch.randn(7, 2, generator=g)
    pairs = (draws.unsqueeze(2) - draws.unsqueeze(1)).abs()
    brute = (draws - y.unsqueeze(1)).abs().mean(1) - pairs.sum((1, 2)) / (9 * 8) / 2
    torch.testing.assert_close(crps(draws, y), brute, rtol=1e-5, atol=1e-6)
    distances = (draws.unsqueeze(2) - draws.unsqueeze(1)).norm(dim=-1)
    joint = (draws - y.unsqueeze(1)).norm(dim=-1).mean(1) - distances.sum((1, 2)) / (9 * 8) / 2
    torch.testing.assert_close(energy_score(draws, y, pairings=8), joint, rtol=1e-5, atol=1e-6)
    one = energy_score(draws[..., :1], y[:, :1])
    torch.testing.assert_close(one, crps(draws[..., :1], y[:, :1]).squeeze(1), rtol=1e-5, atol=1e-5)
    scaled = energy_score(draws * torch.tensor([1.0, 1e6]), y * torch.tensor([1.0, 1e6]), torch.tensor([1.0, 1e6]))
    torch.testing.assert_close(scaled, energy_score(draws, y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"shift": 0.5}, {"stretch": 0.5}, {"stretch": 2.0}, {"rotate": True}])
def test_the_exact_posterior_has_the_best_score(wrong):
    """Properness: bias, wrong width, and (for the joint score) a wrong correlation, all cost."""
    g = torch.Generator().manual_seed(1)
    mix = torch.tensor([[1.0, 0.0], [0.9, 0.44]])
    truth = torch.randn(4000, 2, generator=g) @ mix.T
    exact = torch.randn(4000, 200, 2, generator=g) @ mix.T
    other = exact * wrong.get("stretch", 1.0) + wrong.get("shift", 0.0)
    if "rotate" in wrong:
        other = other * torch.tensor([1.0, -1.0])
    else:
        assert (crps(exact, truth).mean(0) < crps(other, truth).mean(0)).all()
    assert energy_score(exact, truth).mean() < energy_score(other, truth).mean() - 0.01


def test_errors_are_compared_with_their_own_spread():
    g = torch.Generator().manual_seed(2)
    sd = torch.exp(torch.randn(4000, 2, generator=g) * 0.6)
    mean = torch.randn(4000, 2, generator=g)
    truth = mean + sd * torch.randn(4000, 2, generator=g)
    exact = spread_against_error(gaussian_draws(mean, sd, 300), truth)
    torch.testing.assert_close(exact["error"], exact["spread"], rtol=0.12, atol=0)
    torch.testing.assert_close(exact["within1"], torch.full((5, 2), 0.683), rtol=0, atol=0.06)
    torch.testing.assert_close(exact["within2"], torch.full((5, 2), 0.954), rtol=0, atol=0.03)
    assert (exact["rank_correlation"] > 0.3).all()
    z = standardised_error(gaussian_draws(mean, sd, 300), truth)
    torch.testing.assert_close(z.std(0), torch.ones(2), rtol=0, atol=0.04)
    narrow = spread_against_error(gaussian_draws(mean, 0.5 * sd, 300), truth)
    assert (narrow["error"] > 1.6 * narrow["spread"]).all() and (narrow["within1"] < 0.5).all()
    blind = spread_against_error(gaussian_draws(mean, torch.full_like(sd, 1.2), 300), truth)
    assert blind["rank_correlation"].abs().max() < 0.06


def test_sharpness_of_a_gaussian_is_its_widths():
    found = sharpness(gaussian_draws(torch.zeros(50, 1), torch.full((50, 1), 3.0), 4000))
    assert found["sd"].mean().item() == pytest.approx(3.0, rel=0.01)
    assert found["width68"].mean().item() == pytest.approx(6 * stats.norm.ppf(0.84), rel=0.02)
    assert found["width95"].mean().item() == pytest.approx(6 * stats.norm.ppf(0.975), rel=0.02)


def test_posterior_scores_come_with_intervals_that_hold_the_truth():
    g = torch.Generator().manual_seed(3)
    mean, sd = torch.randn(600, 2, generator=g), torch.full((600, 2), 0.5)
    truth = mean + 0.5 * torch.randn(600, 2, generator=g)
    log_prob = torch.distributions.Normal(mean, sd).log_prob(truth).sum(1)
    scores = posterior_scores(gaussian_draws(mean, sd, 300), truth, ["a", "b"], log_prob, groups=torch.arange(600) // 3)
    entropy = math.log(2 * math.pi * math.e * 0.25)
    assert scores["nll"].low < entropy < scores["nll"].high
    for name, expected in (("z_sd_a", 1.0), ("z_mean_b", 0.0), ("bias_a", 0.0), ("crps_b", 0.5 / math.sqrt(math.pi))):
        assert scores[name].low - 0.02 < expected < scores[name].high + 0.02, name
    assert scores["rmse_a"] == pytest.approx(0.5, abs=0.05) and scores["sd_a"] == pytest.approx(0.5, abs=0.02)
    assert scores["energy_score"].low < scores["energy_score"] < scores["energy_score"].high


def test_regression_scores_of_known_errors():
    g = torch.Generator().manual_seed(4)
    truth = torch.randn(5000, 2, generator=g) * torch.tensor([1.0, 10.0])
    estimate = truth + torch.tensor([0.3, 0.0]) + torch.randn(5000, 2, generator=g) * torch.tensor([0.5, 2.0])
    estimate[:50, 1] += 1000.0
    scores = regression_scores(truth, estimate, ["a", "b"], outlier=100.0)
    assert scores["bias_a"].low < 0.3 < scores["bias_a"].high
    assert scores["rmse_a"] == pytest.approx(math.hypot(0.3, 0.5), rel=0.03)
    assert scores["r2_a"] == pytest.approx(1 - 0.34, abs=0.03)
    assert scores["nmad_b"] == pytest.approx(2.0, rel=0.05) and scores["outliers_b"] == pytest.approx(0.01)
    assert torch.isnan(explained_variance(torch.ones(5, 1), torch.zeros(5, 1))).all()
    torch.testing.assert_close(nmad(torch.randn(20_000, 1, generator=g)), torch.ones(1), rtol=0.03, atol=0)


def test_a_classifier_tells_samples_apart_as_well_as_they_can_be_told():
    """N(0, 1) against N(1, 1): no classifier is right more often than F(1/2) = 69.1%."""
    rng = np.random.default_rng(0)
    same = c2st(rng.normal(size=(300, 2)), rng.normal(size=(300, 2)))
    assert same.low < 0.5 < same.high
    shifted = c2st(rng.normal(size=(600, 1)), rng.normal(size=(600, 1)) + 1)
    assert shifted == pytest.approx(stats.norm.cdf(0.5), abs=0.04)


@pytest.mark.parametrize("objects", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_ten_thousand_objects_take_seconds(objects):
    g = torch.Generator().manual_seed(0)
    draws, truth = torch.randn(objects, 1000, 6, generator=g), torch.randn(objects, 6, generator=g)
    began = time.process_time()
    assert crps(draws, truth).mean().item() == pytest.approx(1 / math.sqrt(math.pi), rel=0.05)
    energy_score(draws, truth)
    sharpness(draws)
    spread_against_error(draws, truth)
    assert time.process_time() - began < 12 * max(1.0, objects / 2000)
