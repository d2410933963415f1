"""The task: what learning reads, what scores mean, and that a lens finder can be rebuilt from what it knows of its data."""

from functools import partial

import numpy as np
import pytest
import torch

from lensfind.task import LensFinder
from skyloom.backbones import image_encoder
from skyloom.pu import nnpu, pn

VIT = partial(image_encoder, "vit_tiny_patch16_224", stem="convolutional", patch_size=8, embed_dim=32, depth=1, num_heads=2)


@pytest.fixture
def finder(small):
    torch.manual_seed(0)
    return LensFinder(small.about, VIT, partial(nnpu, surrogate="logistic"), target_prior=0.5, colour_aperture=0.6).eval()


def test_learning_from_positives_and_unlabeled_never_reads_the_truth(finder, small):
    batch = small.train.__getitems__(np.arange(0, 160, 5))
    loss = finder.losses(batch)["loss"]
    batch["lens"] = 1 - batch["lens"]
    assert torch.equal(finder.losses(batch)["loss"], loss)
    assert torch.equal(finder.losses({k: batch[k] for k in ("image", "labelled")})["loss"], loss)
    batch["labelled"] = 1 - batch["labelled"]
    assert not torch.equal(finder.losses(batch)["loss"], loss)


def test_the_oracle_reads_the_truth_alone(small):
    oracle = LensFinder(small.about, VIT, pn, target="lens").eval()
    batch = small.train.__getitems__(np.arange(0, 160, 5))
    loss = oracle.losses(batch)["loss"]
    batch["labelled"] = 1 - batch["labelled"]
    assert torch.equal(oracle.losses(batch)["loss"], loss)


def test_images_alone_are_enough_to_predict(finder, small):
    batch = small.test.__getitems__(np.arange(7))
    whole = finder.predict({"image": batch["image"]})["logit"]
    assert whole.shape == (7,)
    assert torch.allclose(finder.predict({"image": batch["image"][3:4]})["logit"], whole[3:4], atol=1e-5)
    assert torch.allclose(whole, finder(batch["image"]) - np.log(9.0))  # learned at even odds, stated at the class prior


def test_what_the_encoder_sees_is_of_order_one(finder, small):
    seen = finder.stretch(small.test["image"])
    assert seen.shape[1] == 4
    assert seen[:, :3].mean().abs() < 0.2
    assert seen[:, :3].std() == pytest.approx(1, abs=0.2)
    assert torch.isfinite(finder.stretch(torch.zeros(1, 3, 40, 40))).all()


def test_statistics_travel_with_the_weights(finder, small):
    about = {**small.about, "statistics": {k: [0.5] * 3 for k in small.about["statistics"]}}
    other = LensFinder(about, VIT, nnpu, target_prior=0.5, colour_aperture=0.6).eval()
    other.load_state_dict(finder.state_dict())
    images = small.test["image"][:4]
    assert torch.equal(other.predict({"image": images})["logit"], finder.predict({"image": images})["logit"])


def test_scores_are_of_the_whole_split(finder):
    rng = np.random.default_rng(0)
    labelled = torch.arange(4000) < 800
    lens = torch.from_numpy(rng.random(4000) < 0.1) | labelled
    logit = torch.from_numpy(rng.normal(2.0 * lens.numpy() - 1.5)).float()
    scores = finder.score({"logit": logit, "labelled": labelled.to(torch.uint8), "lens": lens.to(torch.uint8)})
    assert scores["auroc"] == pytest.approx(0.921, abs=0.03)  # of two unit Gaussians two apart: Phi(sqrt 2)
    assert scores["auroc_pu"] == pytest.approx(scores["auroc"], abs=0.03)
    assert scores["error_pu"] == pytest.approx(scores["error"], abs=0.03)
    only_pu = finder.score({"logit": logit, "labelled": labelled.to(torch.uint8)})
    assert only_pu == {k: scores[k] for k in ("auroc_pu", "error_pu")}
    undefined = finder.score({"logit": logit[:5], "labelled": labelled[:5], "lens": lens[:5]})
    assert all(np.isnan(v) for v in undefined.values())


def test_a_mark_that_only_lenses_bear_is_learned_from_positives_and_unlabeled(small):
    """Lenses, labelled or not, are given a brighter frame: a linear model under the risk finds the unlabeled ones by it."""

    class Linear(torch.nn.Module):
        def __init__(self, bands, size):
            super().__init__()
            self.layer = torch.nn.Linear(bands, 1)

        def forward(self, seen):
            return self.layer(seen[:, :, 0].mean(dim=-1))[:, 0]

    def marked(split):
        batch = split.__getitems__(np.arange(len(split)))
        batch["image"][:, :, 0] += 500.0 * batch["lens"][:, None, None]
        return batch

    finder = LensFinder(small.about, Linear, partial(nnpu, surrogate="logistic"), target_prior=0.5)
    optimizer = torch.optim.Adam(finder.parameters(), 0.1)
    batch = marked(small.train)
    for _ in range(60):
        optimizer.zero_grad()
        finder.losses(batch)["loss"].backward()
        optimizer.step()
    test = marked(small.test)
    with torch.no_grad():
        scores = finder.score({**finder.predict(test), "labelled": test["labelled"], "lens": test["lens"]})
    assert scores["auroc"] > 0.99
    assert scores["error"] < 0.05


def test_it_exports(finder):
    example = finder.example()
    batch = {"image": {0: torch.export.Dim("batch", min=1)}}
    exported = torch.export.export(_Predicting(finder), (example,), dynamic_shapes=(batch,), strict=False).module()
    for rows in (1, 2, 5):
        images = {"image": torch.rand(rows, 3, 40, 40) * 50}
        assert torch.allclose(exported(images)["logit"], finder.predict(images)["logit"], atol=1e-5)


class _Predicting(torch.nn.Module):
    def __init__(self, finder: LensFinder):
        super().__init__()
        self.finder = finder

    def forward(self, batch):
        return self.finder.predict(batch)
