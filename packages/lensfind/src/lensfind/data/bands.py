"""Filters by name: the wavelengths that put bands in order, colour pictures, and tell a network what is blue."""

from collections.abc import Mapping
from typing import Any

from skyloom.errors import ConfigError

__all__ = ["WAVELENGTHS", "with_wavelengths"]

WAVELENGTHS = {
    "u": 368.0, "g": 486.0, "r": 625.0, "i": 756.0, "z": 870.0, "y": 972.0,
    "VIS": 715.0, "Y": 1085.0, "J": 1375.0, "H": 1770.0,
    "F435W": 433.0, "F475W": 475.0, "F555W": 541.0, "F606W": 592.0, "F625W": 632.0, "F775W": 769.0, "F814W": 804.0,
    "F850LP": 904.0, "F105W": 1055.0, "F110W": 1153.0, "F125W": 1249.0, "F140W": 1392.0, "F160W": 1537.0,
}  # fmt: skip
"""Effective, nm: enough to put bands in order and to colour pictures."""


def with_wavelengths(
    bands: list[str], stated: Mapping[str, Mapping[str, Any]], given: Mapping[str, float] | None = None
) -> dict[str, dict[str, Any]]:
    """What is stated of each band, its wavelength (nm) filled in: as given, as stated, or by the filter's name.

    >>> with_wavelengths(["g", "K"], {"g": {"psf_fwhm": 0.8}}, {"K": 2200})
    {'g': {'psf_fwhm': 0.8, 'wavelength': 486.0}, 'K': {'wavelength': 2200.0}}
    """
    found = {}
    for band in bands:
        facts = dict(stated.get(band, {}))
        value = (given or {}).get(band, facts.get("wavelength", WAVELENGTHS.get(band)))
        if value is None:
            raise ConfigError(f"the wavelength of band {band!r} is not known: say data.wavelengths={{{band}: <nm>}}.")
        found[band] = {**facts, "wavelength": float(value)}
    return found
