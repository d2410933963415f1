"""Surveys: every file builds, says where its figures come from, and is as deep as published."""

import math
from pathlib import Path

import pytest
import torch

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


APERTURES = {"kids": math.pi, "jwst": math.pi * 0.15**2}  # arcsec^2; elsewhere the depth is that of a fitted PSF


@pytest.mark.parametrize("name", NAMES)
def test_depth_is_the_published_one(name):
    """To half a magnitude, for a point source over n_eff = 2.266 FWHM^2 (LSST SMTN-002) or the stated aperture, at 5 sigma."""
    survey = load_survey(name)
    for band_name, band in survey.bands.items():
        if band.depth is None:
            continue
        area = APERTURES.get(name, 2.266 * band.psf_fwhm**2)
        one = Survey.of({band_name: vars(band)}, **{k: v for k, v in vars(survey).items() if k != "bands"})
        limit = 5 * float(one.sky_sigma()) * math.sqrt(area) / survey.pixel_scale
        assert 31.4 - 2.5 * math.log10(limit) == pytest.approx(band.depth, abs=0.5), band_name


def test_psf_files_give_the_psf_they_hold(tmp_path):
    """A Gaussian written to a FITS file at three pixels per pixel renders as the analytic one; a broken file is refused."""
    import numpy as np
    from astropy.io import fits

    from lensfind.population import Population
    from lensfind.simulator import draw_scenes, render
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
