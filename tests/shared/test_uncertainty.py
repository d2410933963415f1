"""Splits of uncertainty, selective prediction, novelty: identities and closed forms."""

import doctest
import importlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from skyloom.errors import DataError
from skyloom.uncertainty import (
    Mahalanobis,
    coverage_at_risk,
    disagreement,
    energy,
    expected_entropy,
    member_columns,
    mutual_information,
    pairwise_kl,
    predictive_entropy,
    risk_coverage,
    variance_split,
    vote_entropy,
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
