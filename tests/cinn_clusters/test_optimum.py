"""Estimates of the true posterior: its maximum is one, and its median is the best there is for absolute errors."""

import numpy as np
import pytest
import torch

from cinn_clusters import data
from cinn_clusters.optimum import true_coverage, true_estimates
from cinn_clusters.synthetic import merger_catalogue
from cinn_clusters.truth import log_joint, posterior_draws
from skyloom.flows import from_json

CEILING = 1.05
RATIO = 4
pytestmark = pytest.mark.filterwarnings("ignore:.*impossible last_M_Crit500_coll")


@pytest.fixture(scope="module")
def clusters():
    return data.from_tables(*merger_catalogue(160, seed=1), synthetic=True)


@pytest.fixture(scope="module")
def found(clusters):
    context = clusters.train["context"][::8].double().numpy()
    target = clusters.train["target"][::8].double().numpy()
    to_target = from_json(clusters.about["target_transform"])
    return context, target, to_target, true_estimates(context, to_target, draws=100, steps=100)


def in_scaled_coordinates(context, target, to_target):
    """The density of the coordinates that the flow models, up to a constant of each cluster."""
    seen, y = torch.as_tensor(context), torch.as_tensor(target)
    return log_joint(context, target, CEILING) - to_target(y, seen)[1].sum(-1).numpy()


def test_the_maximum_is_above_every_draw_and_stands_still(found):
    context, _, to_target, estimates = found
    best = estimates["map"]
    top = in_scaled_coordinates(context, best, to_target)
    draws = posterior_draws(context, 40, seed=9)
    others = np.stack([in_scaled_coordinates(context, draws[:, k], to_target) for k in range(40)])
    uncapped = (draws[..., RATIO] < 1).T & (best[:, RATIO] < 1)
    assert (others < top + 1e-6)[uncapped].mean() > 0.999
    again = true_estimates(context[:10], to_target, draws=100, steps=400, seed=5)["map"]
    moved = np.abs(again - best[:10])[best[:10, RATIO] < 1] / np.std(best, 0)
    assert np.median(moved) < 0.05


def test_its_intervals_hold_the_share_that_they_claim(found):
    context, target, _, _ = found
    for level in (0.68, 0.95):
        share = true_coverage(context, target, level, draws=100)
        assert np.abs(share - level).max() < 4 * np.sqrt(level * (1 - level) / len(context))


def test_no_estimate_errs_less_than_the_true_median_and_the_maximum_errs_more(found):
    _, target, _, estimates = found
    spread = np.std(target, 0)
    median, mode = (np.abs(estimates[name] - target).mean(0) / spread for name in ("median", "map"))
    assert mode.mean() > 1.02 * median.mean()
    for shifted in (estimates["median"] + 0.15 * spread, estimates["median"] - 0.15 * spread):
        assert (np.abs(shifted - target).mean(0) / spread).mean() > median.mean()
