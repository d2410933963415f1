"""The positive-unlabeled data set: composition, cache, truth that stays out of learning, and augmentation."""

import h5py
import numpy as np
import pytest
import torch

from lensfind.data import CARRIED, dihedral, simulated
from lensfind.features.colours import blue_excess
from lensfind.simulation.population import Population
from skyloom.data import SampleDraws
from skyloom.errors import ConfigError


def test_two_samples(small):
    for split, rows in ((small.train, 160), (small.val, 96), (small.test, 160)):
        assert len(split) == rows
        labelled, lens = split["labelled"].bool(), split["lens"].bool()
        assert labelled.sum() == round(0.2 * rows)
        assert lens[labelled].all()
        assert 0 < lens[~labelled].sum() < 0.25 * rows
        assert torch.equal(lens, ~split["theta_E"].isnan())
    assert small.about["setting"] == "two-sample"
    assert small.about["synthetic"] is True
    assert small.carry[: len(CARRIED)] == CARRIED


def test_no_cutout_is_in_two_splits(small):
    seeds = [set(split["seed"].tolist()) for split in (small.train, small.val, small.test)]
    assert not (seeds[0] & seeds[1] or seeds[0] & seeds[2] or seeds[1] & seeds[2])
    assert len(seeds[0]) == len(small.train)


def test_cache_gives_back_the_same_and_a_changed_argument_another(small, lsst, tmp_path):
    arguments = {"survey": lsst, "n_train": 40, "n_val": 20, "n_test": 20, "size": 36, "seed": 7, "cache_dir": tmp_path}
    made, read = simulated(**arguments), simulated(**arguments)
    assert made.about == read.about
    assert torch.equal(made.train["image"], read.train["image"])
    (file,) = (tmp_path / "lensfind").iterdir()
    with h5py.File(file) as stored:
        assert "synthetic" in stored.attrs["note"]
        assert stored["test/image"].shape == (20, 3, 36, 36)
    other = simulated(**{**arguments, "n_train": 50})
    assert other.about["fingerprint"] != made.about["fingerprint"]
    assert torch.equal(other.test["image"], made.test["image"])  # more training rows leave the test split alone


def test_noise_of_the_training_split_is_that_of_the_survey(small, lsst):
    assert small.about["statistics"]["noise"] == pytest.approx(lsst.sky_sigma().tolist(), rel=0.1)


def test_dihedral_turns_each_image_on_its_own_and_keeps_its_flux():
    images = torch.rand(64, 2, 9, 9)
    index = torch.arange(64)
    turned = dihedral({"image": images, "labelled": index}, SampleDraws(0, 2, index))["image"]
    assert torch.allclose(turned.sum(dim=(2, 3)), images.sum(dim=(2, 3)))
    assert torch.allclose(turned.flatten(1).sort().values, images.flatten(1).sort().values)
    symmetries = [torch.rot90(image, k, (-2, -1)) for image in (images, images.flip(-1)) for k in range(4)]
    matches = torch.stack([(turned == s).flatten(1).all(1) for s in symmetries])
    assert (matches.sum(0) == 1).all()
    assert (matches.sum(1) > 0).all()  # all eight occur
    some = torch.tensor([5, 40])
    alone = dihedral({"image": images[some]}, SampleDraws(0, 2, some))["image"]
    assert torch.equal(alone, turned[some])


def test_blue_excess_removes_what_is_as_red_as_the_centre():
    size = 31
    y, x = (torch.from_numpy(np.mgrid[:size, :size]).float() - 15).unbind()
    galaxy = 800 * torch.exp(-(x**2 + 2 * y**2) / 30)
    arc = 20 * torch.exp(-(((torch.hypot(x, y) - 9) / 1.5) ** 2)) * (x > 0)
    images = torch.stack([0.2 * galaxy + arc, 0.5 * galaxy + 0.6 * arc, galaxy + 0.5 * arc])[None]
    noise = torch.ones(3, 1, 1)
    excess = blue_excess(images, noise, aperture=3.0)[0, 0]
    expected = arc * (1 - 0.2 * 0.5) / (1 + 0.2**2) ** 0.5
    assert (excess - expected).abs().max() < 0.02 * expected.max()
    again = blue_excess(images * torch.tensor([1.0, 1.0, 7.0])[:, None, None], noise, aperture=3.0)  # another calibration of i
    assert torch.corrcoef(torch.stack([again.flatten(), excess.flatten()]))[0, 1] > 0.999


def test_mistakes_are_named(lsst, tmp_path):
    with pytest.raises(ConfigError, match="class_prior"):
        simulated(lsst, 10, 10, 10, size=40, seed=0, cache_dir=tmp_path, class_prior=1.5)
    with pytest.raises(ConfigError, match="0 < low <= high"):
        Population(einstein_radius=(2.0, 1.0))
