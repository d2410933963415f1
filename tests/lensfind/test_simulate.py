"""The simulator: photometry, noise, reproducibility, and that nothing but the arcs tells a lens."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from lensfind.lensing import sis_images
from lensfind.simulation.population import KINDS, LENS, Population, draw_kinds, row_seeds
from lensfind.simulation.simulator import draw_scenes, observe, render, simulate
from lensfind.survey import Survey, nanojansky
from skyloom.errors import ConfigError

from .conftest import load_survey

SURVEYS = ("lsst", "hsc", "des", "euclid")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def kinds_of(name: str, count: int) -> torch.Tensor:
    return torch.full((count,), KINDS.index(name))


def test_a_row_does_not_depend_on_its_neighbours(lsst, population):
    seeds, kinds = row_seeds(5, "train", "unlabeled", 37), draw_kinds(5, "train", "unlabeled", 37, 0.4, population)
    together = simulate(seeds, kinds, lsst, population, 36)
    for row in range(0, 37, 4):
        alone = simulate(seeds[row : row + 1], kinds[row : row + 1], lsst, population, 36)
        for key in alone:
            assert torch.allclose(alone[key][0].double(), together[key][row].double(), rtol=1e-5, atol=1e-5, equal_nan=True), (
                key
            )
        sigma = together["variance"][row].sqrt()
        assert ((alone["image"][0] - together["image"][row]).abs() / sigma).max() < 1e-3


def test_more_rows_leave_the_first_as_they_were(population):
    assert torch.equal(row_seeds(1, "test", "unlabeled", 50)[:20], row_seeds(1, "test", "unlabeled", 20))
    many = draw_kinds(1, "test", "unlabeled", 50, 0.3, population)
    assert torch.equal(many[:20], draw_kinds(1, "test", "unlabeled", 20, 0.3, population))
    splits = [row_seeds(1, split, part, 100) for split in ("train", "val", "test") for part in ("labelled", "unlabeled")]
    assert len(torch.cat(splits).unique()) == 600


def test_kinds_have_the_asked_shares(population):
    kinds = draw_kinds(0, "train", "unlabeled", 40_000, 0.02, population)
    assert (kinds == LENS).float().mean() == pytest.approx(0.02, abs=0.003)
    for name, share in population.negatives.items():
        assert (kinds == KINDS.index(name)).float().mean() == pytest.approx(0.98 * share, abs=0.01)


@pytest.mark.parametrize("name", SURVEYS)
def test_aperture_photometry_gives_back_the_magnitudes(name):
    """The whole light of a small galaxy is its magnitude, in every band of every survey."""
    survey = load_survey(name)
    population = Population(
        lens_radius=(0.1, 0.15),
        lens_index=(1.0, 1.0),
        einstein_radius=(0.6, 0.8),
        envelope=(0, 0),
        field_galaxies=0,
        field_stars=0,
    )
    scene = draw_scenes(row_seeds(0, "x", "y", 4), kinds_of("elliptical", 4), population, survey)
    expected, _, _ = render(scene, survey, round(12 / survey.pixel_scale))
    total = expected.sum(dim=(-2, -1))
    assert (total / scene.lens_flux - 1).abs().max() < 0.03  # the wings of a Moffat PSF leave the frame


def test_lensing_magnifies_as_theory_says(lsst):
    """A small source behind a sphere is magnified 2 theta_E / beta in total, equally in all bands."""
    population = Population(
        axis_ratio=(1.0, 1.0), shear=(0.0, 0.0), source_radius=(0.04, 0.05), source_index=(0.5, 0.5),
        einstein_radius=(0.9, 1.1), clumpy=0.0,
    )  # fmt: skip
    scene = draw_scenes(row_seeds(0, "x", "y", 16), kinds_of("lens", 16), population, lsst)
    scene.offset = torch.linspace(0.3, 0.75, 16)
    _, arcs, magnification = render(scene, lsst, 60, oversample=10)
    _, mu = sis_images(scene.offset * scene.theta_e, scene.theta_e)
    assert torch.allclose(mu.abs().sum(-1), 2 / scene.offset, rtol=1e-4)
    assert (magnification / mu.abs().sum(-1) - 1).abs().max() < 0.03  # the source has a size
    ratio = arcs.sum(dim=(-2, -1)) / scene.source_flux
    assert (ratio / ratio[:, :1] - 1).abs().max() < 0.01  # achromatic, but for the wings of the PSF


def test_a_source_on_the_axis_makes_a_ring_at_the_einstein_radius(lsst):
    population = Population(
        axis_ratio=(1.0, 1.0), shear=(0.0, 0.0), source_radius=(0.03, 0.03), source_index=(0.5, 0.5), clumpy=0.0
    )
    sharp = Survey("sharp", 0.05, 1.0, 1.0, None, 0.0, {"i": lsst.bands["i"].__class__(755, 0.06, 28, 21, 100, 1)})
    size = 140
    scene = draw_scenes(row_seeds(0, "x", "y", 8), kinds_of("lens", 8), population, sharp, size)
    scene.offset = torch.zeros(8)
    _, arcs, _ = render(scene, sharp, size)
    line = (torch.arange(size) - (size - 1) / 2) * 0.05
    r = torch.hypot(line[None, :, None] - scene.y[:, None, None], line[None, None, :] - scene.x[:, None, None])
    mean = (arcs[:, 0] * r).sum(dim=(1, 2)) / arcs[:, 0].sum(dim=(1, 2))
    assert (mean - scene.theta_e).abs().max() < 0.1 * 0.2  # a tenth of an LSST pixel


def test_arcs_are_all_that_a_lens_adds(lsst, population):
    """Lens and plain elliptical of one seed: the same galaxy, PSF and noise; the difference is the lensed light."""
    seeds = row_seeds(2, "x", "y", 6)
    scenes = [draw_scenes(seeds, kinds_of(name, 6), population, lsst) for name in ("lens", "elliptical")]
    (with_arcs, arcs, _), (without, _, _) = (render(scene, lsst, 40) for scene in scenes)
    assert torch.allclose(with_arcs - without, arcs, atol=1e-3 * float(arcs.max()))
    assert (arcs > -1e-3 * arcs.amax(dim=(-2, -1), keepdim=True)).all()


def test_noise_has_the_stated_variance(lsst):
    """Ten thousand pixels at three brightnesses: mean without bias, variance as the map says, to 2 per cent."""
    for level in (0.0, 50.0, 5000.0):
        expected = torch.full((4, 3, 60, 60), level)
        image, variance = observe(expected, lsst, torch.arange(4))
        z = (image - expected) / variance.sqrt()
        assert z.mean().abs() < 0.02
        assert z.var() == pytest.approx(1.0, abs=0.02)
    empty = observe(torch.zeros(1, 3, 8, 8), lsst, torch.arange(1))[1].sqrt()[0, :, 0, 0]
    assert torch.allclose(empty, lsst.sky_sigma())


def test_depth_of_the_coadds_is_that_of_the_surveys(lsst):
    """Point-source depth over n_eff = 2.266 (FWHM/pixel)^2 pixels (LSST SMTN-002) is the published one, to half a magnitude.

    LSST: 5 sigma (Ivezic et al. 2019, Table 1). HSC Wide: 5 sigma (PDR3, Aihara et al. 2022). DES: 10 sigma (DR2, Abbott et
    al. 2021).
    """
    published = {"lsst": (5, (27.4, 27.5, 26.8)), "hsc": (5, (26.5, 26.5, 26.2)), "des": (10, (24.7, 24.4, 23.8))}
    for name, (snr, depths) in published.items():
        survey = load_survey(name)
        pixels = 2.266 * (survey.column("psf_fwhm") / survey.pixel_scale) ** 2
        faintest = 31.4 - 2.5 * torch.log10(snr * survey.sky_sigma() * pixels.sqrt())
        assert torch.allclose(faintest, torch.tensor(depths), atol=0.5), (name, faintest)


def test_magnitudes_and_nanojanskys():
    assert float(nanojansky(torch.tensor(31.4))) == pytest.approx(1.0)
    assert float(nanojansky(torch.tensor(23.9))) == pytest.approx(1000.0, rel=1e-4)


def test_signal_to_noise_and_truth_are_nan_where_there_is_no_lens(lsst, population):
    rows = simulate([1, 2, 3, 4], ["lens", "ring", "merger", "projected"], lsst, population, 40)
    for key in ("theta_E", "arc_snr", "magnification"):
        assert rows[key].isnan().tolist() == [False, True, True, True]
    assert rows["arc_snr"][0] > 5
    assert 0 < rows["flux_ratio"][0] < 1
    assert rows["flux_ratio"][1:].isnan().all()


def test_mistakes_are_named(lsst, population):
    with pytest.raises(ConfigError, match="cannot hold arcs .* size >= 36"):
        simulate([1], ["lens"], lsst, population, 20)
    with pytest.raises(ConfigError, match="'companions'"):
        simulate([1], ["companion"], lsst, population, 40)
    with pytest.raises(ConfigError, match="no band 'v'"):
        load_survey("lsst", use=["g", "v"])
    with pytest.raises(ConfigError, match="shares"):
        Population(negatives={"ring": -1.0})


# ---------------------------------------------------------------- shortcuts


def one_number_features(images: np.ndarray, pixel: float) -> np.ndarray:
    """Ten numbers that know no shape: totals, core, annuli, their ratio and spread, antisymmetry of 12 sectors."""
    size = images.shape[-1]
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) * pixel
    r, phi = np.hypot(x, y), np.arctan2(y, x)
    grey = images.sum(axis=1)
    annuli = [grey[:, (r >= a) & (r < b)].mean(axis=1) for a, b in ((0, 0.6), (0.6, 1.2), (1.2, 2.0), (2.0, 3.2))]
    zone = (r > 0.6) & (r < 2.5)
    sector = (np.floor((phi + np.pi) / (np.pi / 6)) % 12).astype(int)
    ring = np.stack([grey[:, zone & (sector == k)].mean(axis=1) for k in range(12)], axis=1)
    antisymmetry = np.abs(ring - np.roll(ring, 6, axis=1)).max(axis=1) / ring.mean(axis=1)
    return np.stack(
        [grey.mean(axis=(1, 2)), grey.std(axis=(1, 2)), grey.max(axis=(1, 2)), *annuli, annuli[2] / annuli[0],
         grey[:, (r > 0.6) & (r < 2.0)].std(axis=1), antisymmetry], axis=1
    )  # fmt: skip


@pytest.fixture(scope="module")
def balanced(lsst, population):
    """1500 cutouts, half of them lenses, and their kinds."""
    seeds, kinds = row_seeds(11, "x", "y", 1500), draw_kinds(11, "x", "y", 1500, 0.5, population)
    parts = [simulate(seeds[k : k + 64], kinds[k : k + 64], lsst, population, 40)["image"] for k in range(0, 1500, 64)]
    return torch.cat(parts).numpy(), (kinds == LENS).numpy()


def test_no_single_number_tells_a_lens(balanced):
    """Logistic regression and boosted trees on ten hand-made numbers stay below AUROC 0.75 on lenses against hard negatives."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, lens = balanced
    features = one_number_features(images, 0.2)
    features = np.sign(features) * np.log1p(np.abs(features))
    half = len(lens) // 2
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features[:half], lens[:half])
    assert roc_auc_score(lens[half:], model.decision_function(features[half:])) < 0.75
    trees = HistGradientBoostingClassifier(max_iter=100, learning_rate=0.06, max_leaf_nodes=15, random_state=0)
    trees.fit(features[:half], lens[:half])
    assert roc_auc_score(lens[half:], trees.decision_function(features[half:])) < 0.75
    for column in features.T:
        assert 0.4 < roc_auc_score(lens, column) < 0.6


def small_network() -> torch.nn.Sequential:
    def layer(before: int, after: int, stride: int = 1) -> list[torch.nn.Module]:
        convolution = torch.nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        return [convolution, torch.nn.BatchNorm2d(after), torch.nn.ReLU()]

    pool = torch.nn.MaxPool2d(2)
    head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(96, 1), torch.nn.Flatten(0)]
    return torch.nn.Sequential(*layer(3, 24, 2), *layer(24, 32), pool, *layer(32, 64), pool, *layer(64, 96), *head)


def taught(images: torch.Tensor, lens: torch.Tensor, epochs: int) -> torch.nn.Sequential:
    """The small network after supervised training on all symmetries of the square."""
    torch.manual_seed(0)
    network, batches = small_network(), -(-len(images) // 64)
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, epochs * batches)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            seen = torch.rot90(images[rows], int(torch.randint(4, ())), (2, 3))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(seen), lens[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@pytest.mark.slow
def test_what_no_number_tells_a_small_network_sees(lsst, population, balanced):
    """Shape tells: a network of 90,000 weights is taught by 6,000 cutouts what leaves trees on single numbers below 0.75."""
    from sklearn.metrics import roc_auc_score

    seeds, kinds = row_seeds(12, "x", "y", 6000), draw_kinds(12, "x", "y", 6000, 0.5, population)
    parts = [simulate(seeds[k : k + 64], kinds[k : k + 64], lsst, population, 40)["image"] for k in range(0, 6000, 64)]
    stretch = torch.tensor([20.0, 30.0, 40.0])[:, None, None]  # nJy
    network = taught(torch.asinh(torch.cat(parts) / stretch), (kinds == LENS).float(), epochs=14)
    images, lens = balanced
    with torch.no_grad():
        score = network(torch.asinh(torch.from_numpy(images) / stretch))
    assert roc_auc_score(lens, score.numpy()) > 0.88


def test_cores_are_equally_bright_in_both_classes(balanced):
    images, lens = balanced
    core = images[:, :, 18:22, 18:22].sum(axis=(1, 2, 3))
    assert ks_2samp(core[lens], core[~lens]).pvalue > 0.01


def test_every_kind_of_non_lens_differs_from_the_plain_galaxy_of_its_seed(lsst, population):
    seeds = row_seeds(4, "x", "y", 12)
    plain = simulate(seeds, ["elliptical"] * 12, lsst, population, 40)
    for name in KINDS[2:]:
        rows = simulate(seeds, [name] * 12, lsst, population, 40)
        changed = ((rows["image"] - plain["image"]).abs() / plain["variance"].sqrt()).amax(dim=(1, 2, 3))
        assert (changed > 3).float().mean() > 0.7, name


def test_sources_may_be_images(lsst, tmp_path):
    """A stamp of a Gaussian, lensed, is the lensed Gaussian."""
    side, r_e = 2.0, 0.25
    line = (np.arange(80) - 39.5) * side / 80
    sigma = r_e / np.sqrt(2 * np.log(2))
    np.save(tmp_path / "stamps.npy", np.exp(-(line[:, None] ** 2 + line**2) / (2 * sigma**2))[None])
    smooth = Population(
        clumpy=0.0, source_radius=(r_e, r_e), source_index=(0.5, 0.5), field_galaxies=0.0, field_stars=0.0, artefacts=0.0
    )
    stamped = replace(smooth, stamps=str(tmp_path / "stamps.npy"), stamp_size=side)
    arcs = []
    for p in (smooth, stamped):
        scene = draw_scenes(row_seeds(5, "x", "y", 6), kinds_of("lens", 6), p, lsst, 40)
        scene.source_q = torch.ones(6)
        arcs.append(render(scene, lsst, 40, population=p)[1])
    assert ((arcs[0] - arcs[1]).abs().amax(dim=(1, 2, 3)) / arcs[0].amax(dim=(1, 2, 3))).max() < 0.02


def test_some_arcs_drown_in_the_noise(lsst):
    """The default sources reach from arcs that blaze to arcs below S/N = 8; without faint ones all are far above it."""
    seeds, kinds = row_seeds(8, "x", "y", 400), kinds_of("lens", 400)
    snr = simulate(seeds, kinds, lsst, Population(), 40)["arc_snr"]
    assert 0.002 < (snr < 8).float().mean() < 0.05
    assert (snr < 20).float().mean() > 0.02
    assert snr.median() > 100
    with pytest.raises(ConfigError, match="faint_sources"):
        Population(faint_sources=1.5)


def test_a_row_is_the_same_but_for_the_sources_that_became_faint(lsst):
    seeds, kinds = row_seeds(8, "x", "y", 64), kinds_of("lens", 64)
    none, some = (draw_scenes(seeds, kinds, Population(faint_sources=share), lsst, 40) for share in (0.0, 0.25))
    fainter = some.source_flux[:, 0] != none.source_flux[:, 0]
    assert 4 < fainter.sum() < 32
    assert (some.source_flux[fainter] < none.source_flux[fainter]).all()
    assert torch.equal(some.theta_e, none.theta_e)
    assert torch.equal(some.lens_flux, none.lens_flux)


def test_clumps_take_light_from_the_source_and_add_none(lsst):
    magnification = []
    for clumpy in (0.0, 1.0):
        p = Population(clumpy=clumpy, einstein_radius=(1.0, 1.0))
        scene = draw_scenes(row_seeds(6, "x", "y", 8), kinds_of("lens", 8), p, lsst, 40)
        assert ((scene.clumps[..., 3].sum(dim=1) > 0) == bool(clumpy)).all()
        magnification.append(render(scene, lsst, 40, population=p)[2])
    assert (magnification[1] / magnification[0] - 1).abs().median() < 0.2


def test_rays_converge(lsst):
    """Four rays on a side where a source is bright are within 3e-3 of the peak of sixteen, in the median within 1e-4."""
    scene = draw_scenes(row_seeds(7, "x", "y", 16), kinds_of("lens", 16), Population(), lsst, 40)
    exact, fast = (render(scene, lsst, 40, rays)[0] for rays in (16, 4))
    off = (exact - fast).abs().amax(dim=(1, 2, 3)) / exact.amax(dim=(1, 2, 3))
    assert off.max() < 3e-3
    assert off.median() < 1e-4
