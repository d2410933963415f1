"""Heads and dropout: losses against draws, no trace left behind, the closed form of the last layer."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import dirichlet, spearmanr
from torch import nn

from skyloom.errors import ConfigError
from skyloom.uncertainty import (
    DirichletHead,
    HeteroscedasticHead,
    beta_nll,
    dirichlet_loss,
    dirichlet_uncertainty,
    dropout_only,
    heteroscedastic_loss,
    heteroscedastic_probability,
    last_layer_moments,
    mc_dropout,
)

# --- heads


def test_the_heteroscedastic_loss_is_that_of_the_expected_probability():
    mu, s = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 2.0]).log()
    labels = torch.tensor([1.0, 1.0])
    generator = torch.Generator().manual_seed(0)
    loss = heteroscedastic_loss(mu, s, labels, samples=200_000, generator=generator)
    draws = np.random.default_rng(0).normal(size=400_000)
    p = [expit(2 + math.sqrt(0.5) * draws).mean(), expit(-1 + math.sqrt(2) * draws).mean()]
    assert p[0] == pytest.approx(0.8617, abs=5e-4)
    assert float(loss) == pytest.approx(-np.log(p).mean(), abs=2e-3)
    assert heteroscedastic_probability(mu, s).numpy() == pytest.approx(p, abs=4e-3)
    far = heteroscedastic_loss(torch.tensor([1e4, -1e4]), torch.zeros(2), torch.tensor([0.0, 1.0]))
    assert torch.isfinite(far)


def test_a_head_learns_where_labels_are_noisy():
    """Labels flipped at random where x > 0: the learned variance is larger there, the probability nearer one half."""
    torch.manual_seed(0)
    x = torch.rand(1500, 1) * 2 - 1
    side = torch.randint(0, 2, (1500, 1)).float()
    flip = (torch.rand(1500, 1) < 0.3) & (x > 0)
    y = torch.where(flip, 1 - side, side)[:, 0]
    features = torch.cat([x, side * 2 - 1, (x > 0).float(), (x > 0) * (side * 2 - 1)], 1)
    head = HeteroscedasticHead(4)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(80):
        optimizer.zero_grad()
        heteroscedastic_loss(*head(features), y).backward()
        optimizer.step()
    mean, log_variance = (v.detach() for v in head(features))
    quiet, noisy = (x[:, 0] <= 0), (x[:, 0] > 0)
    confidence = (heteroscedastic_probability(mean, log_variance) - 0.5).abs()
    assert confidence[noisy].mean() == pytest.approx(0.2, abs=0.05) and confidence[quiet].mean() > 0.4
    assert (log_variance >= -10).all() and (log_variance <= 2).all()


def test_the_dirichlet_loss_is_the_mean_squared_error_of_draws():
    alpha = torch.tensor([[3.0, 1.5, 1.0]])
    draws = dirichlet(alpha[0].numpy()).rvs(200_000, random_state=0)
    expected = ((np.array([0, 1, 0]) - draws) ** 2).sum(1).mean()
    assert float(dirichlet_loss(alpha, torch.tensor([1]))) == pytest.approx(expected, abs=3e-3)
    plain = torch.distributions.kl_divergence(
        torch.distributions.Dirichlet(torch.tensor([3.0, 1.0, 1.0])), torch.distributions.Dirichlet(torch.ones(3))
    )
    with_kl = dirichlet_loss(alpha, torch.tensor([1]), regularization=0.5) - dirichlet_loss(alpha, torch.tensor([1]))
    assert float(with_kl) == pytest.approx(0.5 * float(plain), abs=1e-5)
    split = dirichlet_uncertainty(alpha)
    entropy = -(draws * np.log(draws)).sum(1).mean()
    assert float(split["expected_entropy"]) == pytest.approx(entropy, abs=3e-3)
    assert float(split["predictive_entropy"] - split["expected_entropy"] - split["mutual_information"]) == pytest.approx(
        0, abs=1e-12
    )
    assert float(dirichlet_uncertainty(torch.ones(1, 4))["vacuity"]) == 1.0
    more = dirichlet_uncertainty(10 * alpha)
    assert more["mutual_information"] < split["mutual_information"]
    head = DirichletHead(5, 3)(torch.randn(4, 5))
    assert head.shape == (4, 3) and (head > 1).all()


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_beta_nll_has_its_gradient_and_its_sign(beta):
    """d/d mu = v^(beta - 1) (mu - y), d/d ln v = v^beta (1 - (y - mu)^2/v)/2; the best v is the mean squared error."""
    mu = torch.tensor([0.3, -1.0], dtype=torch.float64, requires_grad=True)
    s = torch.tensor([0.7, -0.4], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([1.0, 0.5], dtype=torch.float64)
    beta_nll(mu, s, y, beta).backward()
    v = s.detach().exp()
    assert torch.allclose(mu.grad, v ** (beta - 1) * (mu.detach() - y) / 2)
    assert torch.allclose(s.grad, v**beta * (1 - (y - mu.detach()) ** 2 / v) / 4)
    gaussian = nn.GaussianNLLLoss()(mu.detach(), y, v)
    assert beta_nll(mu.detach(), s.detach(), y, 0.0).item() == pytest.approx(gaussian.item())


# --- dropout


class Net(nn.Module):
    def __init__(self, p=0.3):
        super().__init__()
        self.conv, self.norm, self.drop, self.out = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(p), nn.Linear(4, 1)
        self.drop_path = DropPath(0.5)

    def forward(self, x):
        h = self.drop_path(torch.relu(self.norm(self.conv(x)))).mean((2, 3))
        return self.out(self.drop(h))[:, 0]


class DropPath(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        keep = (torch.rand(len(x), 1, 1, 1) > self.p).float() if self.training else 1.0
        return x * keep


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}, [m.training for m in model.modules()]


def test_monte_carlo_dropout_leaves_no_trace():
    """Buffers, parameters, every flag and the random state, whatever mode each module was in; after an error too."""
    torch.manual_seed(0)
    model, x = Net(), torch.randn(6, 1, 8, 8)
    model.train()
    model.norm.eval()
    model.out.requires_grad_(False)
    weights, flags = state(model)
    random = torch.get_rng_state()
    z = mc_dropout(model, x, samples=10, seed=1)
    after, flags_after = state(model)
    assert all(torch.equal(weights[k], after[k]) for k in weights) and flags == flags_after
    assert torch.equal(random, torch.get_rng_state()) and not z.requires_grad and z.shape == (10, 6)
    assert torch.equal(z, mc_dropout(model, x, samples=10, seed=1))
    assert not torch.equal(z, mc_dropout(model, x, samples=10, seed=2))
    with pytest.raises(RuntimeError):
        mc_dropout(model, x[:, :, :1, :1], samples=2, seed=0)
    assert [m.training for m in model.modules()] == flags


def test_a_row_does_not_depend_on_its_batch():
    model, x = Net(), torch.randn(6, 1, 8, 8)
    alone = mc_dropout(model, x[:1], samples=400, seed=0).mean(0)
    together = mc_dropout(model, x, samples=400, seed=0).mean(0)[:1]
    model.eval()
    assert alone.item() == pytest.approx(together.item(), abs=0.1) and alone.item() == pytest.approx(
        model(x[:1]).item(), abs=0.1
    )


def test_without_a_rate_there_is_nothing_to_vary():
    with pytest.raises(ConfigError, match="no dropout"):
        mc_dropout(Net(p=0.0), torch.randn(2, 1, 8, 8), samples=1, seed=0)
    with dropout_only(Net(), drop_path=True) as chosen:
        assert [type(m).__name__ for m in chosen] == ["Dropout", "DropPath"]


def test_attention_drops_although_its_dropout_is_no_module():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.4, batch_first=True)
    layer.dropout.p = layer.dropout1.p = layer.dropout2.p = 0.0
    x = torch.randn(3, 5, 8)
    z = mc_dropout(layer, x, samples=4, seed=0)
    assert z.var(0).max() > 1e-4 and torch.backends.mha.get_fastpath_enabled()


def test_the_closed_form_of_the_last_layer():
    torch.manual_seed(1)
    x, w, b, p = torch.randn(4, 16), torch.randn(16), torch.tensor(0.3), 0.25

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(p)

        def forward(self, x):
            return {"logit": self.drop(x) @ w + b}

    z = mc_dropout(Head(), x, samples=8_000, seed=0)["logit"]
    mean, variance = last_layer_moments(x, w, b, p)
    assert torch.allclose(z.mean(0), mean, atol=0.1) and torch.allclose(z.var(0), variance, rtol=0.08)


def test_dropout_on_features_is_not_a_function_of_the_logit():
    """Dropout of the logit itself gives |z| sqrt(p/(1 - p)): the most confident would always be the most uncertain."""
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Linear(6, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1)
    )
    z = mc_dropout(model, torch.randn(400, 6) * 2, samples=60, seed=0)[..., 0].numpy()
    assert abs(spearmanr(np.abs(z.mean(0)), z.std(0)).statistic) < 0.8
