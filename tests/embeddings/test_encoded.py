"""What is encoded: nuisances taken out, labels counted, classes told apart, old correlations beside their null."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from embeddings import probe
from embeddings.finding.maps import draw_map
from embeddings.objects.folds import grouped_folds
from embeddings.objects.properties import NUISANCES
from embeddings.probes.classes import separate
from embeddings.probes.controlled import partial_predictions, smooth_functions
from embeddings.probes.held_out import held_out_scores, redshift_scores
from embeddings.probes.labels import learning_curve
from embeddings.probes.legacy import axis_correlation, dimension_correlation, null_level, rotation_free_correlation, spearman
from embeddings.probes.ridge import cross_validated_ridge
from embeddings.samples import synthetic
from embeddings.samples.prepared import prepare

RNG = np.random.default_rng(5)
N = 1500
SNR = RNG.normal(size=N)
INNER = RNG.normal(size=N)
X = np.stack([SNR + 0.3 * RNG.normal(size=N), INNER + 0.5 * RNG.normal(size=N), *RNG.normal(size=(4, N))], axis=1)
FOLD = grouped_folds(np.arange(N), 5, 0)
ALL = np.ones(N, dtype=bool)


def r2(y, p):
    return 1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum()


def test_a_function_of_the_nuisance_has_no_partial_r2_and_an_independent_property_keeps_its_own():
    y = np.stack([np.exp(0.7 * SNR), SNR**2 + 0.5 * RNG.normal(size=N), INNER, INNER + np.sin(SNR)], axis=1)
    plain = cross_validated_ridge(X, y, FOLD).predictions
    assert r2(y[:, 0], plain[:, 0]) > 0.6  # it looks encoded
    left, found = partial_predictions(X, y, smooth_functions([SNR]), FOLD, ALL)
    assert np.isnan(left[:, 0]).all()  # nothing is left of it
    scores = held_out_scores({str(t): (left[:, t], found[:, t]) for t in (1, 2, 3)}, np.arange(N), resamples=2)
    assert abs(scores["r2/1"]) < 0.02
    assert scores["r2/2"] == pytest.approx(0.8, abs=0.03)  # var 1 / (1 + 0.25)
    assert scores["r2/3"] == pytest.approx(0.8, abs=0.03)


def test_partial_r2_is_the_closed_form_on_the_synthetic_sample():
    sample = synthetic(5000, 48, seed=2, models=["alpha"])
    e = sample.embeddings[1]
    fold = grouped_folds(sample.groups, 5, 0)
    names = ["log_mass", "dn4000", "concentration", "gini"]
    y = np.stack([sample.properties[n] for n in names], axis=1)
    left, found = partial_predictions(e, y, smooth_functions([sample.properties[n] for n in NUISANCES]), fold, e.present)
    for t, name in enumerate(names):
        use = np.isfinite(left[:, t]) & np.isfinite(found[:, t])
        assert r2(left[use, t], found[use, t]) == pytest.approx(sample.known.partial_r2[e.name][name], abs=0.04)


def test_flags_become_levels_and_unknown_nuisances_unknown_rows():
    flags = RNG.integers(0, 3, 200).astype(float)
    flags[:5] = np.nan
    basis = smooth_functions([flags, RNG.normal(size=200)])
    assert np.isnan(basis[:5]).any(axis=1).all()
    assert np.isfinite(basis[5:]).all()
    assert set(np.unique(basis[5:, 1:3])) == {0.0, 1.0}


def test_networks_and_trees_find_what_a_plane_does_not():
    y = {"square": X[:, 1] ** 2, "plane": X[:, 1] + X[:, 2]}
    found = {kind: probe(X, y, kind=kind, folds=3, shuffles=1, resamples=2) for kind in ("ridge", "mlp", "trees")}
    assert found["ridge"].r2["square"] < 0.1
    assert found["trees"].r2["square"] > 0.8
    assert found["mlp"].r2["plane"] > 0.9
    for one in found.values():
        assert all(abs(null) < 0.25 for null in one.null_r2.values())
    again = probe(X, y, kind="mlp", folds=3, shuffles=1, resamples=2)
    assert np.array_equal(again.predictions["plane"], found["mlp"].predictions["plane"])


def test_more_labels_are_never_much_worse_and_all_of_them_give_the_probe():
    y = (INNER + 0.3 * RNG.normal(size=N))[:, None]
    scores = learning_curve(X, y, FOLD, ALL, [30, 300, 1200, 10**6], draws=2)
    assert np.isnan(scores[3]).all()
    means = scores[:3].mean(axis=(1, 2))
    assert means[0] < means[2] + 0.02
    whole = cross_validated_ridge(X, y, FOLD).predictions[FOLD == 0, 0]
    assert means[2] == pytest.approx(r2(y[FOLD == 0, 0], whole), abs=0.01)


def test_classes_are_scored_as_scikit_learn_scores_them():
    kind = np.where(X[:, 0] > 1.0, "QSO", np.where(X[:, 1] > 1.5, "STAR", "GALAXY"))
    kind[:20] = ""
    found = separate(X, kind, FOLD, np.arange(N), ALL, resamples=20)
    assert found is not None
    assert found.names == ["GALAXY", "QSO", "STAR"]
    assert found.objects == N - 20 == found.confusion.sum()
    truth, predicted = (np.repeat(np.indices((3, 3))[k].ravel(), found.confusion.ravel()) for k in (0, 1))
    assert found.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert found.low <= found.macro_f1 <= found.high
    assert found.macro_f1 > 0.75 > 0.45 > found.null_macro_f1
    assert separate(X, np.full(N, "GALAXY"), FOLD, np.arange(N), ALL) is None


def test_redshift_scores_are_their_definitions():
    z = RNG.uniform(0, 1, N)
    found = z + 0.02 * RNG.normal(size=N) * (1 + z)
    found[:30] += 0.5
    scores = redshift_scores(z, found, np.arange(N), resamples=20)
    dz = (found - z) / (1 + z)
    assert scores["nmad"] == pytest.approx(1.4826 * np.median(np.abs(dz - np.median(dz))), rel=0.01)
    assert scores["outliers"] == pytest.approx((np.abs(dz) > 0.05).mean())
    assert scores["outliers"].low < scores["outliers"] < scores["outliers"].high


def test_a_rotation_changes_the_dimension_score_and_not_the_probe():
    sample = synthetic(2000, 96, seed=0, models=["alpha"])
    p = prepare(sample, 34)["alpha/image"]
    rows = np.flatnonzero(p.present)
    x, y = np.asarray(p.embedding[rows], dtype=float), sample.properties["log_kron_radius"][rows]
    axes = np.hstack([x @ np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:40].T])
    turn = np.linalg.qr(RNG.normal(size=(40, 40)))[0]
    fold = grouped_folds(sample.groups[rows], 5, 0)
    scores = [r2(y, cross_validated_ridge(v, y[:, None], fold).predictions[:, 0]) for v in (axes, axes @ turn)]
    assert scores[0] == pytest.approx(scores[1], abs=0.005)
    every = np.arange(len(rows))
    assert abs(dimension_correlation(axes, y, every) - dimension_correlation(axes @ turn, y, every)) > 0.05


def test_turning_a_map_changes_the_old_score_and_not_the_one_over_all_directions():
    xy = RNG.normal(size=(800, 2))
    values = xy[:, 0] + 0.1 * RNG.normal(size=800)
    turned = xy @ np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    assert axis_correlation(xy, values) - axis_correlation(turned, values) > 0.2
    assert rotation_free_correlation(xy, values) == pytest.approx(rotation_free_correlation(turned, values), abs=0.005)


def test_the_null_level_is_what_noise_reaches():
    noise = RNG.normal(size=(4000, 256))
    reached = np.abs(spearman(noise, RNG.normal(size=4000))).max()
    assert reached == pytest.approx(null_level(256, 4000), rel=0.3)
    assert null_level(768, 15263) == pytest.approx(0.031, abs=0.0005)


def test_principal_components_make_a_map_and_the_rest_is_placed_among_the_fitted():
    blobs = np.concatenate([RNG.normal(size=(150, 10)), RNG.normal(size=(150, 10)) + 12])
    present = np.ones(300, dtype=bool)
    present[5] = False
    whole = draw_map(blobs, present, "pca")
    assert np.isnan(whole.coordinates[5]).all()
    assert np.array_equal(whole.coordinates[6], blobs[6, :2].astype(np.float32))
    part = draw_map(blobs, present, "tsne", fit_objects=120, max_iter=300)
    assert part.fitted == 120
    assert np.isfinite(part.coordinates[present]).all()
    left, right = part.coordinates[:150][present[:150]], part.coordinates[150:]
    assert np.linalg.norm(left.mean(0) - right.mean(0)) > 2 * max(left.std(), right.std())
