"""Figures draw what they say, from predictions alone."""

import numpy as np
import pytest
from scipy.integrate import trapezoid

from lensfind.evaluate.figures import completeness, cutouts, draw, rank_curves, rgb, score_histograms
from skyloom.errors import DataError
from skyloom.plots import panels


@pytest.fixture
def predictions(small):
    rng = np.random.default_rng(0)
    columns = {name: small.test[name].numpy() for name in small.carry}
    return {**columns, "logit": rng.normal(3.0 * columns["lens"] - 2).astype(np.float32)}


def test_all_figures_are_written_and_say_synthetic(predictions, small, tmp_path):
    figures = draw(predictions, small.about, tmp_path)
    assert [f.path.name for f in figures] == ["scores.png", "ranking.png", "completeness.png", "cutouts.png"]
    assert all(f.path.stat().st_size > 5000 and "ynthetic" in f.caption for f in figures)


def test_without_truth_only_what_needs_none_is_drawn(predictions, small, tmp_path):
    bare = {name: predictions[name] for name in ("logit", "labelled")}
    assert [f.path.name for f in draw(bare, {**small.about, "synthetic": False}, tmp_path)] == ["scores.png"]


def test_histograms_are_densities(predictions):
    drawn = score_histograms(panels()[1], predictions)
    width = np.diff(drawn.pop("edges"))
    assert set(drawn) == {"labelled lenses", "unlabeled", "unlabeled, lens", "unlabeled, no lens"}
    for density in drawn.values():
        assert (density * width).sum() == pytest.approx(1, abs=0.1)  # but for the outermost rows


def test_area_under_the_drawn_curve_is_the_auroc(predictions):
    from sklearn.metrics import roc_auc_score

    drawn = rank_curves(panels(1, 2)[1], predictions)
    rows = predictions["labelled"] == 0
    expected = roc_auc_score(predictions["lens"][rows], predictions["logit"][rows])
    assert trapezoid(drawn["tpr"], drawn["fpr"]) == pytest.approx(expected, abs=1e-6)


def test_completeness_averages_to_the_whole(predictions):
    drawn = completeness(panels(1, 2)[1], predictions, bins=4)["theta_E"]
    assert ((drawn["low"] <= drawn["share"]) & (drawn["share"] <= drawn["high"])).all()
    assert (np.diff(drawn["x"]) > 0).all()


def test_cutouts_are_those_that_were_scored(predictions, small):
    rows = np.array([3, 50, 120])
    assert np.array_equal(cutouts(rows, predictions, small.about).numpy(), small.test["image"][rows].numpy())


def test_another_recipe_of_the_sky_is_not_drawn_from_these_seeds(predictions, small, tmp_path):
    other = {**small.about, "simulator": small.about["simulator"] - 1}
    with pytest.raises(DataError, match="recipe"):
        cutouts(np.array([3]), predictions, other)
    assert [f.path.name for f in draw(predictions, other, tmp_path)] == ["scores.png", "ranking.png", "completeness.png"]


def test_colour_does_not_depend_on_brightness():
    """Twice as bright is the same hue; a grey sky stays grey."""
    flux = np.array([10.0, 15.0, 20.0])[None, :, None, None] * np.ones((1, 3, 2, 2))
    faint, bright = (rgb(k * flux, np.ones(3))[0, 0, 0] for k in (1, 2))
    assert faint / faint.sum() == pytest.approx(bright / bright.sum())
    assert faint[0] > faint[2]  # the last band is the reddest
    assert bright.sum() > faint.sum()
    assert np.ptp(rgb(np.ones((1, 3, 2, 2)), np.ones(3))[0, 0, 0]) == pytest.approx(0)
