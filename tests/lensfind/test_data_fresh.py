"""Training on scenes that are never seen twice: each a pure function of seed, epoch and sample."""

import numpy as np
import pytest
import torch

from lensfind.data import fresh, simulated
from lensfind.simulation.population import KINDS, LENS
from skyloom.data import SampleDraws
from skyloom.training.loading import load


@pytest.fixture(scope="module")
def arguments(lsst, tmp_path_factory) -> dict:
    return {
        "survey": lsst,
        "n_train": 64,
        "n_val": 20,
        "n_test": 20,
        "size": 40,
        "seed": 3,
        "cache_dir": tmp_path_factory.mktemp("c"),
    }


@pytest.fixture(scope="module")
def data(arguments):
    return fresh(**arguments)


def batch(data, rows, epoch=0, seed=0):
    rows = np.asarray(rows)
    return data.augment(data.train.__getitems__(rows), SampleDraws(seed, epoch, torch.as_tensor(rows)))


def test_a_sample_is_the_same_whatever_stands_beside_it(data):
    together = batch(data, np.arange(24))
    for size in (1, 5):
        for start in (0, 7, 20):
            rows = np.arange(start, min(start + size, 24))
            alone = batch(data, rows)
            for name in ("image", "kind", "seed", "theta_E"):
                assert torch.allclose(alone[name], together[name][rows], rtol=1e-5, atol=1e-4, equal_nan=True), name


def test_workers_do_not_matter(data):
    parts = [np.array([3, 60, 11]), np.array([5, 0, 63])]
    for workers in (0, 2):
        for rows, given in zip(parts, load(data.train, parts, workers), strict=True):
            drawn = data.augment(given, SampleDraws(0, 1, torch.as_tensor(rows)))
            assert torch.allclose(drawn["image"], batch(data, rows, epoch=1)["image"], atol=1e-4)


def test_no_cutout_is_seen_twice_and_all_is_new_in_each_epoch(data):
    seeds = torch.cat([batch(data, np.arange(64), epoch)["seed"] for epoch in range(3)])
    assert len(set(seeds.tolist())) == 3 * 64
    assert not torch.equal(batch(data, [40], epoch=0)["image"], batch(data, [40], epoch=1)["image"])


def test_the_sample_is_composed_as_the_simulated_one(data):
    labelled = data.train.__getitems__(np.arange(64))["labelled"].bool()
    assert int(labelled.sum()) == round(0.2 * 64)
    index = torch.arange(20000)
    _, kinds = data.augment.scenes(index < 0, SampleDraws(1, 0, index))
    assert float((kinds == LENS).float().mean()) == pytest.approx(0.1, abs=0.01)
    negatives = data.augment.recipe.population.negatives
    for name, share in negatives.items():
        expected = 0.9 * share / sum(negatives.values())
        assert float((kinds == KINDS.index(name)).float().mean()) == pytest.approx(expected, abs=0.012)
    _, labels = data.augment.scenes(index >= 0, SampleDraws(1, 0, index))
    assert (labels == LENS).all()


def test_validation_and_test_are_those_of_the_simulated_set(data, arguments):
    drawn = simulated(**arguments)
    assert torch.equal(data.val["image"], drawn.val["image"])
    assert torch.equal(data.test["seed"], drawn.test["seed"])
    assert data.carry == drawn.carry
    assert data.about["statistics"]["noise"] == pytest.approx(drawn.about["statistics"]["noise"], rel=0.1)


def test_batches_hold_what_those_of_the_simulated_set_hold(data, arguments):
    drawn = simulated(**arguments)
    assert set(batch(data, [1, 50])) == set(drawn.train.columns)
    for name, values in batch(data, [1, 50]).items():
        assert values.dtype == drawn.train[name].dtype, name
        assert values.shape[1:] == drawn.train[name].shape[1:], name


def test_a_size_that_is_left_open_holds_the_widest_lens(arguments):
    assert fresh(**{**arguments, "size": None}).about["size"] == 40
