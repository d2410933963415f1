"""Surveys: every file builds, says where its figures come from, and is as deep as published."""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from lensfind.survey import Band, Survey

from .conftest import CONF, load_survey

NAMES = sorted(path.stem for path in (CONF / "survey").glob("*.yaml"))


def test_all_cameras_are_there():
    wanted = "des euclid euclid_nisp hsc hst_acs hst_wfc3 jwst kids legacy lsst sdss"
    assert set(wanted.split()) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_survey_says_its_units_and_sources(name):
    text = (Path(CONF) / "survey" / f"{name}.yaml").read_text()
    head = text.split("_target_")[0]
    assert "arXiv" in head or "A&A" in head or "AJ" in head or "PASP" in head or "ApJS" in head
    assert "psf_fwhm: arcsec; zero_point: AB mag of 1 e-/s; sky: AB mag/arcsec^2; exposure: s" in text
    survey = load_survey(name)
    assert survey.name == name
    assert 0.02 < survey.pixel_scale < 0.5
    assert Survey.from_json(survey.to_json()) == survey
    assert (survey.sky_sigma() > 0).all()
    assert (survey.column("wavelength").diff() > 0).all()  # from blue to red


PSF = 2.266  # n_eff = 2.266 FWHM^2 for a fitted point source (LSST SMTN-002)


@dataclass(frozen=True)
class Depth:
    """How a survey defines its published depth, and how far ours may lie from it: (least, most) magnitudes deeper."""

    sigma: float = 5
    diameter: float | None = None  # of the aperture, arcsec; None is a fitted PSF
    half_light: float = 0.0  # arcsec: of a fitted exponential galaxy in place of a point source
    deeper: tuple[float, float] = (-0.5, 0.5)

    def area(self, fwhm: float) -> float:
        """Noise-equivalent area, arcsec^2; an exponential disc has 8 pi h^2 and r_half = 1.678 h."""
        if self.diameter:
            return math.pi * (self.diameter / 2) ** 2
        return PSF * fwhm**2 + 8 * math.pi * (self.half_light / 1.678) ** 2


DEFINED = {  # as the files in conf/survey say, each with its source
    "des": Depth(sigma=10, diameter=1.95, deeper=(-0.3, 0.3)),
    "euclid": Depth(sigma=10, diameter=1.3, deeper=(-0.3, 0.3)),
    "euclid_nisp": Depth(deeper=(0.0, 1.0)),  # a prediction with margins
    "hsc": Depth(),
    "hst_acs": Depth(sigma=10),
    "jwst": Depth(diameter=0.3),
    "kids": Depth(diameter=2.0),
    "legacy": Depth(half_light=0.45, deeper=(0.0, 1.0)),  # a requirement, which the survey passes
    "sdss": Depth(deeper=(0.0, 1.2)),  # 95 % completeness, above 5 sigma
}


def limiting_magnitude(survey: Survey, name: str, defined: Depth) -> float:
    """AB magnitude that gives `sigma` on an empty sky: 31.4 - 2.5 log10(sigma x pixel noise x sqrt(pixels))."""
    noise = float(survey.sky_sigma()[list(survey.bands).index(name)])
    pixels = defined.area(survey.bands[name].psf_fwhm) / survey.pixel_scale**2
    return 31.4 - 2.5 * math.log10(defined.sigma * noise * math.sqrt(pixels))


def all_bands(name: str) -> Survey:
    """A survey with every band of its file, used by default or not."""
    numbers = yaml.safe_load((Path(CONF) / "survey" / f"{name}.yaml").read_text())
    return Survey.of(**{k: v for k, v in numbers.items() if k not in ("_target_", "use")})


@pytest.mark.parametrize("name", NAMES)
def test_depth_is_the_published_one(name):
    """From zero point, sky, exposure and read noise, in the survey's own definition of depth.

    The figures have sources of their own, except KiDS's zero points and JWST's skies: there the test bounds a choice.
    """
    survey = all_bands(name)
    stated = [band for band, numbers in survey.bands.items() if numbers.depth is not None]
    assert bool(stated) == (name in DEFINED)
    for band in stated:
        least, most = DEFINED[name].deeper
        deeper = limiting_magnitude(survey, band, DEFINED[name]) - survey.bands[band].depth
        assert least <= deeper <= most, f"{name} {band} is {deeper:+.2f} mag deeper than published"


def test_sky_noise_is_that_of_counted_electrons():
    """One band by hand: 1000 s at 100 e-/s/arcsec^2 in pixels of 0.1 arcsec is 1000 e-; 4 read-outs of 5 e- add 100 e-^2."""
    numbers = {"wavelength": 600, "psf_fwhm": 0.1, "zero_point": 26.4, "sky": 21.4, "exposure": 1000, "exposures": 4}
    camera = {"name": "x", "pixel_scale": 0.1, "gain": 1.0, "moffat_beta": None, "seeing_scatter": 0.0}
    survey = Survey.of({"r": numbers}, read_noise=5.0, **camera)
    assert float(survey.electrons()) == pytest.approx(10.0)  # 31.4 - 26.4 = 5 mag: 0.01 e-/s per nJy
    assert float(survey.sky_sigma()) == pytest.approx(math.sqrt(1000 + 100) / 10, rel=1e-6)


def test_a_band_may_have_a_detector_of_its_own():
    """Its read noise replaces the camera's, survives JSON, and is not stated where there is none."""
    jwst = load_survey("jwst")
    assert jwst.read_variance().tolist() == pytest.approx([4 * 6.8**2, 4 * 2.8**2, 4 * 2.8**2])
    assert Survey.from_json(jwst.to_json()) == jwst
    assert "read_noise" not in jwst.to_json()["bands"]["F150W"]
    assert jwst.to_json()["bands"]["F444W"]["read_noise"] == 2.8


def test_psf_files_give_the_psf_they_hold(tmp_path):
    """A Gaussian written to a FITS file at three pixels per pixel renders as the analytic one; a broken file is refused."""
    import numpy as np
    from astropy.io import fits

    from lensfind.simulation.population import Population
    from lensfind.simulation.simulator import draw_scenes, render
    from skyloom.errors import DataError

    line = (np.arange(91) - 45) * 0.2 / 3
    sigma = 0.8 / 2.354820045
    fits.writeto(tmp_path / "psf.fits", np.exp(-(line[:, None] ** 2 + line**2) / (2 * sigma**2)))
    camera = {"name": "demo", "pixel_scale": 0.2, "gain": 1.0, "read_noise": 5.0, "moffat_beta": None, "seeing_scatter": 0.0}
    numbers = {"wavelength": 755, "psf_fwhm": 0.8, "zero_point": 28.0, "sky": 20.5, "exposure": 1000, "exposures": 10}
    plain = Survey.of({"i": numbers}, **camera)
    file = Survey.of({"i": {**numbers, "psf_file": str(tmp_path / "psf.fits"), "psf_pixel": 0.2 / 3}}, **camera)
    scene = draw_scenes(torch.arange(3), torch.zeros(3, dtype=torch.int64), Population(), plain, 40)
    analytic, measured = render(scene, plain, 40)[0], render(scene, file, 40)[0]
    assert ((analytic - measured).abs().amax(dim=(1, 2, 3)) / analytic.amax(dim=(1, 2, 3))).max() < 1e-3
    missing = Survey.of({"i": {**numbers, "psf_file": str(tmp_path / "none.fits")}}, **camera)
    with pytest.raises(DataError, match="no such PSF file"):
        render(scene, missing, 40)


def test_a_band_is_plain_numbers():
    assert Band(755, 0.7, 28, 21, 100, 1).depth is None
