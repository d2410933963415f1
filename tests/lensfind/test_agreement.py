"""Our renderer against lenstronomy, pixel by pixel, without noise."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.special import gamma, ndtr

from lensfind.backends import lenstronomy
from lensfind.light.sersic import sersic_amplitude
from lensfind.simulation.population import KINDS, LENS, Population, row_seeds
from lensfind.simulation.scene import Scene
from lensfind.simulation.simulator import draw_scenes, render
from lensfind.survey import Survey
from skyloom.errors import ConfigError

from .conftest import load_survey

SURVEYS = ("des", "euclid", "euclid_nisp", "hsc", "hst_acs", "hst_wfc3", "jwst", "kids", "legacy", "lsst", "sdss")


def one_band(name: str) -> Survey:
    survey = load_survey(name)
    last = list(survey.bands)[-1]
    return replace(survey, bands={last: survey.bands[last]})


def snapped(scene: Scene, cell: float, cusp: float = 2.0) -> Scene:
    """Galaxies with their centres on corners of the cells that lenstronomy samples, and neighbours of n <= `cusp`: its cells
    miss the light of sharper cusps, as `test_at_a_cusp_...` shows against an integral that needs no cells."""
    for name in ("x", "y"):
        setattr(scene, name, torch.round(getattr(scene, name) / cell) * cell)
        setattr(scene.field, name, torch.round(getattr(scene.field, name) / cell) * cell)
    scene.field.n = scene.field.n.clamp(max=cusp)
    return scene


def compare(name: str, count: int, cells: tuple[int, ...], side: float, population: Population, worst: float) -> None:
    """Every scene within `worst` of its peak, the light of galaxies and of arcs both, for lenstronomy's cells of one pixel side
    over `cells`: multiples of the first, the finer ones for scenes alone that do not agree yet. Its error falls with its
    cells, and ours does not know of them; a scene in which ours errs stays apart at the finest."""
    survey = one_band(name)
    size = 2 * round(side / survey.pixel_scale / 2)
    seeds = row_seeds(1, name, "agreement", count)
    kinds = torch.where(torch.arange(count) % 4 == 3, KINDS.index("elliptical"), LENS)
    rows = torch.arange(count)
    for each in cells:
        scene = snapped(draw_scenes(seeds[rows], kinds[rows], population, survey, size), survey.pixel_scale / cells[0])
        off = disagreement(scene, survey, size, each)
        rows, off = rows[off >= worst], off[off >= worst]
        if not len(rows):
            return
    raise AssertionError(f"{name}: rows {rows.tolist()} are off by {off.tolist()} of the peak at {cells[-1]} cells a side")


def disagreement(scene: Scene, survey: Survey, size: int, cells: int) -> torch.Tensor:
    """The largest difference of each scene's image or of its arcs, over the image's peak: [B]."""
    image, arcs, _ = render(scene, survey, size, 6)
    peer, peer_arcs = lenstronomy.render(scene, survey, size, cells)
    off, off_arcs = ((a - b).abs().amax(dim=(1, 2, 3)) for a, b in ((image, peer), (arcs, peer_arcs)))
    return torch.maximum(off, off_arcs) / peer.amax(dim=(1, 2, 3))


SMOOTH = Population(
    clumpy=0.0,
    field_stars=0.0,
    lens_index=(1.0, 2.0),
    lens_radius=(0.4, 0.8),
    einstein_radius=(0.8, 1.4),
    source_radius=(0.15, 0.5),
)


def test_agrees_with_lenstronomy_to_a_thousandth_of_the_peak():
    compare("lsst", 4, (6, 12), side=8.0, population=SMOOTH, worst=1e-3)


def test_a_power_law_agrees_too():
    compare("lsst", 2, (6, 12), side=8.0, population=replace(SMOOTH, slope=(1.8, 2.2)), worst=1e-3)


def integrated(scene: Scene, survey: Survey, size: int) -> np.ndarray:
    """[size, size] pixels of the first galaxy behind a Gaussian PSF, by quadrature in its own elliptical polar coordinates.

    Nodes are even in (R/R_e)^(1/n), in which the profile is a plain exponential; the PSF over a pixel is a difference of error
    functions. Neither cells nor Fourier transforms.
    """
    galaxy = scene.deflectors()
    x, y, r_e, n, q, angle, flux = (
        float(getattr(galaxy, name)[0]) for name in ("x", "y", "r_e", "n", "q", "angle", "flux")
    )  # fmt: skip
    nodes, weights = np.polynomial.legendre.leggauss(400)
    b = 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2)
    t = 20 * (nodes + 1)  # b (R/R_e)^(1/n): the light beyond t = 40 is below 1e-9
    light = 10 * 2 * weights * t ** (2 * n - 1) * np.exp(-t) / gamma(2 * n) * flux
    phi = 2 * np.pi * (np.arange(256) + 0.5) / 256
    radius = r_e * (t / b) ** n
    along, across = radius[:, None] * np.cos(phi) / q**0.5, radius[:, None] * np.sin(phi) * q**0.5
    px = x + along * np.cos(angle) - across * np.sin(angle)
    py = y + along * np.sin(angle) + across * np.cos(angle)
    sigma = float(survey.column("psf_fwhm")[0] * scene.seeing[0]) / (8 * np.log(2)) ** 0.5
    edges = (np.arange(size + 1) - size / 2) * survey.pixel_scale
    columns, rows = (np.diff(ndtr((edges - p.reshape(-1, 1)) / sigma), axis=1) for p in (px, py))
    return rows.T @ (columns * np.repeat(light / len(phi), len(phi))[:, None])


def test_at_a_cusp_lenstronomys_cells_err_and_ours_does_not():
    """A de Vaucouleurs galaxy, by an integral: ours is off by less than 4e-4 of the peak (what its wings do beyond the padded
    plane), cells by more, the less the finer they are."""
    survey = replace(one_band("lsst"), moffat_beta=None)
    sharp = Population(
        lens_index=(4.0, 4.0), lens_radius=(0.4, 0.4), envelope=(0.0, 0.0), field_galaxies=0.0, field_stars=0.0, clumpy=0.0
    )
    scene = draw_scenes(torch.tensor([5]), torch.tensor([KINDS.index("elliptical")]), sharp, survey, 32)
    scene = snapped(scene, survey.pixel_scale / 8)
    exact = integrated(scene, survey, 32)
    ours = render(scene, survey, 32)[0][0, 0].numpy()
    cells = [lenstronomy.render(scene, survey, 32, each)[0][0, 0].numpy() for each in (4, 8, 16)]
    off = [np.abs(image - exact).max() / exact.max() for image in (ours, *cells)]
    assert off[0] < 4e-4, off
    assert off[0] < off[3] < off[2] < off[1], off
    assert off[2] > 1e-3, off


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SURVEYS)
def test_two_hundred_scenes_of_every_survey_agree(name):
    cells = (8, 24, 48) if load_survey(name).pixel_scale > 0.09 else (4, 12, 24)
    compare(name, 200, cells, side=8.0, population=SMOOTH, worst=1e-3)


def test_an_image_that_is_wrong_does_not_agree_at_any_cells(monkeypatch):
    """Arcs brighter by 3% and nothing else."""
    from lensfind.rendering import rays

    monkeypatch.setattr(rays, "sersic_amplitude", lambda r_e, n: sersic_amplitude(r_e, n) + 0.03)
    with pytest.raises(AssertionError, match="are off by"):
        compare("sdss", 1, (4, 8), side=8.0, population=SMOOTH, worst=1e-3)


def test_what_lenstronomy_cannot_render_is_refused():
    scene = draw_scenes(torch.arange(4), torch.zeros(4, dtype=torch.int64), Population(clumpy=1.0), one_band("lsst"), 40)
    with pytest.raises(ConfigError, match="clumpy=0"):
        lenstronomy.render(scene, one_band("lsst"), 40)


def test_fields_of_a_scene_are_columns_of_one_length():
    scene = draw_scenes(torch.arange(5), torch.zeros(5, dtype=torch.int64), Population(), one_band("lsst"), 40)
    assert all(len(getattr(scene, f.name)) == 5 for f in fields(scene) if f.name not in ("field", "stars"))


def test_a_fine_grid_still_sees_the_deflection_turn_at_the_centre(monkeypatch):
    """A wide source over the centre of a lens in Euclid pixels: as if every cell that sees it had many rays."""
    from lensfind.rendering import rays

    survey = one_band("euclid")
    scene = draw_scenes(row_seeds(1, "euclid", "agreement", 2), torch.zeros(2, dtype=torch.int64), SMOOTH, survey, 80)
    fast, _, _ = render(scene, survey, 80)
    monkeypatch.setattr(rays, "_COARSE", 1e-9)
    exact, _, _ = render(scene, survey, 80, 10)
    assert ((fast - exact).abs().amax(dim=(1, 2, 3)) / exact.amax(dim=(1, 2, 3))).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "row", "size"), [("des", 98, 30), ("lsst", 11, 40), ("euclid", 87, 80), ("euclid", 146, 80), ("hst_acs", 34, 160)]
)
def test_scenes_that_were_off_by_more_than_a_thousandth_of_the_peak_are_not(name, row, size, monkeypatch):
    """Small sources behind the centre of the lens, where the deflection jumps and a cell fans out: the middle ray of a cell
    misses what its others meet. And sharp pixels, where many cells see a source of which few are near its core."""
    from lensfind.rendering import rays

    survey = one_band(name)
    seed = row_seeds(1, name, "agreement", row + 1)[row:]
    scene = draw_scenes(seed, torch.zeros(1, dtype=torch.int64), SMOOTH, survey, size)
    fast = render(scene, survey, size)[1]
    for constant, value in (("_FAINT", 1e-6), ("_COARSE", 1e-9), ("_NEAR", (2.5, 2.5, 2.5))):
        monkeypatch.setattr(rays, constant, value)
    image, exact, _ = render(scene, survey, size, 8)
    assert (fast - exact).abs().max() < 8e-4 * image.max()


@pytest.mark.parametrize(("name", "row"), [("hst_acs", 115), ("euclid", 89)])
def test_a_neighbour_at_an_edge_does_not_shine_over_the_opposite_one(name, row):
    """Sharp cameras were padded by five FWHM of a tenth of an arcsecond: 0.7 to 1.5% of the peak came back."""
    survey = one_band(name)
    size = 2 * round(8.0 / survey.pixel_scale / 2)
    seed = row_seeds(1, name, "agreement", 200)[row : row + 1]
    kind = torch.tensor([KINDS.index("elliptical") if row % 4 == 3 else LENS])
    scene = snapped(draw_scenes(seed, kind, SMOOTH, survey, size), survey.pixel_scale / 4)
    image, arcs, _ = render(scene, survey, size, 6)
    peer, peer_arcs = lenstronomy.render(scene, survey, size, 4)
    assert (image - arcs - peer + peer_arcs).abs().max() < 1e-3 * peer.max()
