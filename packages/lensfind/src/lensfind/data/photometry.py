"""One unit for all surveys: nanojansky, from each survey's own zero point, and the arcsinh stretch of a survey.

>>> import numpy as np
>>> round(float(to_nanojansky(np.array(1.0), zero_point=22.5)), 1)       # one nanomaggy
3630.8
"""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from skyloom.errors import DataError, nearest

__all__ = [
    "NATIVE_ZERO_POINTS",
    "arcsinh_stretch",
    "mask_saturated",
    "normalise",
    "survey_of",
    "to_nanojansky",
    "zero_point_of",
]

Array = TypeVar("Array", bound=Any)

NATIVE_ZERO_POINTS = {  # AB magnitude of one unit of the published coadds
    "hsc": 27.0,  # HSC pipeline, Bosch et al. 2018, PASJ 70, S5
    "sdss": 22.5,  # frames in nanomaggies
    "legacy": 22.5,  # nanomaggies, Dey et al. 2019, AJ 157, 168
    "des": 30.0,  # coadds, Abbott et al. 2018, ApJS 239, 18
    "kids": 0.0,  # coadds, Kuijken et al. 2019, A&A 625, A2
    "lsst": 31.4,  # nJy
    "galaxiesml": 27.0,  # HSC PDR2 cutouts
}
"""HST and JWST state theirs in each header."""

_TELESCOPES = {
    "subaru": "hsc", "hsc": "hsc", "hyper suprime": "hsc", "sloan": "sdss", "sdss": "sdss", "hst": "hst", "hubble": "hst",
    "jwst": "jwst", "euclid": "euclid", "vst": "kids", "omegacam": "kids", "rubin": "lsst", "lsst": "lsst", "simonyi": "lsst",
    "decals": "legacy", "legacysurvey": "legacy", "bok": "legacy", "mayall": "legacy", "decam": "des", "ctio": "des",
}  # fmt: skip


def survey_of(header: Mapping[str, Any]) -> str:
    """The survey of a FITS header, by SURVEY, TELESCOP and INSTRUME. One that is not known is an error, not a default."""
    words = " ".join(str(header.get(key, "")) for key in ("SURVEY", "TELESCOP", "INSTRUME", "ORIGIN")).lower()
    for name, survey in _TELESCOPES.items():
        if name in words:
            return survey
    told = {key: header[key] for key in ("SURVEY", "TELESCOP", "INSTRUME") if key in header}
    raise DataError(
        f"the header does not tell its survey ({told or 'no SURVEY, TELESCOP or INSTRUME'}): say survey=<name> and "
        "zero_point=<AB mag of one unit>, for a guess would mis-calibrate everything."
    )


def zero_point_of(header: Mapping[str, Any], survey: str | None = None) -> float:
    """AB magnitude of one unit of the image: from the header where it says so, else the survey's.

    BUNIT (nJy, nanomaggy); MAGZERO, MAGZPT, MAGZP, PHOTZP, ZP; FLUXMAG0 (counts of magnitude 0); PHOTFLAM with PHOTPLAM:
    -2.5 log10(PHOTFLAM) - 5 log10(PHOTPLAM) - 2.408 (HST); PIXAR_SR for images in MJy/sr (JWST).
    """
    unit = str(header.get("BUNIT", "")).strip().lower()
    if unit == "njy":
        return 31.4
    if unit.startswith(("nanomagg", "nmgy")):
        return 22.5
    if unit == "mjy/sr" and "PIXAR_SR" in header:
        return 31.4 - 2.5 * math.log10(1e15 * float(header["PIXAR_SR"]))
    for key in ("MAGZERO", "MAGZPT", "MAGZP", "PHOTZP", "ZP", "ZEROPNT"):
        if key in header and math.isfinite(float(header[key])):
            return float(header[key])
    if float(header.get("FLUXMAG0", 0)) > 0:
        return 2.5 * math.log10(float(header["FLUXMAG0"]))
    if float(header.get("PHOTFLAM", 0)) > 0 and float(header.get("PHOTPLAM", 0)) > 0:
        return -2.5 * math.log10(float(header["PHOTFLAM"])) - 5 * math.log10(float(header["PHOTPLAM"])) - 2.408
    survey = survey or survey_of(header)
    if survey.partition("_")[0] not in NATIVE_ZERO_POINTS:
        raise DataError(
            f"no zero point in the header, and {survey!r} has none of its own.{nearest(survey, NATIVE_ZERO_POINTS)}"
        )
    return NATIVE_ZERO_POINTS[survey.partition("_")[0]]


def to_nanojansky(image: Array, zero_point: float) -> Array:
    """f = counts x 10^(0.4 (31.4 - zero point)) nJy."""
    return image * 10 ** (0.4 * (31.4 - zero_point))


def mask_saturated(image: np.ndarray, saturation: float | None) -> np.ndarray:
    """Pixels at 95% of saturation and above as NaN: clipping them would invent a flux."""
    return image if saturation is None else np.where(image >= 0.95 * saturation, np.nan, image)


def normalise(
    image: np.ndarray, zero_point: float, variance: np.ndarray | None = None, saturation: float | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """An image and its variance in nJy and nJy^2, saturated pixels masked; variance scales with the square."""
    factor = to_nanojansky(1.0, zero_point)
    masked = mask_saturated(np.asarray(image, dtype=np.float64), saturation)
    return (masked * factor).astype(np.float32), None if variance is None else (variance * factor**2).astype(np.float32)


def arcsinh_stretch(image: Any, noise: Any, softening: float = 1.0) -> np.ndarray:
    """arcsinh(flux / (a noise)) per band (axis -3): `noise` [bands] and a are a survey's, never an image's own, so that
    brightness and colour survive."""
    scale = softening * np.asarray(noise, dtype=np.float64)[:, None, None]
    return np.arcsinh(np.asarray(image) / scale)
