"""What went wrong once in the core statistics, each named for it: extreme logits, absent classes, NaN, rounding, columns."""

import doctest
import json
import math
from functools import partial
from importlib import import_module

import numpy as np
import pytest
import torch
from scipy.stats import norm

from skyloom.calibration import Conformal, Temperature, VectorScaling, calibrator_from_json, shift_prevalence
from skyloom.data import Columns, Data
from skyloom.errors import ConfigError, DataError
from skyloom.metrics import Ranking, delong
from skyloom.pu import (
    advice,
    choose,
    external_prior,
    kernel_mean,
    log_odds,
    nnpu,
    nnpu_impure,
    nnpu_votes,
    operating_point,
    prevalence_threshold,
    prior_shift,
    sar,
    tree_induction,
    unidentified,
)
from skyloom.training import Trainer
from skyloom.uncertainty import beta_nll, fixed_effects, linear_pool, log_pool

Z = torch.tensor([2.0, -1.0, 0.5, -3.0, 1.5, 0.2])
S = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])


# ---------------------------------------------------------------- positive-unlabeled


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_log_odds_of_a_focal_logit_were_infinite_beyond_a_hundred(gamma):
    z = torch.tensor([-1e3, -120.0, -16.0, -14.0, 14.0, 16.0, 120.0, 1e3])
    exact = (1 + gamma) * z.double() + z.sign() * -math.log1p(gamma)  # where p is nearly 0 or 1
    assert torch.allclose(log_odds(z, gamma).double(), exact, rtol=1e-5, atol=1e-4 if gamma == 0 else 1e-3)


def test_votes_that_invent_no_positive_made_the_risk_nan():
    votes = torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    exact, near = (nnpu_votes(Z, S, votes, 0.3, missed=0.2, invented=v)["loss"] for v in (0.0, 1e-7))
    assert float(exact) == pytest.approx(float(near), abs=1e-4)


def test_impure_labels_in_a_step_of_one_sample_gave_a_risk_without_a_floor():
    """The correction of a sample that the step lacks pushed its rows to minus infinity."""
    for z, labels in ((50.0, 1.0), (-50.0, 0.0)):
        found = nnpu_impure(torch.full((4,), z), torch.full((4,), labels), 0.1, purity=0.8, surrogate="logistic")
        assert float(found["loss"]) >= 0
    pure = nnpu_impure(Z[:2], S[:2], 0.1, purity=1.0)["loss"]
    assert float(pure) == pytest.approx(float(nnpu(Z[:2], S[:2], 0.1)["loss"]), abs=1e-6)


def test_a_propensity_that_is_nan_passed():
    with pytest.raises(DataError, match="propensities"):
        sar(Z, S, torch.tensor([0.5, math.nan, 1, 1, 1, 1]))
    assert math.isfinite(float(sar(Z, S, torch.tensor([0.5, 0.5, math.nan, 1, 1, 1]))["loss"]))  # not read


def test_advice_on_a_run_of_nan_broke():
    assert "not a number" in advice([{"train/risk_p+": math.nan}] * 6, 0.1)[0]


def test_scores_that_are_nan_were_counted_as_the_highest():
    with pytest.raises(DataError, match="NaN"):
        prevalence_threshold(np.array([0.1, 0.4, np.nan, 0.9]), 0.25)


def test_a_candidate_of_nan_scores_was_chosen_as_the_best():
    s = np.arange(60) < 20
    good = s + np.random.default_rng(0).normal(size=60)
    for metric in ("auroc", "error"):
        with pytest.raises(DataError, match="'bad'"):
            choose({"good": good, "bad": np.full(60, np.nan)}, s, 0.1, metric, resamples=2)


def test_the_precision_had_an_upper_limit_where_no_unlabeled_row_is_flagged():
    s = np.arange(1050) < 50
    found = operating_point(np.where(s, 1.0, -1.0), s, 1e-3)["precision"]
    assert found.high == 1.0 and 0 < found.low < 0.3


def test_bounds_of_a_prior_that_may_be_zero_were_nan():
    found = unidentified(0.02, external_prior(0.01, 0.0, 0.05, "a survey"))
    assert found["recall"] == (0.0, 1.0) and np.isfinite(list(found.values())).all()


def test_kernel_means_of_positives_alone_gave_a_tight_prior_of_a_third():
    """F = H has the prior 1; KM2 gave 0.29 to 0.62 with limits 0.03 away, and did not refuse."""
    rng = np.random.default_rng(0)
    found = kernel_mean(rng.normal(2, 1, (40, 2)), rng.normal(2, 1, (40, 2)), repeats=1)
    assert "cannot be told" in found.refused and found.high == 1.0


def test_the_interval_of_kernel_means_did_not_know_of_the_rows():
    """All rows in every subsample: repeats did not vary. Of these rows, at 0.5, it said [0.25, 0.41]."""
    rng = np.random.default_rng(4)
    u = np.r_[rng.normal(2, 1, (20, 2)), rng.normal(-1, 1, (20, 2))]
    found = kernel_mean(rng.normal(2, 1, (40, 2)), u, repeats=2, rng=rng)
    assert found.low <= 0.5 <= found.high


def test_a_feature_that_is_a_list_of_numbers_was_taken_for_one_row_and_constants_for_features():
    rng = np.random.default_rng(0)
    p, u = rng.normal(2, 1, 30), np.r_[rng.normal(2, 1, 15), rng.normal(-2, 1, 15)]
    for estimate in (partial(kernel_mean, repeats=1), partial(tree_induction, splits=5)):
        one, column = (estimate(a, b, rng=np.random.default_rng(1)) for a, b in ((p, u), (p[:, None], u[:, None])))
        assert one == column
    with pytest.raises(DataError, match="no feature varies"):
        kernel_mean(np.ones((30, 2)), np.ones((30, 2)))


@pytest.mark.parametrize("prior, target", [(1e-5, 0.5), (0.3, 0.01), (0.999, 0.5)])
def test_there_is_one_shift_of_the_prior(prior, target):
    assert prior_shift(prior, target) == float(shift_prevalence(0.0, target, prior))
    with pytest.raises(ConfigError):
        prior_shift(0.0, target)


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(1, 1)
        torch.nn.init.ones_(self.line.weight)
        torch.nn.init.zeros_(self.line.bias)

    def losses(self, batch):
        return nnpu(self.line(batch["x"])[:, 0], batch["s"], prior=0.6, surrogate="logistic")

    def predict(self, batch):
        return {"z": self.line(batch["x"])[:, 0]}

    def score(self, predictions):
        return {"mean": float(predictions["z"].mean())}


def test_the_validation_loss_depended_on_how_the_split_was_cut():
    """The negative risk of each part was kept from below by itself: of ten rows nine are labelled, or one."""
    s = torch.tensor([1.0] * 9 + [0.0] + [0.0] * 9 + [1.0])
    columns = {"x": torch.linspace(3, -3, 20)[:, None], "s": s}
    table = Columns(columns)
    found = []
    for size in (10, 20):
        task = Line()
        seen: list[dict[str, float]] = []
        Trainer(epochs=1, batch_size=size, quiet=True, objective=[{"metric": "val/loss", "direction": "minimize"}]).fit(
            task,
            Data(table, table, table, about={"fingerprint": "cut", "synthetic": True}),
            lambda m: torch.optim.SGD(m.parameters(), lr=0.0),
            record=lambda row, step, seen=seen: seen.append(row),
        )
        found.append(next(row["val/loss"] for row in seen if "val/loss" in row))
        with torch.no_grad():
            whole = float(task.losses(columns)["loss"])
            apart = np.mean(
                [float(task.losses({k: v[rows] for k, v in columns.items()})["loss"]) for rows in (slice(10), slice(10, 20))]
            )
    assert found == pytest.approx([whole, whole], abs=1e-6)
    assert abs(apart - whole) > 0.05  # or the test tells nothing


@pytest.mark.parametrize("name", ["surrogates", "risks", "noisy", "tails", "class_prior", "evaluation", "scores", "settings"])
def test_an_example_in_a_docstring_was_not_true(name):
    module = import_module(f"skyloom.pu.{name}")
    found = doctest.testmod(module)
    assert found.failed == 0 and found.attempted > 0


# ---------------------------------------------------------------- metrics


def test_delong_with_one_positive_was_certain_of_a_difference():
    found = delong([1, 2, 3, 4], [4, 3, 2, 1], [0, 0, 0, 1])
    assert math.isnan(found.p_value) and math.isnan(found.difference.low)


def test_before_the_zeroth_false_positive_everything_was_flagged():
    ranking = Ranking([1, 2, 3, 4], [0, 1, 0, 1])
    for count in (0, -1):
        with pytest.raises(ValueError, match="fewer than"):
            ranking.tpr_before(count)


# ---------------------------------------------------------------- calibration


def test_the_prevalence_of_logits_in_two_columns_was_not_shifted():
    rng = np.random.default_rng(0)
    z = 2 * rng.normal(size=200)
    y = (rng.random(200) < norm.cdf(z)).astype(int)
    columns = np.column_stack([np.zeros(200), z])
    two, one = (Temperature.fit(v, y).at_prevalence(1e-3) for v in (columns, z))
    assert two.probability(columns)[:, 1] == pytest.approx(one.probability(z), abs=1e-12)
    assert two.probability(columns).sum(axis=1) == pytest.approx(1)
    three = Temperature.fit(rng.normal(size=(60, 3)), np.arange(60) % 3)
    with pytest.raises(ConfigError, match="two classes"):
        three.at_prevalence(0.1, source=0.5)


def test_numbers_of_numpy_did_not_survive_json():
    z, y = np.linspace(-2, 3, 40), np.arange(40) % 3 % 2
    shifted = Temperature.fit(z, y).at_prevalence(np.float32(1e-3))
    again = calibrator_from_json(json.loads(json.dumps(shifted.to_json(), allow_nan=False)))
    assert (again(z) == shifted(z)).all()
    sets = Conformal.fit(z, y, 0.2, by_label=np.bool_(True))
    assert (calibrator_from_json(json.loads(json.dumps(sets.to_json()))).sets(z) == sets.sets(z)).all()


def test_vector_scaling_of_separated_classes_said_nothing():
    with pytest.warns(UserWarning, match="separated"):
        VectorScaling.fit(np.eye(3)[[0, 1, 2] * 3] * 5.0, [0, 1, 2] * 3)


# ---------------------------------------------------------------- uncertainty


def test_a_pool_of_extreme_logits_was_infinite_and_one_of_three_classes_was_mixed_up():
    assert linear_pool([[-1e3, 1e3], [-1e3, 1e3]]) == pytest.approx([-1e3, 1e3])
    assert linear_pool([[-800.0], [-900.0]], [1, 3])[0] == pytest.approx(-800 - math.log(4))
    for pool in (linear_pool, log_pool):
        with pytest.raises(DataError, match="two classes"):
            pool(np.zeros((3, 3, 2)))


def test_an_infinite_variance_made_the_fused_variance_nan():
    with pytest.raises(DataError, match="finite"):
        fixed_effects([[1.0], [2.0]], [[0.1], [np.inf]])


def test_beta_nll_was_summed_in_bfloat16():
    mean, variance, target = torch.zeros(3000), torch.zeros(3000), torch.linspace(0, 2, 3000)
    full, low = beta_nll(mean, variance, target), beta_nll(*(v.bfloat16() for v in (mean, variance, target)))
    assert low.dtype == torch.float32 and float(low) == pytest.approx(float(full), rel=1e-3)
