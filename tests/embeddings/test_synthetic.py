"""The synthetic sample: its closed forms against simulation and against published golden numbers, its traps and its size."""

import numpy as np
import pytest

from embeddings import join, probe
from embeddings.comparing.similarity import linear_cka
from embeddings.samples import (
    GAINS,
    LATENTS,
    catalogue_and_embeddings,
    latent_correlation,
    population_cka,
    population_r2,
    synthetic,
)

GOLDEN = {  # oracle R2 of the latents, two digits
    "spectrum": {"log_mass": 0.86, "log_sfr": 0.72, "dn4000": 0.88, "g_minus_r": 0.82, "log_kron_radius": 0.33,
                 "concentration": 0.33, "ellipticity": 0.0, "log_snr": 0.82},
    "image": {"log_mass": 0.61, "log_sfr": 0.35, "dn4000": 0.50, "g_minus_r": 0.59, "log_kron_radius": 0.86,
              "concentration": 0.83, "log_snr": 0.29},
}  # fmt: skip


@pytest.fixture(scope="module")
def sample():
    return synthetic(objects=6000, dimension=96, seed=1)


def test_correlations_are_a_correlation_matrix():
    c = latent_correlation()
    assert np.linalg.eigvalsh(c).min() > 0.015
    assert np.allclose(np.diag(c), 1)
    assert c[LATENTS.index("z"), LATENTS.index("log_mass")] == pytest.approx(0.55, abs=0.06)


@pytest.mark.parametrize("modality", ["spectrum", "image"])
def test_closed_form_gives_the_golden_numbers(modality):
    known = population_r2(GAINS["alpha"][modality])
    for name, value in GOLDEN[modality].items():
        assert known[name] == pytest.approx(value, abs=0.0051)


def test_closed_form_is_what_least_squares_finds_for_every_property():
    sample = synthetic(objects=20_000, dimension=40, seed=3)
    for e in sample.embeddings[:3]:
        for name, y in sample.properties.items():
            if np.nanstd(y) == 0:
                continue
            rows = np.flatnonzero(np.isfinite(y) & e.present)
            design = np.hstack([e[rows].astype(float), np.ones((len(rows), 1))])
            residual = y[rows] - design @ np.linalg.lstsq(design, y[rows], rcond=None)[0]
            assert 1 - residual.var() / y[rows].var() == pytest.approx(sample.known.r2[e.name][name], abs=0.02)


def test_closed_form_similarity_is_that_of_the_true_covariances():
    catalogue, sets = catalogue_and_embeddings(20_000, 40, seed=4)
    for a, b in join(sets, catalogue).pairs():
        both = np.flatnonzero(a.present & b.present)
        known = population_cka(GAINS[a.model][a.modality], GAINS[b.model][b.modality], 40)
        assert linear_cka(a[both], b[both]) == pytest.approx(known, abs=0.015)


def test_ridge_comes_near_the_closed_form_and_shuffled_properties_near_zero(sample):
    for e in (sample.embeddings[0], sample.embeddings[4]):
        found = probe(e, sample.properties, sample.groups)
        for name, r2 in found.r2.items():
            assert r2 == pytest.approx(sample.known.r2[e.name][name], abs=0.04)
            assert abs(found.null_r2[name]) < 0.02
            assert r2.low < r2 < r2.high


@pytest.mark.parametrize(("modality", "cosine"), [("image", 0.994), ("spectrum", 0.989)])
def test_raw_cosines_are_high_for_any_pair_and_vanish_after_centring(modality, cosine):
    _, (alpha, _) = catalogue_and_embeddings(1000, 768, seed=0)
    x = alpha[modality][alpha.present[modality]].astype(float)
    x = x[: len(x) // 2 * 2]

    def mean_cosine(v):
        unit = v / np.linalg.norm(v, axis=1, keepdims=True)
        return (unit[::2] * unit[1::2]).sum(axis=1).mean()

    assert mean_cosine(x) == pytest.approx(cosine, abs=0.001)
    assert abs(mean_cosine(x - x.mean(axis=0))) < 0.03


def test_the_sample_is_what_it_says(sample):
    catalogue, (alpha, beta) = catalogue_and_embeddings(3000, 48, seed=0)
    z = catalogue.numbers["Z"]
    assert 0.30 < np.median(z) < 0.38
    assert z.min() >= 0.009
    assert z.max() <= 1.8
    ids = catalogue.ids["object_id"]
    assert len(np.unique(ids)) == 3000
    assert len(np.unique(ids.astype(np.float64))) < 2500  # a cast to float merges objects
    assert np.mean(ids == ids.astype(np.float64).astype(np.int64)) < 0.01  # and moves nearly all others
    assert list(alpha.ids) == ["object_id"]
    assert list(beta.ids) == ["TARGETID"]
    assert len(beta) == 2850
    assert 0.07 < 1 - alpha.present["spectrum"].mean() < 0.13
    assert np.isnan(sample.properties["log_sfr"]).mean() == pytest.approx(0.25, abs=0.02)
    assert len(np.unique(sample.groups)) > 100
    again = synthetic(objects=6000, dimension=96, seed=1)
    rows = np.flatnonzero(sample.embeddings[1].present)
    assert np.array_equal(again.embeddings[1][rows], sample.embeddings[1][rows])
