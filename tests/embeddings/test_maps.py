"""Maps whose methods must be compiled first: the same from the same seed at any number of threads, and faithful to blobs."""

import numpy as np
import pytest

from embeddings.finding.maps import PRESETS, continuity, draw_map, trustworthiness
from skyloom.errors import ConfigError

RNG = np.random.default_rng(0)
BLOBS = np.concatenate([RNG.normal(size=(250, 3)), RNG.normal(size=(250, 3)) + 10])
ALL = np.ones(500, dtype=bool)


def test_a_map_that_is_the_embedding_is_trusted_and_a_shuffled_one_is_not():
    x = RNG.normal(size=(300, 2))
    assert trustworthiness(x, x @ np.array([[0, 2], [-2, 0]])) == pytest.approx(1.0)
    assert trustworthiness(x, RNG.permutation(x)) < 0.6
    torn = x + 50.0 * (x[:, :1] > 0)  # neighbours across the cut are lost, no false ones appear
    assert continuity(x, torn) < trustworthiness(x, torn)


def test_unknown_methods_and_presets_are_named():
    with pytest.raises(ConfigError, match="Did you mean 'umap'"):
        draw_map(BLOBS, ALL, "umapp")
    with pytest.raises(ConfigError, match="Did you mean 'local'"):
        draw_map(BLOBS, ALL, "umap", "locale")


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_umap_of_two_blobs_is_trusted(preset):
    found = draw_map(BLOBS, ALL, "umap", preset, fit_objects=400, n_epochs=100)
    assert found.trustworthiness > (0.92 if PRESETS[preset].get("densmap") else 0.95)  # densities cost some neighbours
    left, right = found.coordinates[:250], found.coordinates[250:]
    assert np.linalg.norm(left.mean(0) - right.mean(0)) > 2 * max(left.std(0).max(), right.std(0).max())


@pytest.mark.slow
def test_a_seed_gives_one_map_at_any_number_of_threads():
    import numba
    from threadpoolctl import threadpool_limits

    found = []
    for threads in (1, 2):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        with threadpool_limits(threads):
            found.append(draw_map(BLOBS, ALL, "umap", seeds=2, n_epochs=60))
    assert np.array_equal(found[0].coordinates, found[1].coordinates)
    assert 0 <= found[0].stability < 0.5
    assert not np.array_equal(found[0].coordinates, draw_map(BLOBS, ALL, "umap", seed=43, n_epochs=60).coordinates)


@pytest.mark.slow
def test_pacmap_of_two_blobs_is_trusted():
    pytest.importorskip("pacmap")
    found = draw_map(BLOBS, ALL, "pacmap")
    assert found.trustworthiness > 0.95
    assert np.array_equal(found.coordinates, draw_map(BLOBS, ALL, "pacmap").coordinates)
