"""What a converter gives: a table of objects, and their images one at a time."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lensfind.data.bands import WAVELENGTHS
from skyloom.errors import DataError

__all__ = ["Found", "Source", "labels_from", "on_grid", "squared", "table_of"]


@dataclass
class Found:
    """One object's image [bands, size, size], NaN where it is not usable, and what only its file told."""

    image: np.ndarray
    variance: np.ndarray | None = None
    row: dict[str, Any] = field(default_factory=dict)


@dataclass
class Source:
    """`table`: a manifest without places; `about`: bands, size, unit, survey, synthetic, license; `read(k)`: object k."""

    table: pd.DataFrame
    about: dict[str, Any]
    read: Callable[[int], Found]
    notes: list[str] = field(default_factory=list)
    """Said to the user once: missing files, what must be added."""


def about(bands: list[str], size: int, unit: str, survey: str, pixel_scale: float, synthetic: bool, license: str,
          wavelengths: Mapping[str, float] | None = None) -> dict[str, Any]:  # fmt: skip
    """The `about` of a source; wavelengths in nm."""
    known = {**WAVELENGTHS, **(wavelengths or {})}
    stated = {band: {"wavelength": known[band]} if band in known else {} for band in bands}
    return {
        "bands": bands, "size": size, "unit": unit, "synthetic": synthetic, "license": license,
        "survey": {"name": survey, "pixel_scale": pixel_scale, "bands": stated},
    }  # fmt: skip


def squared(image: np.ndarray, size: int) -> np.ndarray:
    """[bands, size, size]: the middle of an image, NaN where it does not reach. The central pixel stays the central one."""
    out = np.full((image.shape[0], size, size), np.nan, dtype=np.float32)
    spans = []
    for side in image.shape[1:]:
        first = side // 2 - size // 2
        low, high = max(first, 0), min(first + size, side)
        spans.append((slice(low, high), slice(low - first, high - first)))
    (rows_in, rows_out), (columns_in, columns_out) = spans
    out[:, rows_out, columns_out] = image[:, rows_in, columns_in]
    return out


def on_grid(image: np.ndarray, scale: float, to_scale: float, size: int, power: int = 1) -> np.ndarray:
    """[bands, size, size] at `to_scale` arcsec per pixel of an image at `scale`, about the same centre.

    Cubic interpolation of surface brightness times the ratio of pixel areas, so that flux stays; coarser pixels are averaged
    over. NaN where the image has none. `power` 2 is for variances.
    """
    from scipy.ndimage import map_coordinates

    ratio = to_scale / scale
    finer = max(1, int(np.ceil(ratio)))
    steps = (np.arange(size * finer) - (size * finer - 1) / 2) * ratio / finer
    out = np.empty((len(image), size, size), dtype=np.float32)
    for k, plane in enumerate(image):
        at = np.meshgrid(steps + (plane.shape[0] - 1) / 2, steps + (plane.shape[1] - 1) / 2, indexing="ij")
        bad = ~np.isfinite(plane)
        values = map_coordinates(np.where(bad, 0, plane).astype(float), at, order=3, mode="nearest")
        touched = map_coordinates(bad.astype(float), at, order=1, mode="constant", cval=1.0)
        outside = [(a < -0.5) | (a > n - 0.5) for a, n in zip(at, plane.shape, strict=True)]
        values = np.where(outside[0] | outside[1] | (map_coordinates(bad.astype(float), at, order=0, mode="nearest") > 0)
                          | ((touched > 0.5) & ~(outside[0] | outside[1]) & bad.any()), np.nan, values)  # fmt: skip
        out[k] = values.reshape(size, finer, size, finer).mean(axis=(1, 3)) * ratio ** (2 * power)
    return out


def table_of(path: Path, **options: Any) -> pd.DataFrame:
    """A CSV, FITS or Parquet table as pandas reads it; lines of comment (#) are skipped."""
    if path.suffix in (".parquet", ".pq"):
        return pd.read_parquet(path)
    if path.suffix in (".fits", ".fit"):
        from astropy.table import Table

        return Table.read(path).to_pandas()
    return pd.read_csv(path, comment="#", skipinitialspace=True, **options)


def labels_from(input: Path, table: str | Path | None, ids: list[str], unlabeled: str = "survey") -> pd.DataFrame:
    """Rows for `ids` from a user's table with object_id and any columns of the manifest; without a table all are unlabeled."""
    blank = pd.DataFrame({"object_id": ids, "label": -1, "label_source": unlabeled, "label_confidence": 0.0})
    if table is None:
        return blank
    path = Path(table) if Path(table).is_file() else input / table
    if not path.is_file():
        raise DataError(f"there is no table {table}, neither here nor in {input}.")
    given = table_of(path, dtype={"object_id": str})
    if "object_id" not in given:
        raise DataError(f"{path} has no column object_id; it has {', '.join(map(str, given.columns))}.")
    absent = sorted(set(ids) - set(given["object_id"].astype(str)))
    if absent:
        raise DataError(f"{path} has no row for {len(absent)} objects, the first of them {', '.join(absent[:5])}.")
    rows = given.assign(object_id=given["object_id"].astype(str)).set_index("object_id").loc[ids].reset_index()
    return pd.concat([rows, blank[[name for name in blank if name not in rows]]], axis=1)


def numbered(path: Path) -> str:
    """The number at the end of a file's stem, as text: imageEUC_VIS-100002 has 100002."""
    match = re.search(r"-(\d+)$", path.name.split(".")[0])
    if match is None:
        raise DataError(f"{path}: no number ends its name.")
    return match.group(1)
