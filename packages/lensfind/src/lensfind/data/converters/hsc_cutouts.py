"""HSC cutouts as the archive names them: <n>-cutout-HSC-I-<tract>-<release>.fits with HDUs image, mask and variance.

Files that share what stands before `cutout-HSC-` are one object. Pixels flagged BAD, SAT, CR or NO_DATA become NaN; FLUXMAG0 of
the primary header gives the zero point (27 without one). Labels come from a table; without one all are an unlabeled sample.
"""

import re
from pathlib import Path

import numpy as np

from lensfind.data.converters.source import Found, Source, about, labels_from, squared
from lensfind.data.photometry import to_nanojansky, zero_point_of
from skyloom.errors import DataError

_NAME = re.compile(r"^(?P<object>.*?)-?cutout-HSC-(?P<band>[GRIZY])-")
_ORDER = ["g", "r", "i", "z", "y"]
_BAD = ("BAD", "SAT", "CR", "NO_DATA")


def source(input: Path, table: str | None = None, size: int | None = None) -> Source:
    from astropy.io import fits
    from astropy.wcs import WCS

    from lensfind.data.tiles import pixel_scale

    found: dict[str, dict[str, Path]] = {}
    for path in sorted(input.rglob("*cutout-HSC-*.fits")):
        match = _NAME.match(path.name)
        if match is None:
            continue
        name = match["object"] or path.parent.name
        band = match["band"].lower()
        if band in found.setdefault(name, {}):
            raise DataError(f"{path}: object {name!r} has a second image in {band}, {found[name][band]}.")
        found[name][band] = path
    if not found:
        raise DataError(f"{input}: there is no <n>-cutout-HSC-<band>-…fits below it.")
    names = sorted(found)
    bands = [band for band in _ORDER if any(band in files for files in found.values())]
    with fits.open(next(iter(found[names[0]].values()))) as file:
        first = file[1].header
        scale, side = pixel_scale(WCS(first)), size or min(int(first["NAXIS1"]), int(first["NAXIS2"]))
    rows = labels_from(input, table, names)
    rows["survey"], rows["instrument"], rows["pixel_scale"] = "hsc", "HSC", scale
    rows["bands"] = [",".join(band for band in bands if band in found[name]) for name in names]

    def read(k: int) -> Found:
        image = np.full((len(bands), side, side), np.nan, dtype=np.float32)
        variance = np.full_like(image, np.nan)
        row = {}
        for band, path in found[names[k]].items():
            with fits.open(path, memmap=False) as file:
                cards = {**dict(file[0].header), **{key: v for key, v in file[1].header.items() if key == "FLUXMAG0"}}
                plane = np.asarray(file[1].data, dtype=np.float64)
                planes = {hdu.name.upper(): hdu for hdu in file[2:]}
                mask = planes.get("MASK", file[2] if len(file) > 2 else None)
                spread = planes.get("VARIANCE", file[3] if len(file) > 3 else None)
                if mask is not None:
                    bits = sum(1 << int(mask.header[f"MP_{flag}"]) for flag in _BAD if f"MP_{flag}" in mask.header)
                    plane = np.where(np.asarray(mask.data).astype(np.int64) & bits, np.nan, plane)
                world = WCS(file[1].header).all_pix2world((plane.shape[1] - 1) / 2, (plane.shape[0] - 1) / 2, 0)
                row = {"ra": float(world[0]) % 360, "dec": float(world[1])}
                factor = to_nanojansky(1.0, zero_point_of(cards, "hsc"))
                image[bands.index(band)] = squared(plane[None] * factor, side)[0]
                if spread is not None and spread.data is not None:
                    variance[bands.index(band)] = squared(np.asarray(spread.data, dtype=float)[None] * factor**2, side)[0]
        return Found(image, variance if np.isfinite(variance).any() else None, row)

    return Source(rows, about(bands, side, "nJy", "hsc", scale, False, "HSC public data release"), read)
