"""Ridge and nearest-neighbour probes against other solvers and against what must hold."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor, NearestNeighbors

from embeddings import principal_components, probe
from embeddings.objects.folds import grouped_folds, sky_cells
from embeddings.probes.held_out import held_out_scores
from embeddings.probes.ridge import cross_validated_ridge
from embeddings.vectors.neighbours import knn_predictions, nearest_rows
from skyloom.errors import DataError

RNG = np.random.default_rng(0)
N, D = 600, 12
X = RNG.normal(size=(N, D)) * np.geomspace(3, 0.1, D) + 50.0
Y = np.stack([X @ RNG.normal(size=D) + RNG.normal(size=N), RNG.normal(size=N), X[:, 0] ** 2], axis=1)
GROUPS = RNG.integers(0, 60, N)
FOLD = grouped_folds(GROUPS, 5, seed=0)


def by_hand(x, y, fold, k, penalty):
    """scikit-learn's fit to all folds but those in k, in our units of the penalty."""
    train = ~np.isin(fold, k)
    centred = x[train] - x[train].mean(axis=0)
    return Ridge(alpha=penalty * train.sum() * (centred**2).mean()).fit(x[train], y[train])


def test_one_factorisation_gives_what_a_loop_of_fits_gives():
    penalties = np.logspace(-3, 2, 6)
    fit = cross_validated_ridge(X, Y, FOLD, penalties=penalties)
    for t in range(Y.shape[1]):
        for i in range(5):
            inner = [j for j in range(5) if j != i]
            errors = [
                sum(((by_hand(X, Y[:, t], FOLD, [i, j], p).predict(X[j == FOLD]) - Y[j == FOLD, t]) ** 2).sum() for j in inner)
                for p in penalties
            ]
            best = by_hand(X, Y[:, t], FOLD, [i], penalties[int(np.argmin(errors))])
            assert np.allclose(fit.predictions[i == FOLD, t], best.predict(X[i == FOLD]), atol=1e-8)
    final = by_hand(X, Y[:, 0], FOLD, [], fit.penalties[0])
    assert np.allclose(X @ fit.weights[:, 0] + fit.intercepts[0], final.predict(X), atol=1e-8)


def test_a_rotated_shifted_or_scaled_embedding_knows_the_same():
    q = np.linalg.qr(RNG.normal(size=(D, D)))[0]
    first = cross_validated_ridge(X, Y, FOLD).predictions
    second = cross_validated_ridge(7.0 * X @ q + 1000.0, Y, FOLD).predictions
    assert np.abs(first - second).max() < 1e-6


def test_standardised_dimensions_may_be_in_any_unit():
    units = np.geomspace(1e-6, 1e6, D)
    first = cross_validated_ridge(X, Y, FOLD, standardise=True).predictions
    assert np.abs(first - cross_validated_ridge(X * units, Y, FOLD, standardise=True).predictions).max() < 1e-6
    constant = np.hstack([X, np.full((N, 1), 0.1)])
    assert np.abs(first - cross_validated_ridge(constant, Y, FOLD, standardise=True).predictions).max() < 1e-6


def test_held_out_rows_do_not_reach_their_own_prediction():
    y = Y.copy()
    y[FOLD == 2] += 1e3 * RNG.normal(size=(np.sum(FOLD == 2), 3))
    before, after = (cross_validated_ridge(X, v, FOLD).predictions[FOLD == 2] for v in (Y, y))
    assert np.array_equal(before, after)


def test_gaps_in_one_property_do_not_touch_another_and_are_predicted():
    y = Y.copy()
    y[:100, 1] = np.nan
    present = np.ones(N, dtype=bool)
    present[50:60] = False
    gappy = cross_validated_ridge(X, y, FOLD, present)
    alone = cross_validated_ridge(X, Y[:, [0]], FOLD, present)
    assert np.allclose(gappy.predictions[present, 0], alone.predictions[present, 0])
    assert np.isfinite(gappy.predictions[:50, 1]).all()
    assert np.isnan(gappy.predictions[50:60]).all()


def test_a_memory_map_gives_the_same(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.array_equal(cross_validated_ridge(mapped, Y, FOLD).predictions, cross_validated_ridge(X, Y, FOLD).predictions)


def test_random_vectors_know_nothing_and_the_target_itself_knows_all():
    noise = RNG.normal(size=(3000, 64))
    y = RNG.normal(size=3000)
    found = probe(noise, {"y": y})
    assert abs(found.r2["y"]) < 0.02
    assert abs(found.null_r2["y"]) < 0.02
    assert probe(np.hstack([noise, y[:, None]]), {"y": y}).r2["y"] > 0.99


def test_nearest_rows_are_those_of_scikit_learn_and_never_the_object_itself():
    ours, distances = nearest_rows(X, X, 10, itself=np.arange(N))
    theirs_d, theirs = NearestNeighbors(n_neighbors=11, algorithm="brute").fit(X).kneighbors(X)
    assert not (ours == np.arange(N)[:, None]).any()
    assert np.array_equal(ours, theirs[:, 1:])
    assert np.allclose(distances, theirs_d[:, 1:], atol=1e-4)
    doubled = np.vstack([X, X[:3]])
    assert nearest_rows(doubled, doubled, 1, itself=np.arange(N + 3))[0][:3, 0].tolist() == [N, N + 1, N + 2]


def test_the_neighbour_probe_is_scikit_learns_on_every_fold():
    ours = knn_predictions(X, Y, FOLD, np.ones(N, dtype=bool), k=20)
    for i in range(5):
        train, test = i != FOLD, i == FOLD
        mean, scale = X[train].mean(axis=0), X[train].std(axis=0)
        model = KNeighborsRegressor(20, weights="distance", algorithm="brute").fit((X[train] - mean) / scale, Y[train])
        assert np.allclose(ours[test], model.predict((X[test] - mean) / scale), atol=2e-3)


def test_folds_belong_to_the_group_and_are_even():
    order = RNG.permutation(N)
    assert np.array_equal(grouped_folds(GROUPS[order], 5, seed=0), FOLD[order])
    assert all(len(set(FOLD[g == GROUPS])) == 1 for g in np.unique(GROUPS))
    assert np.bincount(FOLD).max() - np.bincount(FOLD).min() <= np.bincount(GROUPS).max()
    with pytest.raises(DataError, match="cannot fill"):
        grouped_folds(np.array([1, 1, 2]), 5)


def test_sky_cells_are_of_one_size_on_the_sky():
    rng = np.random.default_rng(2)
    dec = np.rad2deg(np.arcsin(rng.uniform(-1, 1, 400_000)))
    counts = np.bincount(np.unique(sky_cells(rng.uniform(0, 360, 400_000), dec, 10.0), return_inverse=True)[1])
    area = 41253.0 / 100.0  # cells of 100 square degrees
    assert abs(len(counts) / area - 1) < 0.1
    assert np.quantile(counts, 0.02) > 0.6 * counts.mean()
    assert sky_cells(np.array([359.99]), np.array([0.0]))[0] != sky_cells(np.array([0.01]), np.array([0.0]))[0]


def test_intervals_resample_groups_and_pair_differences():
    groups = np.repeat(np.arange(40), 25)
    rng = np.random.default_rng(3)
    shared = rng.normal(size=40)[groups]  # an error that a whole group has in common
    y = rng.normal(size=1000)
    first, second = y + shared, y + shared + 0.1 * rng.normal(size=1000)
    pairs = {"a": (y, first), "b": (y, second)}
    grouped = held_out_scores(pairs, groups, {"a - b": ("a", "b")})
    single = held_out_scores(pairs, np.arange(1000))
    width = {name: e.high - e.low for name, e in grouped.items()}
    assert width["mae/a"] > 2 * (single["mae/a"].high - single["mae/a"].low)
    assert width["difference/a - b"] < 0.3 * width["r2/a"]
    assert grouped["r2/a"] == pytest.approx(1 - (shared**2).sum() / ((y - y.mean()) ** 2).sum())
    assert grouped["mae/a"] == pytest.approx(np.abs(shared).mean())


def test_components_are_the_singular_vectors_in_a_fixed_sign():
    present = np.arange(N) > 20
    found = principal_components(X, present, 3)
    _, s, v = np.linalg.svd(X[present] - X[present].mean(axis=0), full_matrices=False)
    assert np.allclose(np.abs(found.axes.T @ v[:3].T), np.eye(3), atol=1e-8)
    assert np.allclose(found.explained, (s**2 / (s**2).sum())[:3])
    assert np.isnan(found.coordinates[~present]).all()
    assert np.allclose(principal_components(-X, present, 3).axes, found.axes)
