"""Intervals that cover as often as they say, and longer ones where rows belong together."""

import math

import numpy as np
import torch

from skyloom.metrics import Estimate, bootstrap


def mean(predictions):
    return {"mean": float(predictions["x"].mean())}


def test_a_95_percent_interval_of_a_mean_covers_95_times_in_100():
    rng, covered, repeats = np.random.default_rng(0), 0, 300
    for _ in range(repeats):
        x = torch.as_tensor(rng.exponential(size=120))
        interval = bootstrap(mean, {"x": x}, None, rng, resamples=300)["mean"]
        covered += interval.low <= 1.0 <= interval.high
    assert 0.90 < covered / repeats < 0.975


def test_rows_of_one_group_are_drawn_together_and_the_interval_grows():
    rng = np.random.default_rng(1)
    level = rng.normal(size=60)
    groups = np.repeat(np.arange(60), 10)
    x = torch.as_tensor(level[groups])
    alone = bootstrap(mean, {"x": x}, None, rng, 400)["mean"]
    together = bootstrap(mean, {"x": x}, torch.as_tensor(groups), rng, 400)["mean"]
    assert (together.high - together.low) / (alone.high - alone.low) > 2.3  # sqrt(10) in the limit
    half = 1.96 * level.std() / math.sqrt(60)
    assert abs((together.high - together.low) / (2 * half) - 1) < 0.2


def test_undefined_resamples_do_not_count_and_the_value_is_that_of_all_rows():
    labels = torch.tensor([1.0] + [0.0] * 9)

    def share(predictions):
        return {"share": math.nan if predictions["x"].sum() == 0 else float(predictions["x"].mean())}

    estimate = bootstrap(share, {"x": labels}, None, np.random.default_rng(2), 300)["share"]
    assert float(estimate) == torch.tensor(0.1)
    assert estimate.low >= 0.1 - 1e-6


def test_columns_that_no_score_reads_are_not_copied():
    class Precious:
        def __len__(self):
            return 5

        def __getitem__(self, index):
            raise AssertionError("copied")

    bootstrap(mean, {"x": torch.arange(5.0), "samples": Precious()}, None, np.random.default_rng(0), 5)


def test_an_estimate_is_its_number():
    assert Estimate(0.5, 0.4, 0.6) + 1 == 1.5
    assert Estimate(0.5).to_json()["value"] == 0.5
