"""Cutouts of the DESI Legacy Imaging Surveys' viewer: FITS cubes [bands, H, W] in nanomaggies, BANDS = 'grz' in the header.

Labels come from a table (object_id = stem of the file, label, label_source, …); without one all are an unlabeled sample.
"""

from pathlib import Path
from typing import Any

import numpy as np

from lensfind.data.converters.source import Found, Source, about, labels_from, squared
from lensfind.data.photometry import to_nanojansky
from skyloom.errors import DataError


def _header(path: Path) -> dict[str, Any]:
    from astropy.io import fits

    return dict(fits.getheader(path))


def source(input: Path, table: str | None = None, size: int | None = None) -> Source:
    from astropy.io import fits
    from astropy.wcs import WCS

    from lensfind.data.tiles import pixel_scale

    files = sorted([*input.glob("*.fits"), *input.glob("*.fits.fz"), *input.glob("*.fits.gz")])
    if not files:
        raise DataError(f"{input}: there is no FITS file in it.")
    first = _header(files[0])
    bands = list(str(first.get("BANDS", "")).strip())
    if not bands or first.get("NAXIS3", 1) != len(bands):
        raise DataError(
            f"{files[0]}: BANDS = {first.get('BANDS')!r} does not name the {first.get('NAXIS3', 1)} planes of the cube."
        )
    scale = pixel_scale(WCS(fits.Header(first), naxis=2))
    side = size or int(first["NAXIS1"])
    stems = [path.name.split(".fits")[0] for path in files]
    rows = labels_from(input, table, stems)
    rows["survey"], rows["pixel_scale"], rows["zero_point"] = "legacy", scale, 22.5

    def read(k: int) -> Found:
        with fits.open(files[k], memmap=False) as file:
            header, cube = file[0].header, np.asarray(file[0].data, dtype=np.float64)
            weight = next(
                (hdu.data for hdu in file[1:] if hdu.is_image and hdu.data is not None and hdu.data.shape == cube.shape), None
            )
        if cube.ndim == 2:
            cube = cube[None]
        told = list(str(header.get("BANDS", "")).strip())
        if told != bands:
            raise DataError(f"{files[k]} has bands {''.join(told)}, those before it {''.join(bands)}.")
        factor = to_nanojansky(1.0, 22.5)
        variance = None
        empty = np.zeros(cube.shape, dtype=bool)
        if weight is not None:
            empty = ~(weight > 0)
            variance = np.divide(factor**2, weight, out=np.full(cube.shape, np.nan), where=~empty)
        empty |= (cube == 0).all(axis=(1, 2), keepdims=True)  # a band without data is written as zeros
        image = np.where(empty, np.nan, cube * factor)
        present = [band for band, plane in zip(bands, image, strict=True) if np.isfinite(plane).any()]
        row = {"ra": float(header["CRVAL1"]) % 360, "dec": float(header["CRVAL2"]), "bands": ",".join(present)}
        return Found(squared(image, side), None if variance is None else squared(variance, side), row)

    return Source(rows, about(bands, side, "nJy", "legacy", scale, False, "CC BY 4.0 (legacysurvey.org)"), read)
