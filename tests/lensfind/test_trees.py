"""Features that measure what they are named for, and trees that tell lenses from labels alone."""

from functools import partial

import numpy as np
import pytest
import torch

from lensfind.features.appearance import arc_shape, circle_fit, features
from lensfind.training.trees import TreeFinder, posterior
from skyloom.errors import ConfigError, DataError, UserError


def test_features_are_finite_named_once_and_never_constant(small):
    found = features(small.test["image"][:96], small.about)
    assert len(found) > 50
    for name, values in found.items():
        known = values[np.isfinite(values)]
        assert values.shape == (96,)
        assert len(known) > 10, name
        assert known.std() > 0, name


def test_features_do_not_turn_with_the_image(small):
    images = small.test["image"][:40]
    here, turned = features(images, small.about), features(torch.rot90(images, 1, (-2, -1)), small.about)
    for name in here:
        a, b = here[name], turned[name]
        both = np.isfinite(a) & np.isfinite(b)
        assert np.median(np.abs(a[both] - b[both])) < 0.05 * (np.std(a[both]) + 1e-6), name


@pytest.mark.parametrize(("degrees", "low", "high"), [(60, 53, 68), (180, 59, 61)])
def test_a_circle_is_found_from_a_short_arc(degrees, low, high):
    """Kasa's algebraic fit gives a median radius of 44 for the shorter one."""
    rng = np.random.default_rng(0)
    radii = []
    for _ in range(200):
        angle = np.radians(rng.uniform(-degrees / 2, degrees / 2, 60))
        r = 60 + rng.normal(0, 1.5, 60)
        radii.append(circle_fit(r * np.cos(angle), r * np.sin(angle), np.ones(60))[2])
    assert np.median(radii) == pytest.approx(60, rel=0.025)
    assert low < np.quantile(radii, 0.16)
    assert np.quantile(radii, 0.84) < high


def test_a_straight_line_has_no_curvature():
    x = np.linspace(-20, 20, 50)
    assert circle_fit(x, 0 * x, np.ones(50))[2] > 400


def picture(kind, size=61, radius=18.0, width=1.2):
    line = np.arange(size) - (size - 1) / 2
    y, x = np.meshgrid(line, line, indexing="ij")
    r, phi = np.hypot(x, y), np.arctan2(y, x)
    if kind == "arc":
        return 20 * np.exp(-0.5 * ((r - radius) / width) ** 2) * (np.abs(phi - 0.8) < 0.6)
    return 20 * np.exp(-0.5 * ((phi - 0.8) * r / width) ** 2) * (np.abs(r - radius) < 11) * (r > 4)


def test_the_shape_of_an_arc():
    names = ["area", "length", "width", "radius", "distance", "concentric", "tangential", "peak"]
    arc = dict(zip(names, arc_shape(picture("arc"), 0.2), strict=True))
    assert arc["radius"] == pytest.approx(3.6, rel=0.05)
    assert arc["length"] == pytest.approx(1.2 * 3.6, rel=0.15)
    assert arc["distance"] == pytest.approx(3.4, rel=0.06)
    assert arc["concentric"] < 0.1
    assert arc["tangential"] > 0.95
    spoke = dict(zip(names, arc_shape(picture("spoke"), 0.2), strict=True))
    assert spoke["tangential"] < -0.95
    assert spoke["concentric"] > 0.5 or np.isnan(spoke["concentric"])
    assert np.isnan(arc_shape(np.zeros((40, 40)), 0.2)).all()


def gaussians(prior, labelled=600, unlabeled=6000, seed=0):
    rng = np.random.default_rng(seed)
    lens = np.concatenate([np.ones(labelled, bool), rng.random(unlabeled) < prior])
    x = rng.normal(size=(len(lens), 4))
    x[:, 0] += 2.5 * lens
    truth = 1 / (1 + np.exp(-(2.5 * x[:, 0] - 3.125 + np.log(prior / (1 - prior)))))
    return {f"x{k}": x[:, k] for k in range(4)}, np.arange(len(lens)) < labelled, lens, truth


ABOUT = {"class_prior": 0.1, "synthetic": True}


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_the_posterior_of_lenses_is_learned_without_negatives(library):
    x, labelled, _, _ = gaussians(0.1)
    v, v_labelled, _, _ = gaussians(0.1, 200, 2000, seed=1)
    t, _, t_lens, t_truth = gaussians(0.1, 0, 20_000, seed=2)
    finder = TreeFinder(ABOUT, library, trees=150, patience=30)
    importance = finder.fit(x, labelled, v, v_labelled, seed=0)
    assert max(importance, key=importance.get) == "x0"
    p = 1 / (1 + np.exp(-finder.logit(t)))
    brier, oracle = np.mean((p - t_lens) ** 2), np.mean((t_truth - t_lens) ** 2)
    assert brier < oracle + 0.006
    assert p.mean() == pytest.approx(0.1, abs=0.02)
    assert (p > 0.999).mean() < 0.01


def test_the_model_travels_among_the_weights():
    x, labelled, _, _ = gaussians(0.1, 200, 1500)
    finder = TreeFinder(ABOUT, trees=20)
    with pytest.raises(DataError, match="not fitted"):
        finder.logit(x)
    finder.fit(x, labelled, x, labelled, seed=0)
    other = TreeFinder(ABOUT, trees=20)
    other.load_state_dict(finder.state_dict())
    assert np.array_equal(other.logit(x), finder.logit(x))


def test_the_density_ratio_is_a_posterior():
    """With the exact probability of being labelled the posterior is exact, whatever the sizes of the samples."""
    _, labelled, _, truth = gaussians(0.1, 3000, 3000)
    ratio = truth / 0.1  # density of lenses over density of the sky
    g = ratio * 3000 / (ratio * 3000 + 3000)
    assert posterior(g, labelled, 0.1) == pytest.approx(truth, abs=1e-4)


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="catboost"):
        TreeFinder(ABOUT, "catboost")
    with pytest.raises(UserError, match="no gradient"):
        TreeFinder(ABOUT).losses({})


def test_it_is_a_task(small):
    finder = TreeFinder(small.about, trees=10, patience=5)
    columns = features(small.train["image"], small.about)
    labels = small.train["labelled"].numpy()
    finder.fit(columns, labels, columns, labels, seed=0)
    out = finder.predict({"image": small.test["image"][:8]})
    assert set(out) == {"logit", "calibrated", "conformal_set"}
    assert out["logit"].shape == (8,)
    scores = partial(finder.score)({**finder.predict({"image": small.train["image"]}), "labelled": small.train["labelled"]})
    assert scores["auroc_pu"] > 0.8
