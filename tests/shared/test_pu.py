"""Risks from positives and unlabeled: identities, the exact step of Kiryo et al. (2017), and scores without negatives."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from skyloom.errors import ConfigError
from skyloom.pu import auroc_pu, error_pu, nnpu, pn, prior_shift, upu

SURROGATES = {"sigmoid": lambda z: 1 / (1 + np.exp(z)), "logistic": lambda z: np.log1p(np.exp(-z))}


def by_hand(z, labels, prior, surrogate):
    """R_P+, R_P-, R_U- written out with NumPy."""
    loss = SURROGATES[surrogate]
    p, u = z[labels == 1], z[labels == 0]
    return loss(p).mean(), loss(-p).mean(), loss(-u).mean()


def gradient(risk, z, labels, **options):
    z = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    terms = risk(z, torch.tensor(labels, dtype=torch.float64), **options)
    step = torch.autograd.grad(terms["loss"], z)[0].numpy()
    return {name: value.detach() for name, value in terms.items()}, step


@pytest.mark.parametrize("surrogate", ["sigmoid", "logistic"])
def test_values_by_hand(surrogate):
    z, labels, prior = np.array([2.0, -0.5, 0.3, -1.0, 0.7]), np.array([1, 1, 0, 0, 0]), 0.3
    positive, p_minus, u_minus = by_hand(z, labels, prior, surrogate)
    terms, _ = gradient(upu, z, labels, prior=prior, surrogate=surrogate)
    assert float(terms["loss"]) == pytest.approx(prior * positive + u_minus - prior * p_minus, abs=1e-12)
    terms, _ = gradient(nnpu, z, labels, prior=prior, surrogate=surrogate)
    assert float(terms["loss"]) == pytest.approx(prior * positive + max(0, u_minus - prior * p_minus), abs=1e-12)
    assert float(terms["risk_p+"]) == pytest.approx(positive)
    assert float(terms["negative_risk"]) == pytest.approx(u_minus - prior * p_minus)
    terms, _ = gradient(pn, z, labels, prior=prior, surrogate=surrogate)
    assert float(terms["loss"]) == pytest.approx(prior * positive + (1 - prior) * u_minus, abs=1e-12)


def test_the_step_when_the_negative_risk_is_negative():
    """One labelled at z = 2, one unlabeled at z = -3, sigmoid loss, pi = 0.6: r = s(-3) - 0.6 s(2) = -0.481 < 0.

    The step follows -gamma r alone: d/dz_P = gamma pi s'(2), d/dz_U = -gamma s'(-3). Differentiating pi R_P+ + max(0, r)
    would give -pi s'(2) and 0; differentiating pi R_P+ - gamma r, -pi s'(2) + gamma pi s'(2).
    """
    slope = lambda v: math.exp(-v) / (1 + math.exp(-v)) ** 2  # noqa: E731
    for gamma in (1.0, 0.25):
        terms, step = gradient(nnpu, [2.0, -3.0], [1, 0], prior=0.6, surrogate="sigmoid", gamma=gamma)
        assert float(terms["negative_risk"]) == pytest.approx(1 / (1 + math.exp(3)) - 0.6 / (1 + math.exp(-2)))
        assert float(terms["clipped"]) == 1.0
        assert step == pytest.approx([gamma * 0.6 * slope(2.0), -gamma * slope(-3.0)], abs=1e-12)
        assert float(terms["loss"]) == pytest.approx(0.6 / (1 + math.exp(2)))  # pi R_P+ + 0


def test_the_step_between_zero_and_minus_beta_is_the_ordinary_one():
    z, labels = [2.0, -3.0], [1, 0]
    _, ordinary = gradient(upu, z, labels, prior=0.6, surrogate="sigmoid")
    terms, step = gradient(nnpu, z, labels, prior=0.6, surrogate="sigmoid", beta=0.5)
    assert float(terms["clipped"]) == 0.0
    assert step == pytest.approx(ordinary, abs=1e-12)
    terms, _ = gradient(nnpu, z, labels, prior=0.6, surrogate="sigmoid", beta=0.4)
    assert float(terms["clipped"]) == 1.0
    positive, _, _ = by_hand(np.array(z), np.array(labels), 0.6, "sigmoid")
    assert float(terms["loss"]) == pytest.approx(0.6 * positive - 0.4)


def test_a_clipped_step_raises_the_negative_risk():
    torch.manual_seed(0)
    for _ in range(20):
        z, labels = torch.randn(12) * 3, (torch.arange(12) < 4).float()
        z[:4] = z[:4].abs() + 2
        z[4:] = -z[4:].abs() - 2
        before, step = gradient(nnpu, z.numpy(), labels.numpy(), prior=0.4, surrogate="logistic")
        assert before["clipped"] == 1.0
        after, _ = gradient(nnpu, z.numpy() - 0.01 * step, labels.numpy(), prior=0.4, surrogate="logistic")
        assert after["negative_risk"] > before["negative_risk"]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.95), st.sampled_from(["sigmoid", "logistic"]))
def test_nnpu_is_upu_wherever_it_is_not_clipped(seed, prior, surrogate):
    rng = np.random.default_rng(seed)
    z, labels = rng.normal(size=9) * 2, (np.arange(9) < 3).astype(float)
    terms, step = gradient(nnpu, z, labels, prior=prior, surrogate=surrogate)
    plain, ordinary = gradient(upu, z, labels, prior=prior, surrogate=surrogate)
    if not terms["clipped"]:
        assert float(terms["loss"]) == pytest.approx(float(plain["loss"]), abs=1e-12)
        assert step == pytest.approx(ordinary, abs=1e-12)
    else:
        assert float(plain["negative_risk"] if "negative_risk" in plain else terms["negative_risk"]) < 0
        assert float(terms["loss"]) >= float(plain["loss"])


@pytest.mark.parametrize("target_prior", [None, 0.5])
@pytest.mark.parametrize("surrogate", ["sigmoid", "logistic"])
def test_unbiased_risk_is_the_supervised_risk(surrogate, target_prior):
    """Over many rows the risk from P and U is that from P and N: for three scorers, within three standard errors."""
    rng = np.random.default_rng(1)
    n, prior = 100_000, 0.1
    y = rng.random(n) < prior
    for slope, offset in ((1.0, 0.0), (-0.5, 1.0), (3.0, -2.0)):
        score = lambda positive: slope * rng.normal(np.where(positive, 1.0, -1.0)) + offset  # noqa: B023, E731
        z_u, z_p = score(y), score(np.ones(n, bool))
        options = {"prior": prior, "surrogate": surrogate, "target_prior": target_prior}
        supervised = pn(torch.from_numpy(z_u), torch.from_numpy(y.astype(float)), **options)["loss"]
        z = torch.from_numpy(np.concatenate([z_p, z_u]))
        risk = upu(z, (torch.arange(2 * n) < n).double(), **options)["loss"]
        assert float(risk - supervised) == pytest.approx(0, abs=2e-2)


def test_the_share_of_labelled_rows_in_a_batch_does_not_matter():
    z, labels = torch.randn(10, dtype=torch.float64), (torch.arange(10) < 4).double()
    twice = nnpu(torch.cat([z, z[:4]]), torch.cat([labels, labels[:4]]), prior=0.2)["loss"]
    assert float(twice) == pytest.approx(float(nnpu(z, labels, prior=0.2)["loss"]))


def test_batches_of_one_kind():
    """Without unlabeled rows nothing may push the labelled ones down; without labelled rows only R_U- is left."""
    _, step = gradient(nnpu, [1.0, -1.0], [1, 1], prior=0.3)
    assert (step < 0).all()  # descending raises the logits
    terms, step = gradient(nnpu, [1.0, -1.0], [0, 0], prior=0.3)
    assert float(terms["loss"]) == pytest.approx(by_hand(np.array([9.0, 1.0, -1.0]), np.array([1, 0, 0]), 0.3, "sigmoid")[2])
    assert (step > 0).all()


def test_a_memorising_network_drives_upu_below_zero_and_nnpu_not():
    z, labels = torch.cat([torch.full((20,), 10.0), torch.full((80,), -10.0)]), (torch.arange(100) < 20).float()
    assert float(upu(z, labels, prior=0.1, surrogate="logistic")["loss"]) == pytest.approx(-1.0, abs=0.01)
    assert float(nnpu(z, labels, prior=0.1, surrogate="logistic")["loss"]) >= 0


def test_half_precision_logits_are_summed_in_float32():
    z, labels = torch.linspace(-3, 3, 64), (torch.arange(64) % 4 == 0).float()
    z = z.bfloat16()
    assert nnpu(z, labels, prior=0.1)["loss"].dtype == torch.float32
    assert float(nnpu(z, labels, prior=0.1)["loss"]) == pytest.approx(float(nnpu(z.float(), labels, prior=0.1)["loss"]))


def test_logistic_learning_at_a_target_prior_shifts_the_logit():
    """The minimizer of the balanced risk, shifted, is the log posterior odds at the class prior: two Gaussians, known odds."""
    torch.manual_seed(0)
    prior, n = 0.1, 40_000
    y = torch.rand(n, dtype=torch.float64) < prior
    x_u = torch.randn(n, dtype=torch.float64) + 2.0 * y
    x_p = torch.randn(n // 4, dtype=torch.float64) + 2.0
    x, labels = torch.cat([x_p, x_u]), (torch.arange(n + n // 4) < n // 4).double()
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = upu(w[0] * x + w[1], labels, prior, surrogate="logistic", target_prior=0.5)["loss"]
        loss.backward()
        return loss

    optimizer.step(closure)
    slope, offset = w.detach().tolist()
    assert slope == pytest.approx(2.0, rel=0.08)
    assert offset + prior_shift(prior, 0.5) == pytest.approx(-2.0 + math.log(0.1 / 0.9), abs=0.25)


def test_auroc_from_positives_and_unlabeled():
    """Over many rows it is the AUROC against the true negatives, at any prior."""
    rng = np.random.default_rng(2)
    for prior in (0.02, 0.3):
        n = 100_000
        y = rng.random(n) < prior
        z_u, z_p = rng.normal(1.5 * y), rng.normal(1.5, size=n // 2)
        labelled = np.arange(n + n // 2) < n // 2
        estimate = auroc_pu(np.concatenate([z_p, z_u]), labelled, prior)
        assert estimate == pytest.approx(roc_auc_score(y, z_u), abs=0.01)
    assert math.isnan(auroc_pu(np.ones(3), np.ones(3), 0.1))


def test_error_from_positives_and_unlabeled():
    rng = np.random.default_rng(3)
    n, prior = 200_000, 0.1
    y = rng.random(n) < prior
    z_u, z_p = rng.normal(3.0 * y - 1.5), rng.normal(1.5, size=n)
    estimate = error_pu(np.concatenate([z_p, z_u]), np.arange(2 * n) < n, prior)
    assert estimate == pytest.approx(((z_u > 0) != y).mean(), abs=0.003)


def test_mistakes_are_named():
    z = torch.zeros(4)
    with pytest.raises(ConfigError, match="share of positives"):
        nnpu(z, z, prior=1.0)
    with pytest.raises(ConfigError, match="'logistic'"):
        nnpu(z, z, prior=0.1, surrogate="logistics")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[4, 1\]"):
        nnpu(z[:, None], z, prior=0.1)
