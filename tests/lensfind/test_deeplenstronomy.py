"""deeplenstronomy's configurations are read, refused by name where they say more than we know, and run."""

import copy
import sys
from pathlib import Path

import pytest
import yaml

from lensfind.backends.deeplenstronomy import make_dataset, read_configuration
from lensfind.simulation.simulator import simulate
from skyloom.errors import ConfigError, DataError

IMAGE = {"exposure_time": 30, "numPix": 48, "pixel_scale": 0.2, "psf_type": "GAUSSIAN", "read_noise": 9, "ccd_gain": 1}
SKY = {"BANDS": "g,r,i", "magnitude_zero_point": 28.0, "sky_brightness": 21.0, "num_exposures": 100}


def uniform(low: float, high: float) -> dict:
    return {"DISTRIBUTION": {"NAME": "uniform", "PARAMETERS": {"minimum": low, "maximum": high}}}


def sersic(magnitude: object, radius: float, index: float, x: object = 0.0) -> dict:
    return {"NAME": "SERSIC_ELLIPSE", "PARAMETERS": {"magnitude": magnitude, "center_x": x, "center_y": 0.0, "R_sersic": radius,
            "n_sersic": index, "e1": 0.1, "e2": 0.0}}  # fmt: skip


def sie(theta_e: object) -> dict:
    return {"NAME": "SIE", "PARAMETERS": {"theta_E": theta_e, "e1": 0.1, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}}


CONFIGURATION = {
    "DATASET": {"NAME": "demo", "PARAMETERS": {"SIZE": 4, "OUTDIR": "demo"}},
    "COSMOLOGY": {"PARAMETERS": {"H0": 70, "Om0": 0.3}},
    "IMAGE": {"PARAMETERS": IMAGE},
    "SURVEY": {"PARAMETERS": {**SKY, "seeing": uniform(0.7, 0.9)}},
    "SPECIES": {
        "GALAXY_1": {
            "NAME": "LENS", "LIGHT_PROFILE_1": sersic(uniform(19, 21), 0.8, 4), "MASS_PROFILE_1": sie(uniform(1.0, 1.8)),
            "SHEAR_PROFILE_1": {"NAME": "SHEAR", "PARAMETERS": {"gamma1": uniform(-0.05, 0.05), "gamma2": 0.0}},
        },
        "GALAXY_2": {"NAME": "SOURCE", "LIGHT_PROFILE_1": sersic(23, 0.3, 1, uniform(-0.5, 0.5)), "MASS_PROFILE_1": sie(1e-4)},
    },
    "GEOMETRY": {"CONFIGURATION_1": {"NAME": "GALGAL", "FRACTION": 1.0,
                 "PLANE_1": {"OBJECT_1": "LENS", "PARAMETERS": {"REDSHIFT": 0.5}},
                 "PLANE_2": {"OBJECT_1": "SOURCE", "PARAMETERS": {"REDSHIFT": 1.5}}}},
}  # fmt: skip


def test_a_configuration_becomes_a_survey_and_a_population(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(CONFIGURATION))
    survey, population, size = read_configuration(path)
    assert (list(survey.bands), size, survey.pixel_scale, survey.moffat_beta) == (["g", "r", "i"], 48, 0.2, None)
    assert survey.bands["i"].exposure == 3000
    assert survey.bands["i"].psf_fwhm == pytest.approx(0.8)
    assert survey.seeing_scatter == pytest.approx(0.125)
    assert population.einstein_radius == (1.0, 1.8)
    assert population.source_magnitude == (23.0, 23.0)
    assert population.lens_magnitude_scatter == 1.0
    rows = simulate([1, 2], ["lens", "elliptical"], survey, population, size)
    assert rows["image"].shape == (2, 3, 48, 48)
    assert 1.0 <= float(rows["theta_E"][0]) <= 1.8


def test_what_cannot_be_read_is_refused_by_name():
    other = copy.deepcopy(CONFIGURATION)
    other["SPECIES"]["GALAXY_1"]["MASS_PROFILE_1"]["NAME"] = "NFW"
    with pytest.raises(ConfigError, match="MASS_PROFILE is NFW"):
        read_configuration(other)
    other = copy.deepcopy(CONFIGURATION)
    other["SPECIES"]["GALAXY_2"]["LIGHT_PROFILE_1"]["PARAMETERS"]["magnitude"] = {"DISTRIBUTION": {"NAME": "lognormal"}}
    with pytest.raises(ConfigError, match="neither a number nor a uniform"):
        read_configuration(other)
    with pytest.raises(ConfigError, match="no IMAGE"):
        read_configuration({"SURVEY": {}, "SPECIES": {}, "GEOMETRY": {}})
    with pytest.raises(DataError, match="no such configuration"):
        read_configuration(Path("/nowhere.yaml"))


@pytest.mark.slow
def test_deeplenstronomy_itself_runs_on_the_newest_lenstronomy():
    pytest.importorskip("deeplenstronomy")
    before = dict(sys.modules)
    images = make_dataset(CONFIGURATION, 4)
    assert before.keys() <= sys.modules.keys()
    (found,) = images.values()
    assert found.shape[1:] == (3, 48, 48)
    assert len(found) >= 4
