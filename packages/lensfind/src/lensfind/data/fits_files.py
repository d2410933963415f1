"""Cutouts as FITS: one cube of all of them with their manifest as a table, or one file each with its WCS."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skyloom.errors import DataError
from skyloom.run.files import write_whole

__all__ = ["write_cube", "write_cutout"]


def _header(about: Mapping[str, Any]) -> Any:
    from astropy.io import fits

    header = fits.Header()
    header["SURVEY"] = about["survey"]["name"]
    header["BANDS"] = ",".join(about["bands"])
    header["BUNIT"] = about["unit"]
    header["PIXSCALE"] = (float(about["survey"]["pixel_scale"]), "arcsec per pixel")
    header["SYNTH"] = (bool(about["synthetic"]), "whether the images are synthetic")
    return header


def write_cube(path: str | Path, images: np.ndarray, table: pd.DataFrame, about: Mapping[str, Any]) -> None:
    """Primary array [rows, bands, H, W] float32 (NaN where not usable), and the rows as the table MANIFEST.

    `lensfind.candidates.predict` reads it: SURVEY and BANDS stand in the header.
    """
    from astropy.io import fits
    from astropy.table import Table

    if len(images) != len(table):
        raise DataError(f"{len(images)} images, {len(table)} rows: each image has one row.")
    columns = {}
    for name in table.columns:
        values = table[name]
        if values.dtype.kind in "fiub":
            columns[name] = values.to_numpy()
        elif pd.api.types.is_integer_dtype(values.dtype):  # with missing values
            columns[name] = values.to_numpy(dtype=float, na_value=np.nan)
        else:
            columns[name] = values.fillna("").astype(str).to_numpy(dtype=str)
    rows = fits.BinTableHDU(Table(columns), name="MANIFEST")
    with write_whole(path) as temporary:
        cube = fits.PrimaryHDU(np.asarray(images, dtype=np.float32), _header(about))
        fits.HDUList([cube, rows]).writeto(temporary, overwrite=True)


def write_cutout(path: str | Path, image: np.ndarray, about: Mapping[str, Any], wcs: str = "") -> None:
    """One cutout [bands, H, W] with the cards of its WCS (one a line, as the manifest's column `wcs` holds them)."""
    from astropy.io import fits

    header = _header(about)
    for card in wcs.split("\n") if wcs else ():
        parsed = fits.Card.fromstring(card)
        if parsed.keyword not in ("WCSAXES", "SIMPLE", "COMMENT", "HISTORY", ""):
            header[parsed.keyword] = (parsed.value, parsed.comment)
    with write_whole(path) as temporary:
        fits.PrimaryHDU(np.asarray(image, dtype=np.float32), header).writeto(temporary, overwrite=True)
