"""CASTLES (Kochanek et al., HST images of known lenses): one FITS image per system and filter, every one of them a lens.

Files of one OBJECT (header; else the stem before its last underscore) are the bands of one row. A variance map is an extension
that says so by its EXTNAME (VAR, ERR, WHT); a second extension alone means nothing. Fluxes become nJy by PHOTFLAM and PHOTPLAM.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lensfind.data.bands import WAVELENGTHS
from lensfind.data.converters.source import Found, Source, about, on_grid, squared
from lensfind.data.photometry import to_nanojansky, zero_point_of
from skyloom.errors import DataError

_UNKNOWN = (None, "", -1, -1.0)


def _headers(path: Path) -> dict[str, Any]:
    from astropy.io import fits

    with fits.open(path) as file:
        cards = dict(file[0].header)
        for hdu in file[1:]:
            if hdu.name.upper() == "SCI":
                cards |= dict(hdu.header)
    return cards


def _planes(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Image and variance: from PRIMARY or SCI, and from VAR, ERR (its square) or WHT (its inverse)."""
    from astropy.io import fits

    with fits.open(path, memmap=False) as file:
        images = [hdu for hdu in file if hdu.is_image and hdu.data is not None and hdu.data.ndim == 2]
        named = {hdu.name.upper(): hdu.data for hdu in images}
        image = named.get("SCI", next((hdu.data for hdu in images if not _is_variance(hdu.name)), None))
        if image is None:
            raise DataError(f"{path}: no HDU holds an image.")
        variance = None
        for name, data in named.items():
            if name.startswith("VAR"):
                variance = data
            elif name.startswith("ERR"):
                variance = np.square(data)
            elif name.startswith("WHT"):
                variance = np.divide(1.0, data, out=np.full(data.shape, np.nan), where=data > 0)
    return np.asarray(image, dtype=np.float64), None if variance is None else np.asarray(variance, dtype=np.float64)


def _is_variance(name: str) -> bool:
    return name.upper().startswith(("VAR", "ERR", "WHT", "DQ", "MASK"))


def _scale(cards: dict[str, Any], path: Path) -> float:
    from astropy.io import fits
    from astropy.wcs import WCS

    from lensfind.data.tiles import pixel_scale

    if "PIXSCALE" in cards:
        return float(cards["PIXSCALE"])
    header = fits.Header({key: cards[key] for key in cards if key.startswith(("CTYPE", "CRVAL", "CRPIX", "CD", "PC", "CUNIT"))})
    if not WCS(header).has_celestial:
        raise DataError(f"{path} has neither PIXSCALE nor a WCS: its pixels have no size.")
    return pixel_scale(WCS(header))


_Systems = dict[str, dict[str, tuple[Path, dict[str, Any]]]]


def _systems(input: Path) -> _Systems:
    """{name of a system: {band: (file, its cards)}}."""
    files = sorted([*input.glob("*.fits"), *input.glob("*.fit")])
    if not files:
        raise DataError(f"{input}: there is no FITS file in it.")
    systems: _Systems = {}
    for path in files:
        cards = _headers(path)
        stem = path.stem.rpartition("_")[0] or path.stem
        name = str(cards.get("OBJECT") or stem).strip()
        band = str(cards.get("FILTER") or cards.get("FILTER1") or "F814W").strip()
        if band.upper().startswith("CLEAR"):
            band = str(cards.get("FILTER2", "")).strip()
        if band in systems.setdefault(name, {}):
            raise DataError(f"{path}: {name} has a second image in {band}, beside {systems[name][band][0].name}.")
        systems[name][band] = (path, cards)
    return systems


def _in_nanojansky(path: Path, cards: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """Image in nJy and variance in nJy^2; counts are taken over the exposure time."""
    plane, spread = _planes(path)
    factor = to_nanojansky(1.0, zero_point_of(cards, "hst"))
    if str(cards.get("BUNIT", "")).strip().upper() in ("ELECTRONS", "COUNTS") and float(cards.get("EXPTIME", 0)) > 0:
        factor /= float(cards["EXPTIME"])
    return plane * factor, None if spread is None else spread * factor**2


def source(input: Path, size: int = 128, pixel_scale: float = 0.05) -> Source:
    systems = _systems(input)
    names = sorted(systems)
    bands = sorted({band for system in systems.values() for band in system}, key=lambda b: (WAVELENGTHS.get(b, 1e9), b))

    def card(name: str, *keys: str) -> float:
        found = (cards[key] for _, cards in systems[name].values() for key in keys if cards.get(key) not in _UNKNOWN)
        return float(next(found, "nan"))

    table = pd.DataFrame({"object_id": names, "group_id": names})
    table["label"], table["label_source"], table["label_confidence"] = 1, "obs:castles", 1.0
    table["ra"], table["dec"] = [card(n, "RA", "RA_TARG") for n in names], [card(n, "DEC", "DEC_TARG") for n in names]
    table["z_spec"] = [card(n, "REDSHIFT") for n in names]
    table["seeing"] = [card(n, "SEEING", "PSF_FWHM") for n in names]
    table["instrument"] = [str(next(iter(systems[n].values()))[1].get("TELESCOP", "HST")) for n in names]
    table["survey"], table["pixel_scale"] = "hst", pixel_scale
    table["bands"] = [",".join(band for band in bands if band in systems[n]) for n in names]

    def read(k: int) -> Found:
        image = np.full((len(bands), size, size), np.nan, dtype=np.float32)
        variance = np.full_like(image, np.nan)
        for band, (path, cards) in systems[names[k]].items():
            plane, spread = _in_nanojansky(path, cards)
            scale, index = _scale(cards, path), bands.index(band)
            same = abs(scale / pixel_scale - 1) < 0.01
            for out, values, power in ((image, plane, 1), (variance, spread, 2)):
                if values is not None:
                    laid = squared(values[None], size) if same else on_grid(values[None], scale, pixel_scale, size, power)
                    out[index] = laid[0]
        return Found(image, variance if np.isfinite(variance).any() else None)

    note = (
        "CASTLES holds lenses only: add non-lenses of the same instrument, bands, PSF and pixel scale (RELICS cores, matched "
        "galaxies), or a network learns the telescope"
    )
    return Source(table, about(bands, size, "nJy", "hst", pixel_scale, False, "HST archive"), read, [note])
