"""deeplenstronomy's configurations (Morgan et al. 2021): run by it, or read and rendered by us.

Its YAML names distributions of lenstronomy's parameters for galaxies in planes. `read_configuration` turns what it says of
galaxy-scale lenses into a `Survey` and a `Population` for our simulator; `make_dataset` runs deeplenstronomy itself, on the
newest lenstronomy, and gives back its images.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lensfind.simulation.population import Population
from lensfind.survey import Survey
from skyloom.errors import ConfigError, DataError

__all__ = ["make_dataset", "read_configuration"]

_WAVELENGTHS = {"u": 368.0, "g": 485.0, "r": 625.0, "i": 755.0, "z": 870.0, "Y": 970.0, "y": 970.0}  # nm


def _range(value: Any, where: str) -> tuple[float, float]:
    """Lowest and highest of a number or of a distribution; of a normal one, two deviations to each side."""
    if isinstance(value, int | float):
        return float(value), float(value)
    try:
        drawn = value["DISTRIBUTION"]
        name, p = drawn["NAME"], drawn["PARAMETERS"]
        if name == "uniform":
            return float(p["minimum"]), float(p["maximum"])
        if name == "normal":
            return float(p["mean"]) - 2 * float(p["std"]), float(p["mean"]) + 2 * float(p["std"])
    except (KeyError, TypeError):
        pass
    raise ConfigError(f"{where}: {value!r} is neither a number nor a uniform or normal distribution, all that is read here.")


def _middle(value: Any, where: str) -> float:
    low, high = _range(value, where)
    return (low + high) / 2


def _profile(galaxy: Mapping[str, Any], kind: str, names: tuple[str, ...]) -> Mapping[str, Any]:
    found = [v for k, v in galaxy.items() if k.startswith(kind)]
    if not found or found[0]["NAME"] not in names:
        named = found[0]["NAME"] if found else "none"
        raise ConfigError(f"galaxy {galaxy.get('NAME')!r}: its first {kind} is {named}; only {', '.join(names)} are read here.")
    return found[0]["PARAMETERS"]


def _planes(configuration: Mapping[str, Any]) -> tuple[str, str]:
    """Names of the lens and of the source of the first configuration with two planes."""
    for geometry in configuration["GEOMETRY"].values():
        if "PLANE_1" in geometry and "PLANE_2" in geometry:
            return geometry["PLANE_1"]["OBJECT_1"], geometry["PLANE_2"]["OBJECT_1"]
    raise ConfigError("GEOMETRY has no configuration with a lens and a source plane.")


def _axis_ratios(light: Mapping[str, Any], where: str) -> tuple[float, float]:
    largest = max(abs(edge) for name in ("e1", "e2") for edge in _range(light.get(name, 0.0), where))
    flattest = min(0.66, largest * 2**0.5)
    return max(0.2, (1 - flattest) / (1 + flattest)), 1.0


def read_configuration(source: str | Path | Mapping[str, Any]) -> tuple[Survey, Population, int]:
    """Survey, population and cutout size (pixels) of a deeplenstronomy YAML file or its content.

    What it cannot carry over is refused by name rather than dropped: profiles other than SERSIC and SIE, other distributions
    than uniform and normal. Magnitudes are taken as those of the i band, or of the reddest band where there is no i.
    """
    if isinstance(source, Mapping):
        content = source
    else:
        path = Path(source)
        if not path.exists():
            raise DataError(f"{path}: there is no such configuration.")
        content = yaml.safe_load(path.read_text())
    missing = [name for name in ("IMAGE", "SURVEY", "SPECIES", "GEOMETRY") if name not in content]
    if missing:
        raise ConfigError(f"not a configuration of deeplenstronomy: no {', '.join(missing)}.")
    survey = _survey(content)
    lens_name, source_name = _planes(content)
    species = {v["NAME"]: v for v in content["SPECIES"].values() if "NAME" in v}
    lens, source_galaxy = species[lens_name], species[source_name]
    mass = _profile(lens, "MASS_PROFILE", ("SIE", "EPL", "SPEMD"))
    light = _profile(lens, "LIGHT_PROFILE", ("SERSIC_ELLIPSE", "SERSIC"))
    far = _profile(source_galaxy, "LIGHT_PROFILE", ("SERSIC_ELLIPSE", "SERSIC"))
    shears = [v["PARAMETERS"] for k, v in lens.items() if k.startswith("SHEAR_PROFILE")]
    strongest = max((abs(e) for s in shears for name in ("gamma1", "gamma2") for e in _range(s[name], "shear")), default=0.0)
    radius = _range(mass["theta_E"], "theta_E")
    offsets = [abs(e) for name in ("center_x", "center_y") for e in _range(far.get(name, 0.0), name)]
    magnitude = _range(light["magnitude"], "magnitude")
    middle = (radius[0] * radius[1]) ** 0.5
    population = Population(
        einstein_radius=radius,
        axis_ratio=_axis_ratios(light, lens_name),
        shear=(0.0, strongest * 2**0.5),
        slope=_range(mass.get("gamma", 2.0), "gamma"),
        source_offset=max(0.05, max(offsets) * 2**0.5 / middle),
        lens_magnitude=(magnitude[0] + magnitude[1]) / 2 + 5 * float(np.log10(middle)),
        lens_magnitude_scatter=(magnitude[1] - magnitude[0]) / 2,
        lens_radius=_range(light["R_sersic"], "R_sersic"),
        lens_index=_range(light["n_sersic"], "n_sersic"),
        envelope=(0.0, 0.0),
        source_magnitude=_range(far["magnitude"], "magnitude"),
        faint_sources=0.0,
        source_radius=_range(far["R_sersic"], "R_sersic"),
        source_index=_range(far["n_sersic"], "n_sersic"),
        clumpy=0.0, field_galaxies=0.0, field_stars=0.0, artefacts=0.0,
    )  # fmt: skip
    return survey, population, int(content["IMAGE"]["PARAMETERS"]["numPix"])


def _survey(content: Mapping[str, Any]) -> Survey:
    image, survey = content["IMAGE"]["PARAMETERS"], content["SURVEY"]["PARAMETERS"]
    names = [name.strip() for name in survey["BANDS"].split(",")]
    exposures = round(_middle(survey["num_exposures"], "num_exposures"))
    bands = {
        name: {
            "wavelength": _WAVELENGTHS.get(name, 755.0), "psf_fwhm": _middle(survey["seeing"], "seeing"),
            "zero_point": _middle(survey["magnitude_zero_point"], "magnitude_zero_point"),
            "sky": _middle(survey["sky_brightness"], "sky_brightness"),
            "exposure": _middle(image["exposure_time"], "exposure_time") * exposures, "exposures": exposures,
        }
        for name in names
    }  # fmt: skip
    low, high = _range(survey["seeing"], "seeing")
    return Survey.of(
        bands, name=str(content.get("DATASET", {}).get("NAME", "deeplenstronomy")), pixel_scale=float(image["pixel_scale"]),
        gain=_middle(image["ccd_gain"], "ccd_gain"), read_noise=_middle(image["read_noise"], "read_noise"), moffat_beta=None,
        seeing_scatter=(high - low) / (high + low),
    )  # fmt: skip


@contextlib.contextmanager
def _newest_lenstronomy() -> Iterator[None]:
    """deeplenstronomy passes `numpix` by a name that lenstronomy has since changed to `num_pix`."""
    from deeplenstronomy import image_generator

    original = image_generator.SimAPI

    def renamed(*args: Any, numpix: int | None = None, **rest: Any) -> Any:
        return original(*args, **rest) if numpix is None else original(numpix, *args, **rest)

    image_generator.SimAPI = renamed
    try:
        yield
    finally:
        image_generator.SimAPI = original


def make_dataset(configuration: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
    """Images {configuration name: [N, bands, size, size]} by deeplenstronomy itself, at least `count` in all."""
    try:
        import deeplenstronomy.deeplenstronomy as dl
    except ImportError:
        raise ConfigError("this needs deeplenstronomy: pip install 'skyloom-lensfind[simulators]'.") from None
    content = {**configuration, "DATASET": {**configuration["DATASET"]}}
    geometries = len(content["GEOMETRY"])
    # one image is lost per configuration
    content["DATASET"]["PARAMETERS"] = {**content["DATASET"].get("PARAMETERS", {}), "SIZE": count + geometries}
    with tempfile.TemporaryDirectory() as folder, _newest_lenstronomy(), open(os.devnull, "w") as quiet:
        content["DATASET"]["PARAMETERS"]["OUTDIR"] = folder
        path = Path(folder) / "configuration.yaml"
        path.write_text(yaml.safe_dump(content))
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            made = dl.make_dataset(str(path), verbose=False, store_in_memory=True, save_to_disk=False)
        return {name: np.asarray(getattr(made, f"{name}_images")) for name in made.configurations}
