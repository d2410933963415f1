"""Neighbours, outliers and retrieval: exactness, what must be found, what must not, and memory that is asked for first."""

import numpy as np
import pytest
from sklearn.neighbors import LocalOutlierFactor

from embeddings.comparing.modalities import modality_cosines
from embeddings.comparing.retrieval import mapped, ranks, recall
from embeddings.comparing.similarity import compare, distance_ranks, mutual_neighbours
from embeddings.comparing.subspaces import canonical_correlation, leading, linear_map, rotation_fit
from embeddings.comparing.together import joint_gain
from embeddings.finding.density import flow_outliers
from embeddings.finding.outliers import agreement, fused_score, isolation, local_outlier_factor, percentiles, top
from embeddings.finding.search import Index, rows_of
from embeddings.machine.memory import free_bytes, neighbour_bytes, require
from embeddings.vectors.neighbours import nearest_rows
from skyloom.errors import ConfigError

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("sizes", [(7, 50), (64, 8192)])
def test_neighbours_in_blocks_are_those_of_all_distances(monkeypatch, sizes):
    from embeddings.vectors import neighbours as module

    monkeypatch.setattr(module, "QUERIES", sizes[0])
    monkeypatch.setattr(module, "REFERENCES", sizes[1])
    x = RNG.normal(size=(333, 6)) + 1000.0  # a large common offset must not cost digits
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(d, np.inf)
    rows, distances = nearest_rows(x, x, 9, itself=np.arange(333))
    assert np.array_equal(rows, np.argsort(d, axis=1)[:, :9])
    assert np.allclose(distances, np.sort(d, axis=1)[:, :9])


def test_duplicates_come_first_and_an_object_is_never_its_own_neighbour():
    x = RNG.normal(size=(300, 12))
    x[200], x[201] = x[10], x[10] * 3.0 - 2.0 * x.mean(axis=0)
    found = Index(x).like(np.arange(300), 5)
    assert found.rows[10, 0] in (200, 201)
    assert not (found.rows == np.arange(300)[:, None]).any()
    assert (np.diff(found.cosines, axis=1) <= 1e-6).all()
    centred = x - x.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    assert np.allclose(found.cosines[:, 0], cosine.max(axis=1), atol=1e-5)


def test_objects_without_a_vector_are_not_found():
    x = RNG.normal(size=(100, 4))
    present = np.ones(100, dtype=bool)
    present[::3] = False
    x[::3] = np.nan
    assert present[Index(x, present).like(np.flatnonzero(present), 4).rows].all()


def test_an_approximate_search_says_how_much_it_finds():
    pytest.importorskip("faiss")
    x = RNG.normal(size=(4000, 8))
    index = Index(x, approximate=True, probes=64)
    assert index.recall(100, 5) > 0.8
    assert not (index.like(np.arange(50), 5).rows == np.arange(50)[:, None]).any()
    assert Index(x[:100]).recall() == 1.0


def test_unknown_identifiers_warn_and_are_left_out():
    ids = {"object_id": np.array([11, 12, 13]), "name": np.array(["a", "b", "c"])}
    with pytest.warns(UserWarning, match="no object is called 99"):
        assert rows_of([13, 99, "b"], ids).tolist() == [2, 1]


def test_memory_is_said_and_refused_before_it_is_taken(capsys):
    require(10**6, "a small thing", limit=10**9)
    assert "a small thing needs about 1.0 MB" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="a search needs about"):
        require(neighbour_bytes(100_000_000, 768, 10), "a search", limit=4e9)
    assert neighbour_bytes(200_000, 768, 10) < 4e9
    assert 0 < free_bytes() < 2**50


def test_local_outlier_factor_is_scikit_learns():
    x = RNG.normal(size=(400, 5))
    theirs = -LocalOutlierFactor(n_neighbors=20).fit(x).negative_outlier_factor_
    assert np.allclose(local_outlier_factor(x, 20), theirs, atol=1e-10)


@pytest.mark.parametrize("method", [isolation, local_outlier_factor, lambda x: flow_outliers(x, epochs=4)])
def test_one_percent_of_far_objects_is_found(method):
    x = RNG.normal(size=(2000, 10))
    far = RNG.choice(2000, 20, replace=False)
    x[far] += 6 * RNG.normal(size=(20, 10))
    assert np.isin(top(method(x), 0.01), far).mean() > 0.9


def test_percentiles_tops_and_agreement():
    score = np.array([np.nan, 3.0, 1.0, 2.0, 2.0])
    assert np.array_equal(percentiles(score), [np.nan, 0.875, 0.125, 0.5, 0.5], equal_nan=True)
    assert top(score, 0.25).tolist() == [1]
    a = RNG.normal(size=5000)
    same = agreement(a, a)
    assert same["spearman"] == pytest.approx(1)
    assert same["jaccard"] == 1
    luck = agreement(a, RNG.normal(size=5000))
    assert abs(luck["spearman"]) < 0.06
    assert luck["jaccard"] < 0.05
    assert luck["chance"] == pytest.approx(0.005, abs=0.001)
    assert 0.2 < luck["displacement"] < 0.8
    assert fused_score(np.array([0.9]), np.array([0.5]), np.array([0.5])) == pytest.approx(0.45)


def test_aligned_vectors_are_retrieved_and_unrelated_ones_are_at_chance():
    x = RNG.normal(size=(600, 20))
    assert recall(ranks(x, x + 0.01 * RNG.normal(size=x.shape)), 1) > 0.99
    luck = recall(ranks(x, RNG.normal(size=x.shape)), 60)
    assert luck == pytest.approx(0.1, abs=0.05)
    turned = 2 * x @ np.linalg.qr(RNG.normal(size=(20, 20)))[0] + 5  # another model's axes: a map is needed
    assert recall(ranks(x, turned), 10) < 0.1
    assert recall(ranks(*mapped(x, turned, np.arange(600) % 5)), 1) > 0.99


def test_cosines_of_modalities_with_their_null():
    x = RNG.normal(size=(4000, 24))
    offset = 10 * RNG.normal(size=24)
    same = modality_cosines(x + offset, x + offset, np.arange(4000))
    assert same.centred.min() == pytest.approx(1)
    assert same.auc == 1.0
    luck = modality_cosines(x + offset, RNG.normal(size=x.shape) + offset, np.arange(4000))
    assert luck.raw.mean() > 0.9  # high for any pair
    assert abs(luck.centred.mean()) < 0.02
    assert luck.auc == pytest.approx(0.5, abs=0.02)
    assert modality_cosines(x, x[:, :5], np.arange(4000)) is None


def test_every_measure_is_one_for_a_rotation_and_knows_no_axes():
    x = RNG.normal(size=(400, 10)) * np.geomspace(2, 0.5, 10)
    turned = 3 * x @ np.linalg.qr(RNG.normal(size=(10, 10)))[0] + 7
    for found in compare(x, turned, permutations=3).values():
        assert found.value == pytest.approx(1.0, abs=1e-6), found.measure
    y = np.hstack([x[:, :6], RNG.normal(size=(400, 9))])
    plain, other = compare(x, y, permutations=19), compare(turned, y, permutations=19)
    for name, found in plain.items():
        assert found.value == pytest.approx(other[name].value, abs=1e-6)
        assert found.null_mean < found.value < 1.0
    assert mutual_neighbours(x, x) == 1.0
    assert distance_ranks(x, -x) == pytest.approx(1.0)
    a = leading(x)
    assert rotation_fit(a, a) == pytest.approx(1)
    assert canonical_correlation(*(np.linalg.qr(a)[0] for _ in range(2))) == pytest.approx(1)


def test_more_threads_change_no_digit():
    from threadpoolctl import threadpool_limits

    x, y = RNG.normal(size=(2, 700, 120))
    found = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads):
            found.append({name: (s.value, s.null_mean, s.null_sd) for name, s in compare(x, y, permutations=5).items()})
    assert found[0] == found[1] == found[2]


def test_what_two_embeddings_know_together_is_redundant_or_not():
    s, t = RNG.normal(size=(2, 2500))
    a = np.stack([s + 0.5 * RNG.normal(size=2500), *RNG.normal(size=(3, 2500))], axis=1)
    b = np.stack([t + 0.5 * RNG.normal(size=2500), *RNG.normal(size=(3, 2500))], axis=1)
    fold, everyone = np.arange(2500) % 5, np.arange(2500)
    apart = joint_gain(a, b, everyone, {"sum": s + t}, fold, everyone, resamples=50)["sum"]
    assert apart["r2_both"] == pytest.approx(0.8, abs=0.02)
    assert apart["gain"] == pytest.approx(0.4, abs=0.03)
    assert apart["gain_low"] < apart["gain"] < apart["gain_high"]
    again = joint_gain(a, a @ np.linalg.qr(RNG.normal(size=(4, 4)))[0], everyone, {"sum": s + t}, fold, everyone, resamples=50)
    assert again["sum"]["gain"] == pytest.approx(0.0, abs=0.005)


def test_a_modality_explains_what_a_linear_map_of_it_gives():
    x = RNG.normal(size=(1000, 6))
    y = x[:, :2] @ RNG.normal(size=(2, 3)) + 0.1 * RNG.normal(size=(1000, 3))
    y[7] += 5.0
    share, apart = linear_map(x, y, np.arange(1000) % 5, np.ones(1000, dtype=bool))
    assert share > 0.9
    assert apart.argmax() == 7
    assert linear_map(x, RNG.normal(size=(1000, 3)), np.arange(1000) % 5, np.ones(1000, dtype=bool))[0] < 0.01
