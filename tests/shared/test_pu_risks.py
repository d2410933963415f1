"""Settings kept apart, surrogates, doubtful labels, selection by features: each an identity over many rows, or by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.errors import ConfigError, DataError
from skyloom.pu import (
    advice,
    focal,
    log_odds,
    nnpu,
    nnpu_impure,
    nnpu_votes,
    pn,
    prevalence_threshold,
    prior_of_sample,
    prior_of_unlabeled,
    sar,
    upu,
)
from skyloom.pu.noisy import share_given_vote

N, PRIOR = 200_000, 0.3


def population(seed=0, n=N):
    rng = np.random.default_rng(seed)
    y = rng.random(n) < PRIOR
    return rng, y, rng.normal(np.where(y, 1.0, -1.0))


def tensor(*arrays):
    return torch.from_numpy(np.concatenate(arrays).astype(float))


def supervised(z, y, **options):
    return float(pn(tensor(z), tensor(y), prior=y.mean(), **options)["loss"])


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize("surrogate", ["logistic", "sigmoid", "focal"])
def test_one_sample_and_two_samples_each_give_the_supervised_risk_and_not_the_other(surrogate):
    rng, y, z = population()
    truth = supervised(z, y, surrogate=surrogate)
    s = y & (rng.random(N) < 0.5)
    share, prior = float(s.mean()), float(y.mean())
    one = upu(tensor(z), tensor(s), prior=prior, labelled_share=share, surrogate=surrogate)["loss"]
    assert float(one) == pytest.approx(truth, abs=0.004)
    mistaken = upu(tensor(z), tensor(s), prior=prior, surrogate=surrogate)["loss"]
    assert abs(float(mistaken) - truth) > 0.02
    p = rng.normal(1.0, size=N // 2)
    two = upu(tensor(p, z), tensor(np.ones(N // 2), np.zeros(N)), prior=prior, surrogate=surrogate)["loss"]
    assert float(two) == pytest.approx(truth, abs=0.006)


def test_of_one_sample_the_share_in_the_batch_does_not_matter():
    """Balanced batches hold more labelled rows than the sample does; the share is given, not counted."""
    rng, y, z = population(n=4000)
    s = y & (rng.random(4000) < 0.5)
    options = {"prior": 0.3, "labelled_share": 0.15}
    once = nnpu(tensor(z), tensor(s), **options)["loss"]
    more = nnpu(tensor(z, z[s], z[s]), tensor(s, s[s], s[s]), **options)["loss"]
    assert float(more) == pytest.approx(float(once), abs=1e-12)


@given(st.floats(0.01, 0.99), st.floats(0.0, 0.98))
def test_priors_of_sample_and_unlabeled_are_inverse(prior, part):
    share = prior * part
    assert prior_of_sample(prior_of_unlabeled(prior, share), share) == pytest.approx(prior, abs=1e-12)
    assert prior_of_unlabeled(prior, share) <= prior + 1e-12


def test_a_share_that_cannot_be_is_named():
    with pytest.raises(ConfigError, match="two independent samples leave labelled_share out"):
        nnpu(torch.zeros(4), torch.tensor([1.0, 0, 0, 0]), prior=0.1, labelled_share=0.2)


# ---------------------------------------------------------------- surrogates


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0, 4.0), st.floats(-6.0, 6.0))
def test_a_focal_logit_read_by_log_odds_minimizes_the_risk_at_those_odds(gamma, v):
    """At z the odds eta/(1-eta) = exp(log_odds(z)) make the derivative of eta l(z) + (1-eta) l(-z) vanish."""
    z = torch.tensor(v, dtype=torch.float64, requires_grad=True)
    eta = torch.sigmoid(log_odds(z.detach(), gamma))
    loss = focal(gamma)
    slope = torch.autograd.grad(eta * loss(z) + (1 - eta) * loss(-z), z)[0]
    assert abs(float(slope)) < 1e-9
    assert abs(float(log_odds(z.detach(), gamma))) >= abs(v) - 1e-9  # the focal logit is timid


def test_focal_is_the_formula():
    z = torch.linspace(-5, 5, 11, dtype=torch.float64)
    p = torch.sigmoid(z)
    assert torch.allclose(focal(2.0)(z), -((1 - p) ** 2) * torch.log(p))
    assert torch.isfinite(focal(2.0)(torch.tensor([-500.0, 500.0]))).all()


# ---------------------------------------------------------------- doubtful labels


def test_impure_labels():
    """A quarter of the labelled is negative: corrected, the risk is the supervised one; taken for pure, it is not."""
    rng, y, z = population()
    n = N // 2
    pure = rng.random(n) < 0.75
    p = rng.normal(np.where(pure, 1.0, -1.0))
    both, labels = tensor(p, z), tensor(np.ones(n), np.zeros(N))
    truth = supervised(z, y, surrogate="sigmoid")
    risk = nnpu_impure(both, labels, prior=PRIOR, purity=0.75)["loss"]
    assert float(risk) == pytest.approx(truth, abs=0.006)
    assert abs(float(nnpu(both, labels, prior=PRIOR)["loss"]) - truth) > 0.02


def test_pure_labels_give_nnpu_back_with_its_step():
    torch.manual_seed(0)
    labels = (torch.arange(20) < 6).double()
    for scale in (0.5, 6.0):
        z = (torch.randn(20, dtype=torch.float64) + scale * (2 * labels - 1)).requires_grad_()
        a, b = (risk(z, labels, prior=0.4, **o) for risk, o in ((nnpu, {}), (nnpu_impure, {"purity": 1.0})))
        assert float(a["loss"].detach()) == pytest.approx(float(b["loss"].detach()), abs=1e-12)
        steps = [torch.autograd.grad(t["loss"], z)[0] for t in (a, b)]
        assert torch.allclose(*steps, atol=1e-12)


def test_votes_are_unbiased_and_less_noisy_than_no_votes():
    deviations = {"votes": [], "none": []}
    for seed in range(60):
        rng, y, z = population(seed, n=2000)
        votes = np.where(y, rng.random(2000) > 0.2, rng.random(2000) < 0.1)
        p = rng.normal(1.0, size=200)
        both, labels, cast = tensor(p, z), tensor(np.ones(200), np.zeros(2000)), tensor(np.ones(200), votes)
        truth = float(pn(tensor(z), tensor(y), prior=PRIOR, surrogate="logistic")["loss"])
        options = {"prior": PRIOR, "surrogate": "logistic"}
        deviations["votes"].append(float(nnpu_votes(both, labels, cast, missed=0.2, invented=0.1, **options)["loss"]) - truth)
        deviations["none"].append(float(nnpu(both, labels, **options)["loss"]) - truth)
    assert abs(np.mean(deviations["votes"])) < 3 * np.std(deviations["votes"]) / np.sqrt(60)
    assert np.std(deviations["votes"]) < 0.8 * np.std(deviations["none"])


def test_votes_at_chance_tell_nothing_and_are_refused():
    assert share_given_vote(0.2, 0.3, 0.3)[0] < 0.2 < share_given_vote(0.2, 0.3, 0.3)[1]
    with pytest.raises(ConfigError, match="beat chance"):
        share_given_vote(0.2, 0.5, 0.5)
    with pytest.raises(ConfigError, match="purity"):
        nnpu_impure(torch.zeros(4), torch.ones(4), prior=0.4, purity=0.3)


# ---------------------------------------------------------------- selection by features


def test_the_propensity_weighted_risk_is_unbiased_where_the_others_are_not():
    """Bright positives are labelled first: e(x) = s(2 x). SCAR risks are off; the weighted one is the supervised risk."""
    rng, y, x = population()
    e = 1 / (1 + np.exp(-(0.5 + x)))
    s = y & (rng.random(N) < e)
    z = 1.5 * x - 0.3
    truth = supervised(z, y, surrogate="logistic")
    terms = sar(tensor(z), tensor(s), tensor(e), smallest=1e-3)
    assert float(terms["loss"]) == pytest.approx(truth, abs=0.01)
    assert float(terms["implied_prior"]) == pytest.approx(PRIOR, abs=0.01)
    scar = upu(tensor(z), tensor(s), prior=PRIOR, labelled_share=float(s.mean()))["loss"]
    assert abs(float(scar) - truth) > 0.05


def test_constant_propensity_is_the_one_sample_risk():
    rng, y, z = population(n=3000)
    s = y & (rng.random(3000) < 0.5)
    share = float(s.mean())
    e = torch.full((3000,), share / 0.35, dtype=torch.float64)
    weighted = sar(tensor(z), tensor(s), e)["loss"]
    plain = nnpu(tensor(z), tensor(s), prior=0.35, labelled_share=share, surrogate="logistic")["loss"]
    assert float(weighted) == pytest.approx(float(plain), abs=1e-12)
    with pytest.raises(DataError, match=r"\(0, 1\]"):
        sar(tensor(z), tensor(s), 0 * e)


def test_the_ranking_that_selection_keeps_gets_its_threshold_from_the_prior():
    """PUSB: with scores any increasing function of the truth's, the threshold flags the right share."""
    _, _, x = population(n=50_000)
    distorted = np.tanh(x) ** 3
    flagged = distorted > prevalence_threshold(distorted, 0.3)
    exact = x > prevalence_threshold(x, 0.3)
    assert flagged.mean() == pytest.approx(0.3, abs=1e-4)
    assert np.array_equal(flagged, exact)


# ---------------------------------------------------------------- defects of earlier sources


def test_defect_beta_zero_switched_the_correction_off():
    """The source corrected only for beta > 0, so its default was the unbiased risk, -1.0 at a memorised prior of 0.1."""
    z = torch.cat([torch.full((20,), 10.0), torch.full((80,), -10.0)])
    labels = (torch.arange(100) < 20).float()
    for prior, unbiased in ((0.001, -0.01), (0.01, -0.1), (0.1, -1.0)):
        assert float(upu(z, labels, prior=prior)["loss"]) == pytest.approx(unbiased, rel=0.02)
        assert float(nnpu(z, labels, prior=prior, surrogate="logistic", beta=0.0)["loss"]) >= 0


def test_defect_logarithm_of_sigmoid_plus_epsilon():
    """-log(sigmoid(z) + 1e-7) stops at 16.1 and its gradient vanishes; the surrogate goes on."""
    z = torch.tensor([-60.0, 0.0], requires_grad=True)
    loss = upu(z, torch.tensor([1.0, 0.0]), prior=0.5)["loss"]
    assert float(torch.autograd.grad(loss, z)[0][0]) == pytest.approx(-0.5, abs=1e-6)


def test_defect_dividing_a_pu_probability_by_the_prior():
    """At the minimum of the risk over x with P(y=1|x) = f, sigmoid(z) is f itself; divided by the prior it saturates."""
    f, counts = np.array([0.02, 0.3, 0.9]), np.array([0.91, 0.08, 0.01])
    prior = float(counts @ f)
    z = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    in_u, in_p = torch.tensor(counts), torch.tensor(counts * f / prior)
    optimizer = torch.optim.LBFGS([z], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        softplus = torch.nn.functional.softplus
        loss = prior * (in_p * softplus(-z)).sum() + (in_u * softplus(z)).sum() - prior * (in_p * softplus(z)).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.sigmoid(z).detach().numpy() == pytest.approx(f, abs=1e-3)
    assert (torch.sigmoid(z).detach().numpy() / prior).max() > 1


# ---------------------------------------------------------------- monitors


def test_advice_tells_collapse_overfitting_and_a_wrong_prior_apart():
    row = lambda **terms: [{f"train/{k.replace('risk_p', 'risk_p+')}": v for k, v in terms.items()}] * 9  # noqa: E731
    assert "nothing is called positive" in advice(row(risk_p=0.98, **{"risk_u-": 0.01}, clipped=0.0), prior=0.01)[0]
    assert "90% of the steps are clipped" in advice(row(risk_p=0.1, **{"risk_u-": 0.1}, clipped=0.9), prior=0.6)[0]
    assert "Use nnpu" in advice(row(risk_p=0.0, **{"risk_u-": 0.0}, negative_risk=-0.2), prior=0.3)[0]
    assert advice(row(risk_p=0.1, **{"risk_u-": 0.2}, clipped=0.1), prior=0.3) == []
    assert advice([{"step": 1}], prior=0.3) == []
