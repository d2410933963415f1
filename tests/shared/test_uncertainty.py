"""Splits, fusion, stacking and heads: identities, closed forms, and what earlier ensembles got wrong."""

import doctest
import importlib
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import dirichlet, spearmanr
from sklearn.linear_model import LogisticRegression
from torch import nn

from skyloom.calibration import Temperature, calibrator_from_json, negative_log_likelihood
from skyloom.errors import ConfigError, DataError
from skyloom.metrics import Ranking, auroc_delong
from skyloom.uncertainty import (
    DirichletHead,
    HeteroscedasticHead,
    Mahalanobis,
    Stack,
    beta_nll,
    coverage_at_risk,
    dirichlet_loss,
    dirichlet_uncertainty,
    disagreement,
    dropout_only,
    energy,
    expected_entropy,
    fit_trust,
    fit_variance_scale,
    fixed_effects,
    heteroscedastic_loss,
    heteroscedastic_probability,
    last_layer_moments,
    linear_pool,
    log_pool,
    logit_interval,
    logit_normal_mean,
    mc_dropout,
    member_columns,
    mixture_variance,
    mutual_information,
    nested_stack,
    out_of_fold_logits,
    pairwise_kl,
    predictive_entropy,
    random_effects,
    risk_coverage,
    variance_split,
    vote_entropy,
    vote_share,
)

MODULES = ("acquisition", "dropout", "fusion", "heads", "labelling", "members", "novelty", "selective", "stacking")


@pytest.mark.parametrize("name", [*MODULES, "__init__"])
def test_the_examples_of_the_docstrings(name):
    module = "skyloom.uncertainty" + ("" if name == "__init__" else f".{name}")
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def column(*p):
    """Logits [members, 1] of these probabilities."""
    return logit(np.array(p))[:, None]


# --- the splits

MEMBERS = st.lists(st.lists(st.floats(-20, 20), min_size=4, max_size=4), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(MEMBERS)
def test_the_splits_are_identities(rows):
    z = np.array(rows).round(6)
    total, noise, unknown = predictive_entropy(z), expected_entropy(z), mutual_information(z)
    assert total == pytest.approx(noise + unknown, abs=1e-12) and (unknown >= 0).all() and (total <= math.log(2) + 1e-12).all()
    variance, aleatoric, epistemic = variance_split(z)
    assert variance == pytest.approx(aleatoric + epistemic, abs=1e-12)
    assert epistemic == pytest.approx(expit(z).var(0), abs=1e-12)
    both = np.stack([np.zeros_like(z), z], axis=-1)
    for measure in (predictive_entropy, expected_entropy, mutual_information, vote_entropy, disagreement):
        assert measure(both) == pytest.approx(measure(z), abs=1e-9, nan_ok=True)


def test_what_the_measures_are_worth():
    split, agreed = column(0.1, 0.9), column(0.5, 0.5)
    assert predictive_entropy(split)[0] == pytest.approx(math.log(2)) == predictive_entropy(agreed)[0]
    assert mutual_information(split)[0] == pytest.approx(0.3681, abs=1e-4) and mutual_information(agreed)[0] == 0
    assert variance_split(split)[2][0] == pytest.approx(0.16) and pairwise_kl(split)[0] == pytest.approx(1.7578, abs=1e-4)
    assert mutual_information([[-800.0], [800.0]])[0] == pytest.approx(math.log(2))
    assert mutual_information(np.tile([[0.3, -2.0]], (5, 1))).max() < 1e-7
    assert np.isfinite(predictive_entropy(np.array([[-1e4, 1e4, 0, 10, -100.0]]))).all()


def test_vote_entropy_is_of_votes():
    """All members just above one half: the entropy of the mean is ln 2, that of the votes is 0."""
    assert vote_entropy(column(0.51, 0.52, 0.53))[0] == 0
    assert vote_entropy(column(0.1, 0.9))[0] == pytest.approx(math.log(2))


def test_disagreement_leaves_out_members_with_themselves():
    assert disagreement([[-800.0], [800.0]])[0] == pytest.approx(1.0)
    z = np.random.default_rng(0).normal(size=(5, 7)) * 3
    p = expit(z)
    pairs = np.abs(p[:, None] - p[None]).sum((0, 1)) / 20
    assert disagreement(z) == pytest.approx(pairs)
    kl = [p * (np.log(p) - np.log(q)) + (1 - p) * (np.log1p(-p) - np.log1p(-q)) for q in p]
    assert pairwise_kl(z) == pytest.approx(np.sum(kl, axis=(0, 1)) / 20)
    assert np.isnan(disagreement(z[:1])).all()


def test_novel_inputs_raise_the_epistemic_part_and_noisy_labels_the_aleatoric():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 2)) + np.array([2, 0])
    y = rng.random(60) < expit(4 * x[:, 1])

    def members(x, y, at):
        rows = [rng.integers(0, len(y), len(y)) for _ in range(12)]
        return np.stack([LogisticRegression(C=100).fit(x[r], y[r]).decision_function(at) for r in rows])

    near, far = (rng.normal(size=(300, 2)) + np.array([x0, 0]) for x0 in (2, -6))
    assert mutual_information(members(x, y, far)).mean() > 2 * mutual_information(members(x, y, near)).mean()
    many = np.tile(x, (20, 1)) + 0.3 * rng.normal(size=(1200, 2))
    labels = rng.random(1200) < expit(4 * many[:, 1])
    noisy = np.where(rng.random(1200) < 0.3, ~labels, labels)
    assert mutual_information(members(many, labels, near)).mean() < mutual_information(members(x, y, near)).mean() / 2
    assert expected_entropy(members(many, noisy, near)).mean() > expected_entropy(members(many, labels, near)).mean() + 0.1


def test_columns_are_one_number_a_row():
    found = member_columns(np.random.default_rng(2).normal(size=(3, 6)))
    assert {v.shape for v in found.values()} == {(6,)} and len(found) == 12
    with pytest.raises(DataError, match="members come first"):
        member_columns(np.zeros(4))
    with pytest.raises(DataError, match="not finite"):
        member_columns([[np.nan]])


# --- fusion


def test_pools_by_hand():
    z = column(0.2, 0.8)
    assert expit(linear_pool(z)) == pytest.approx([0.5]) and expit(linear_pool(z, [3, 1])) == pytest.approx([0.35])
    assert vote_share(z) == pytest.approx([0.5]) and log_pool(z) == pytest.approx([0.0])
    assert expit(linear_pool([[1e4], [-1e4]])) == pytest.approx([0.5])
    with pytest.raises(DataError, match="2 members"):
        linear_pool(z, [1, 2, 3])


@settings(max_examples=50, deadline=None)
@given(st.floats(-10, 10), st.floats(0.01, 5), st.integers(2, 6))
def test_identical_members_are_one_member(z, v, m):
    logits, variances = np.full((m, 1), z), np.full((m, 1), v)
    for fused in (fixed_effects(logits, variances), random_effects(logits, variances)):
        assert fused.logit[0] == pytest.approx(z) and fused.variance[0] == pytest.approx(v / m) and fused.between[0] == 0
    assert linear_pool(logits)[0] == pytest.approx(z, abs=1e-6) and log_pool(logits)[0] == pytest.approx(z)
    assert mixture_variance(logits, variances)[0] == pytest.approx(v)


def test_contradiction_is_not_confidence():
    """z = (5, -5), v = 0.1 each: inverse variances alone say 0 +- 0.22."""
    z, v = [[5.0], [-5.0]], [[0.1], [0.1]]
    assert fixed_effects(z, v).variance[0] == pytest.approx(0.05)
    fused = random_effects(z, v)
    assert fused.between[0] == pytest.approx(49.9) and fused.variance[0] == pytest.approx(25.0)
    assert mixture_variance(z, v)[0] == pytest.approx(25.1)
    low, high = fused.interval()
    assert low[0] < 0.001 and high[0] > 0.999


def test_random_effects_cover_members_that_scatter_and_fixed_effects_do_not():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=4000)
    z = truth + rng.normal(0, 1.0, (8, 4000)) + rng.normal(0, 0.3, (8, 4000))
    v = np.full_like(z, 0.09)
    covered = {}
    for rule in (fixed_effects, random_effects):
        low, high = rule(z, v).interval()
        covered[rule] = ((low <= expit(truth)) & (expit(truth) <= high)).mean()
    assert covered[random_effects] > 0.88 and covered[fixed_effects] < 0.5


def test_intervals_are_made_in_logit_space():
    """z = 4, V = 4: p -+ 1.96 sd(logit) would run from -2.9 to 4.9."""
    low, high = logit_interval([4.0, -30.0], [4.0, 1.0])
    assert ((low > 0) & (low < expit([4.0, -30.0])) & (expit([4.0, -30.0]) < high) & (high < 1)).all()
    rng = np.random.default_rng(4)
    z = rng.normal(1.5, math.sqrt(0.7), 100_000)
    low, high = logit_interval(1.5, 0.7)
    assert ((low <= expit(z)) & (expit(z) <= high)).mean() == pytest.approx(0.95, abs=0.005)
    assert logit_normal_mean(1.5, 0.7) == pytest.approx(expit(z).mean(), abs=3e-3)


def test_weights_keep_their_ratio_and_sum_to_one():
    z, v = np.array([[1.0], [2.0], [3.0]]), np.array([[1e-2], [1.0], [1e3]])
    for ratio in (10.0, 1e3, np.inf):
        w = fixed_effects(z, v, max_ratio=ratio).weights[:, 0]
        assert w.sum() == pytest.approx(1) and w.max() / w.min() <= min(ratio, 1e5) * (1 + 1e-9)
    assert fixed_effects(z, v).weights[2, 0] < 1e-4
    assert np.isfinite(fixed_effects(z * 1e4, v * 0).logit).all()


def test_a_sharpened_member_is_cooled_and_gains_no_weight():
    rng = np.random.default_rng(5)
    z = rng.normal(0, 2, 20_000)
    y = (rng.random(20_000) < expit(z)).astype(int)
    members, variances = np.stack([z, z]), np.full((2, 20_000), 0.2)
    sharp, spread = np.stack([z, 2 * z]), np.stack([variances[0], 4 * variances[1]])
    trust = fit_trust(sharp, y)
    assert [t.temperature for t in trust] == pytest.approx([1, 2], rel=0.03)
    before = fixed_effects(members, variances)
    cooled = np.stack([t(m) for t, m in zip(trust, sharp, strict=True)])
    after = fixed_effects(cooled, np.stack([t.variance(v) for t, v in zip(trust, spread, strict=True)]))
    assert after.weights[1] == pytest.approx(before.weights[1], abs=0.01)


def test_the_scale_of_variances_is_found():
    rng = np.random.default_rng(6)
    truth, v = rng.normal(0, 3, 60_000), rng.exponential(2.0, 60_000)
    z = truth
    y = (rng.random(60_000) < expit(truth + np.sqrt(v) * rng.normal(size=60_000))).astype(int)
    assert fit_variance_scale(z, 10 * v, y) == pytest.approx(0.1, rel=0.2)
    assert fit_variance_scale(z, v, (rng.random(60_000) < expit(z)).astype(int)) < 0.05


# --- stacking


def stacked_members(seed, n=6000):
    """Two members with independent errors, a copy of the first, and noise."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(int)
    s = 2 * y - 1
    a, b = 2 * (s + rng.normal(0, 1, n)), 0.5 * (0.7 * s + rng.normal(0, 1, n))
    return np.stack([a, b, rng.normal(size=n)]), y, rng


def test_a_stack_recovers_the_weights_of_bayes():
    """The log-likelihood ratio of s +- from m s + e is 2 m x: of the members 2 (s + e) and (0.7 s + e)/2, weights 1 and 2.8."""
    z, y, rng = stacked_members(7, 40_000)
    stack = Stack.fit(z, y, rng, penalties=(0.0,))
    assert stack.weights == pytest.approx([1.0, 2.8, 0.0], abs=0.1) and stack.intercept == pytest.approx(logit(0.3), abs=0.08)
    assert min(stack.weights) >= 0


def test_a_stack_is_not_worse_than_its_best_member_on_other_rows():
    z, y, rng = stacked_members(8)
    held, nll = nested_stack(z, y, rng)
    best = min(negative_log_likelihood(Temperature.fit(m, y)(m), y) for m in z)
    assert nll < best - 0.02 and Ranking(held, y).auroc > max(Ranking(m, y).auroc for m in z) + 0.005
    without, _ = nested_stack(z[:2], y, rng)
    assert abs(Ranking(held, y).average_precision - Ranking(without, y).average_precision) < 0.005


def test_a_stack_of_shuffled_labels_ranks_at_chance():
    """Weights and penalty chosen on the rows that are judged would show here."""
    z, y, rng = stacked_members(9, 1500)
    groups = np.arange(1500) // 3
    shuffled = rng.permutation(y)
    held, _ = nested_stack(z, shuffled, rng, groups=groups)
    e = auroc_delong(held, shuffled)
    assert abs(e - 0.5) < 3 * (e.high - e.low) / 3.92 + 0.01


def test_few_rows_are_drawn_to_the_mean_logit():
    z, y, rng = stacked_members(10, 60)
    tight = Stack.fit(z, y, rng, penalties=(1e6,))
    assert tight.weights == pytest.approx([1 / 3] * 3, abs=1e-3)
    assert isinstance(calibrator_from_json(json.loads(json.dumps(tight.to_json()))), Stack)
    assert calibrator_from_json(tight.to_json())(z) == pytest.approx(tight(z))
    assert tight.at_prevalence(1e-3)(z)[0] < tight(z)[0]
    with pytest.raises(DataError, match="3 members"):
        tight(z[:2])


class Memory(LogisticRegression):
    """Remembers which rows it was fitted on."""

    seen: list = []  # noqa: RUF012

    def fit(self, x, y):
        Memory.seen.append(set(x[:, 0].astype(int)))
        return super().fit(x, y)

    def decision_function(self, x):
        fitted = Memory.seen[-1]
        assert not fitted & set(x[:, 0].astype(int))
        assert not {int(v) // 4 for v in fitted} & {int(v) // 4 for v in x[:, 0]}
        return super().decision_function(x)


def test_a_row_is_never_predicted_by_a_fit_that_saw_its_group():
    rng = np.random.default_rng(11)
    x, y = np.column_stack([np.arange(200), rng.normal(size=200)]), rng.random(200) < 0.4
    z = out_of_fold_logits([Memory()], x, y, rng, groups=np.arange(200) // 4)
    assert z.shape == (1, 200) and np.isfinite(z).all()
    with pytest.raises(DataError, match="5 folds"):
        out_of_fold_logits([Memory()], x, np.arange(200) < 3, rng)


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


# --- selective prediction


def test_risk_and_coverage_by_hand():
    curve = risk_coverage([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4])
    assert curve.risk.tolist() == [0, 1 / 2, 1 / 3, 1 / 2] and curve.aurc == pytest.approx(np.mean([0, 1 / 2, 1 / 3, 1 / 2]))
    assert curve.excess_aurc == pytest.approx(curve.aurc - np.mean([0, 0, 1 / 3, 1 / 2]))
    assert coverage_at_risk(curve, 0.34) == (0.75, 0.3) and coverage_at_risk(risk_coverage([1], [0]), 0.5)[0] == 0


def test_the_error_itself_is_the_best_uncertainty_and_a_constant_one_is_chance():
    rng = np.random.default_rng(12)
    y, p = rng.random(500) < 0.4, rng.random(500)
    error = np.abs(p - y)
    assert risk_coverage(error, error).excess_aurc == pytest.approx(0, abs=1e-15)
    flat = risk_coverage(error, np.zeros(500))
    assert flat.risk == pytest.approx(np.full(500, error.mean())) and coverage_at_risk(flat, error.mean() - 0.01)[0] == 0
    assert risk_coverage(error, -error).aurc > flat.aurc > risk_coverage(error, error).aurc


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6))
def test_ties_are_the_mean_over_orders(seed):
    rng = np.random.default_rng(seed)
    loss, doubt = rng.integers(0, 2, 6).astype(float), rng.integers(0, 3, 6).astype(float)
    orders = [risk_coverage(loss, doubt + 1e-6 * rng.permutation(6)).aurc for _ in range(300)]
    assert risk_coverage(loss, doubt).aurc == pytest.approx(np.mean(orders), abs=0.05)


# --- novelty


def test_distances_have_their_mean_and_stay_finite():
    rng = np.random.default_rng(13)
    assert Mahalanobis(rng.normal(size=(4000, 32)))(rng.normal(size=(4000, 32))).mean() == pytest.approx(32, abs=0.6)
    few = Mahalanobis(rng.normal(size=(100, 512)))
    assert np.isfinite(few(rng.normal(size=(10, 512)))).all()
    assert few(rng.normal(size=(50, 512)) + 2).min() > few(rng.normal(size=(50, 512))).max()
    assert energy([[10.0, 0.0], [0.1, 0.0]])[0] < energy([[10.0, 0.0], [0.1, 0.0]])[1]
