"""Clusters as lenses, and arcs painted on images that are given."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lensfind.lensing import SIS, Composite, Crowd, PseudoJaffe
from lensfind.simulation.clusters import ClusterPopulation, draw_cluster, lensed_light, member_light, simulate_cluster
from lensfind.simulation.injection import inject, inject_cluster
from lensfind.simulation.population import KINDS, Population, row_seeds
from lensfind.simulation.simulator import simulate
from lensfind.survey import Survey
from skyloom.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def wide() -> Survey:
    """A survey with large pixels, so that fields are small."""
    band = {"psf_fwhm": 1.2, "zero_point": 28.0, "sky": 20.5, "exposure": 3000, "exposures": 100}
    bands = {"g": {"wavelength": 485, **band}, "i": {"wavelength": 755, **band}}
    return Survey.of(bands, name="wide", pixel_scale=0.5, gain=1.0, read_noise=8.0, moffat_beta=3.0, seeing_scatter=0.1)


@pytest.fixture(scope="module")
def field(wide):
    return simulate_cluster(3, wide, ClusterPopulation(members=(10, 15), sources=4), side=90.0, cells=2)


def test_a_crowd_is_the_sum_of_its_members():
    x, y = torch.randn(2, 30, dtype=torch.float64) * 5
    places = torch.tensor([[0.3, -0.2], [2.0, 1.0], [-3.0, 0.5]], dtype=torch.float64)
    theta, q = torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64), torch.tensor([0.5, 0.8, 0.9], dtype=torch.float64)
    crowd = Crowd(PseudoJaffe(theta, q, 0.3, 0.05, 4.0, places[:, 0], places[:, 1]))
    each = Composite(
        [PseudoJaffe(float(t), float(r), 0.3, 0.05, 4.0, *p) for t, r, p in zip(theta, q, places.tolist(), strict=True)]
    )
    for ours, sum_ in ((crowd.deflection, each.deflection), (crowd.hessian, each.hessian)):
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(ours(x, y), sum_(x, y), strict=True))
    assert torch.allclose(crowd.potential(x, y), each.potential(x, y), atol=1e-10)
    assert crowd.centres() == [tuple(p) for p in places.tolist()]


def test_a_source_behind_a_large_sphere_is_magnified_as_theory_says():
    """theta_E = 20, a Gaussian of sigma 0.3 at beta = 2: 2 theta_E/beta = 20, and 20.24 for its size."""
    source = {"x": [2.0], "y": [0.0], "efficiency": [1.0], "r_e": [0.3 * math.sqrt(2 * math.log(2))], "n": [0.5], "q": [1.0],
              "angle": [0.0]}  # fmt: skip
    _, magnification = lensed_light(SIS(20.0), {k: np.array(v) for k, v in source.items()}, 240, 0.25, cells=4)
    assert float(magnification[0]) == pytest.approx(20.24, rel=0.02)


def test_einstein_radii_lie_where_they_are_asked_and_every_number_comes_from_the_seed():
    population = ClusterPopulation(einstein_radius=(12.0, 30.0), members=(10, 12))
    cluster, again = (draw_cluster(5, population) for _ in range(2))
    assert 12 <= cluster.einstein_radius <= 30
    assert again.einstein_radius == cluster.einstein_radius
    assert all(np.array_equal(again.sources[k], cluster.sources[k]) for k in cluster.sources)
    assert (cluster.sources["z"] > cluster.z_lens).all()
    assert 12 <= len(cluster.members["x"]) <= 14
    with pytest.raises(DataError, match="no Einstein radius"):
        draw_cluster(1, ClusterPopulation(einstein_radius=(49.0, 49.1), m200=(1e14, 1.1e14)))


def test_a_field_holds_a_cluster_and_its_arcs(field, wide):
    assert field["image"].shape == (2, 180, 180)
    assert torch.isfinite(field["image"]).all()
    assert field["magnification"][0] > 3  # the first source is behind the caustic
    assert 10 <= field["theta_E"] <= 30  # a third of the field
    residual = (field["image"] - field["arcs"])[:, field["mask"]].mean()
    assert torch.isfinite(residual)
    assert 0.001 < field["mask"].float().mean() < 0.5
    red = field["image"][1, 85:95, 85:95].sum() / field["image"][0, 85:95, 85:95].sum()
    assert red > 3  # the brightest galaxy is in the middle, and red
    with pytest.raises(ConfigError, match="smaller than three"):
        simulate_cluster(1, wide, side=20.0)


def test_members_beside_a_field_do_not_come_back_over_its_other_edge(wide):
    """Against a field twice as large, in which all members lie: galaxies outside stood within the field, and the light between
    galaxies shone over the edges, by tens of percent of the peak."""
    cluster = draw_cluster(2, ClusterPopulation(einstein_radius=(10.0, 40.0)))
    outside = np.maximum(np.abs(cluster.members["x"]), np.abs(cluster.members["y"])) > 60
    assert outside.sum() >= 3
    field, large = (member_light(cluster, wide, size) for size in (240, 480))
    inner = large[:, 120:-120, 120:-120]
    assert ((field - inner).abs().amax(dim=(1, 2)) / inner.amax(dim=(1, 2))).max() < 5e-4


def test_light_between_galaxies_fades_as_its_profile_says(wide):
    """The whole of it, far beyond the field: 20 arcsec of an exponential of half-light radius r_e = 30 from the middle."""
    cluster = draw_cluster(2, ClusterPopulation(einstein_radius=(10.0, 40.0)))
    alone = {name: values[1:2].repeat(2) for name, values in cluster.members.items()}
    alone |= {"r_e": np.array([30.0, 30.0]), "q": np.ones(2), "x": np.array([1e4, 0.0])}  # a first galaxy far away
    light = member_light(replace(cluster, members=alone), wide, 240)[0]
    assert float(light[120, 160] / light[120, 120]) == pytest.approx(math.exp(-1.678 * 20 / 30), rel=0.01)


def test_arcs_on_a_field_are_all_that_changes(field, wide):
    rng = np.random.default_rng(0)
    sky = torch.from_numpy(rng.normal(0, 5.0, (2, 180, 180))).float()
    variance = torch.full_like(sky, 25.0)
    painted = inject_cluster(
        sky, variance, 3, wide, ClusterPopulation(einstein_radius=(10.0, 30.0), members=(10, 15), sources=4), cells=2
    )
    away = painted["arcs"] < 1e-3
    assert away.any()
    assert torch.allclose(painted["image"][away], sky[away], atol=0.1)
    assert (painted["variance"] >= variance).all()


@pytest.fixture(scope="module")
def painted(lsst):
    """Arcs on plain ellipticals, and the cutouts before."""
    seeds = row_seeds(0, "x", "injection", 48)
    kinds = torch.full((48,), KINDS.index("elliptical"))
    before = simulate(seeds, kinds, lsst, Population(artefacts=0.0), 40)
    return before, inject(before["image"], before["variance"], seeds + 1, lsst, Population(artefacts=0.0))


def test_injected_cutouts_are_the_old_ones_plus_arcs_and_their_photon_noise(painted, lsst):
    before, after = painted
    added = after["image"] - before["image"] - after["arcs"]
    gain = lsst.electrons()[:, None, None]
    bright = after["arcs"] * gain > 20
    z = added / torch.sqrt((after["arcs"] * gain).clamp(min=1e-9)) * gain
    assert z[bright].mean().abs() < 0.05
    assert z[bright].std() == pytest.approx(1.0, abs=0.05)
    assert torch.allclose(after["variance"] - before["variance"], after["arcs"].clamp(min=0) / gain, atol=1e-3)
    assert (after["magnification"] > 1).all()


def test_nothing_but_the_arcs_tells_a_painted_cutout(painted):
    """With the region of the arcs masked, a classifier of noise and background cannot tell the two apart."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    before, after = painted
    keep = ~after["mask"][:, None].expand_as(after["image"])

    def features(image: torch.Tensor) -> np.ndarray:
        inside = torch.where(keep, image, torch.nan)
        corner = inside[:, :, :6, :].flatten(2)
        return torch.cat([corner.nanmean(-1), torch.nanmean(corner**2, -1).sqrt()], dim=1).numpy()

    x = np.concatenate([features(before["image"]), features(after["image"])])
    x = (x - np.nanmean(x, 0)) / np.nanstd(x, 0)
    y = np.repeat([0, 1], 48)
    groups = np.tile(np.arange(48), 2)
    from sklearn.model_selection import GroupKFold

    score = cross_val_predict(
        LogisticRegression(), np.nan_to_num(x), y, groups=groups, cv=GroupKFold(4), method="decision_function"
    )
    assert roc_auc_score(y, score) < 0.6


def test_missing_pixels_stay_missing_and_wrong_shapes_are_refused(lsst):
    seeds = torch.arange(2)
    image = torch.zeros(2, 3, 40, 40)
    image[0, 1, 3, 4] = torch.nan
    variance = torch.ones_like(image)
    out = inject(image, variance, seeds, lsst, Population(), theta_e=torch.tensor([1.0, 1.5]))
    assert out["image"].isnan().sum() == 1
    assert out["theta_E"].tolist() == [1.0, 1.5]
    with pytest.raises(DataError, match="3 bands"):
        inject(image[:, :2], variance[:, :2], seeds, lsst, Population())
