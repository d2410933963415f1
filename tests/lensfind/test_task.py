"""The task: what learning reads, what scores mean, and that a lens finder can be rebuilt from what it knows of its data."""

from functools import partial

import numpy as np
import pytest
import torch

from lensfind.models import ConditionedResNet, LightTransformer, RadiusHead
from lensfind.models import finder as finder_of
from lensfind.training.task import LensFinder, arcsinh, bernoulli_divergence
from skyloom.backbones import image_encoder
from skyloom.errors import ConfigError, DataError
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


# ---------------------------------------------------------------- what a task may have besides

LIGHT = partial(finder_of, backbone=partial(LightTransformer, width=16, depth=1, heads=2, min_tokens=9))
LOGISTIC = partial(nnpu, surrogate="logistic")


def made(small, model=LIGHT, **options):
    torch.manual_seed(0)
    return LensFinder(small.about, model, LOGISTIC, target_prior=0.5, **options)


def test_the_mean_over_views_does_not_turn_with_the_image(small):
    images = small.test["image"][:4]
    single, eight = made(small).eval(), made(small, views=8).eval()
    turned = torch.rot90(images, 1, (-2, -1)).flip(-1)
    assert not torch.allclose(single.predict({"image": turned})["logit"], single.predict({"image": images})["logit"], atol=1e-3)
    assert torch.allclose(eight.predict({"image": turned})["logit"], eight.predict({"image": images})["logit"], atol=1e-4)
    assert (eight.predict({"image": images})["view_spread"] > 0).all()
    with pytest.raises(ConfigError, match="views"):
        made(small, views=4)


def test_one_scale_is_training_at_one_size_and_several_agree_when_asked(small):
    batch = small.train.__getitems__(np.arange(0, 160, 10))
    plain = made(small).eval().losses(batch)["loss"]
    assert torch.equal(made(small, scales=[1.0], consistency=5.0).eval().losses(batch)["loss"], plain)
    three = made(small, scales=[0.8, 1.0, 1.2], consistency=2.0).eval()
    terms = three.losses(batch)
    free = made(small, scales=[0.8, 1.0, 1.2]).eval().losses(batch)["loss"]
    assert torch.allclose(terms["loss"], free + 2.0 * terms["divergence"])
    assert terms["divergence"] > 0


def test_the_divergence_of_logits_is_symmetric_zero_for_equals_and_of_each_row_alone():
    """Softmax over the batch, as once, made a row's value depend on its neighbours."""
    a, b = torch.randn(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    p, q = torch.sigmoid(a), torch.sigmoid(b)
    exact = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()) + (
        q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
    )
    assert torch.allclose(bernoulli_divergence([a, b]), exact)
    assert torch.allclose(bernoulli_divergence([a[:2], b[:2]]), exact[:2])
    assert bernoulli_divergence([a, a, a]).abs().max() == 0


def test_radii_are_learned_from_labelled_lenses_alone(small):
    model = partial(finder_of, backbone=LIGHT.keywords["backbone"], head=RadiusHead)
    task = made(small, model, radius_weight=1.0).eval()
    batch = small.train.__getitems__(np.arange(0, 160, 5))
    loss = task.losses(batch)["loss"]
    hidden = (batch["labelled"] == 0) & (batch["lens"] > 0)
    batch["theta_E"] = torch.where(hidden, 7.0, batch["theta_E"])
    assert torch.equal(task.losses(batch)["loss"], loss)
    assert task.predict(batch)["log_theta_E"].shape == (32,)


def test_conditions_come_from_the_batch_and_are_missed_by_name(small):
    model = partial(finder_of, backbone=partial(ConditionedResNet, conditions=1, name="resnet10t"))
    task = made(small, model, conditions={"seeing": [0.8, 0.1]}).eval()
    batch = {"image": small.test["image"][:3], "seeing": torch.tensor([0.7, 0.8, 0.9])}
    assert task.predict(batch)["logit"].shape == (3,)
    with pytest.raises(DataError, match="conditioned on seeing"):
        task.predict({"image": batch["image"]})


def test_colours_beside_the_image_and_their_soft_prior(small):
    task = made(small, arc_colours=True, colour_prior=True).eval()
    batch = small.train.__getitems__(np.arange(0, 160, 10))
    task.losses(batch)["loss"].backward()
    assert torch.isfinite(task.against.grad)
    assert task.against.grad != 0  # a colour term once had no gradient at all
    logit = task.predict({"image": batch["image"]})["logit"]
    extra = task.beside(batch)["extras"][:, 0]
    task.against.data.fill_(-30.0)
    gained = task.predict({"image": batch["image"]})["logit"] - logit
    assert torch.allclose(gained, torch.nn.functional.softplus(torch.tensor(-1.0)) * extra, atol=1e-4)
    with pytest.raises(ConfigError, match="arc_colours=true"):
        made(small, colour_prior=True)
    with pytest.raises(ConfigError, match="finder"):
        made(small, VIT, arc_colours=True)


def test_the_stretch_is_the_inverse_hyperbolic_sine():
    x = torch.cat([torch.linspace(-5, 5, 2001), torch.tensor([-1e6, -1e-6, 0.0, 1e-6, 1e6, 3e4])])
    assert torch.allclose(arcsinh(x), torch.asinh(x.double()).float(), atol=1e-6, rtol=1e-6)
    assert torch.allclose(arcsinh(x), -arcsinh(-x))
    x = torch.linspace(-3, 3, 500, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(arcsinh(x).sum(), x)
    assert torch.allclose(gradient, 1 / torch.sqrt(1 + x.detach() ** 2))


def test_a_wrong_class_prior_shifts_learning_and_logits_alike(small):
    right, wrong = made(small).eval(), made(small, class_prior=0.3).eval()
    images = {"image": small.test["image"][:3]}
    shift = np.log(0.3 / 0.7) - np.log(0.1 / 0.9)
    assert torch.allclose(wrong.predict(images)["logit"], right.predict(images)["logit"] + shift, atol=1e-5)


def test_calibration_travels_with_the_weights(small):
    task = made(small).eval()
    task.calibrate({"slope": 0.5, "offset": -1.0, "lens_above": -1.0, "other_below": 0.5})
    other = made(small).eval()
    other.load_state_dict(task.state_dict())
    out = other.predict({"image": small.test["image"][:5]})
    assert torch.allclose(out["calibrated"], 0.5 * out["logit"] - 1.0)
    expected = (out["logit"] >= -1.0).float() + 2 * (out["logit"] <= 0.5).float()
    assert torch.equal(out["conformal_set"], expected)
