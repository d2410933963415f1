"""Our renderer against lenstronomy, pixel by pixel, without noise."""

from dataclasses import fields, replace

import pytest
import torch

from lensfind.backends import lenstronomy
from lensfind.population import KINDS, LENS, Population, row_seeds
from lensfind.scene import Scene
from lensfind.simulator import draw_scenes, render
from lensfind.survey import Survey
from skyloom.errors import ConfigError

from .conftest import load_survey

SURVEYS = ("des", "euclid", "euclid_nisp", "hsc", "hst_acs", "hst_wfc3", "jwst", "kids", "legacy", "lsst", "sdss")


def one_band(name: str) -> Survey:
    survey = load_survey(name)
    last = list(survey.bands)[-1]
    return replace(survey, bands={last: survey.bands[last]})


def snapped(scene: Scene, cell: float) -> Scene:
    """Galaxies with their centres on corners of the cells that lenstronomy samples: elsewhere it misses the cusps."""
    for name in ("x", "y"):
        setattr(scene, name, torch.round(getattr(scene, name) / cell) * cell)
        setattr(scene.field, name, torch.round(getattr(scene.field, name) / cell) * cell)
    return scene


def compare(name: str, count: int, supersampling: int, side: float, population: Population, worst: float) -> None:
    survey = one_band(name)
    size = 2 * round(side / survey.pixel_scale / 2)
    kinds = torch.where(torch.arange(count) % 4 == 3, KINDS.index("elliptical"), LENS)
    scene = draw_scenes(row_seeds(1, name, "agreement", count), kinds, population, survey, size)
    scene = snapped(scene, survey.pixel_scale / supersampling)
    expected, arcs, _ = render(scene, survey, size, 6)
    peer, peer_arcs = lenstronomy.render(scene, survey, size, supersampling)
    peak = peer.amax(dim=(1, 2, 3))
    off = (expected - peer).abs().amax(dim=(1, 2, 3)) / peak
    off_arcs = (arcs - peer_arcs).abs().amax(dim=(1, 2, 3)) / peak
    assert off.max() < worst, (name, off)
    assert off_arcs.max() < worst, (name, off_arcs)


SMOOTH = Population(
    clumpy=0.0,
    field_stars=0.0,
    lens_index=(1.0, 2.0),
    lens_radius=(0.4, 0.8),
    einstein_radius=(0.8, 1.4),
    source_radius=(0.15, 0.5),
)


def test_agrees_with_lenstronomy_to_a_thousandth_of_the_peak():
    compare("lsst", 4, 8, side=8.0, population=SMOOTH, worst=1e-3)


def test_a_power_law_agrees_too():
    compare("lsst", 2, 8, side=8.0, population=replace(SMOOTH, slope=(1.8, 2.2)), worst=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", SURVEYS)
def test_two_hundred_scenes_of_every_survey_agree(name):
    pixel = load_survey(name).pixel_scale
    cells = 16 if pixel > 0.06 else 8
    compare(name, 200, cells, side=8.0, population=SMOOTH, worst=1e-3)


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
