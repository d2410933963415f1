"""Cutouts in one file each, named by a manifest: FITS, npy, npz, or a greyscale image of 16 bits and more."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lensfind.data.manifest import constant, known, read_manifest
from skyloom.errors import DataError, MissingFile

__all__ = ["Files", "read_image"]


def read_image(path: str | Path, bands: int | None = None) -> np.ndarray:
    """[bands, H, W] float32 from a file; 8-bit pictures are refused, whatever their ending."""
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"there is no file {path}.")
    ending = path.suffix.lower()
    try:
        if ending == ".npy":
            array = np.load(path, allow_pickle=False)
        elif ending == ".npz":
            with np.load(path, allow_pickle=False) as file:
                if "image" not in file:
                    raise DataError(f"{path}: there is no array 'image', only {', '.join(file.files)}.")
                array = file["image"]
        elif ending in (".fits", ".fit", ".fz", ".gz"):
            array = _fits_image(path)
        elif ending in (".png", ".tif", ".tiff"):
            array = _picture(path)
        else:
            raise DataError(f"{path}: cutouts are FITS, npy, npz, or 16-bit PNG or TIFF.")
    except (OSError, ValueError, EOFError, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {error}.") from error
    if array.dtype == np.uint8:
        raise DataError(f"{path} is 8-bit: 256 levels hold neither faint arcs nor fluxes. Give float32 or 16-bit data.")
    array = np.asarray(array, dtype=np.float32)
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3 and bands is not None and array.shape[0] != bands and array.shape[-1] == bands:
        array = np.moveaxis(array, -1, 0)
    if array.ndim != 3 or (bands is not None and array.shape[0] != bands):
        raise DataError(f"{path}: the image is {list(array.shape)}, not [{bands or 'bands'}, H, W].")
    return np.ascontiguousarray(array)


def _fits_image(path: Path) -> np.ndarray:
    """The first cube or image, or all two-dimensional HDUs of one shape, a band each (variance and weight maps left out)."""
    from astropy.io import fits

    with fits.open(path, memmap=False) as file:
        found = [hdu for hdu in file if hdu.is_image and hdu.data is not None and hdu.data.ndim >= 2]
        if not found:
            raise DataError(f"{path}: no HDU holds an image.")
        first = found[0].data
        if first.ndim > 2:
            return np.asarray(first, dtype=np.float32)
        skip = ("VAR", "ERR", "WHT", "IVAR", "MASK", "DQ", "WEIGHT")
        planes = [hdu.data for hdu in found if not hdu.name.upper().startswith(skip) and hdu.data.shape == first.shape]
        return np.stack([np.asarray(plane, dtype=np.float32) for plane in planes])


def _picture(path: Path) -> np.ndarray:
    """A greyscale picture with its own levels; Pillow must not convert it, or a 16-bit ramp ends at 255."""
    from PIL import Image

    with Image.open(path) as picture:
        if picture.mode not in ("I;16", "I;16B", "I;16L", "I", "F"):
            raise DataError(
                f"{path} is a picture of 8 bits ({picture.mode}): 256 levels hold neither faint arcs nor fluxes, and the "
                "stretch that made it is unknown. Give the float data that it was made from."
            )
        return np.asarray(picture)


class Files:
    """A user's manifest as a store: `table`, `about`, `shape`, `read(rows)`."""

    def __init__(self, manifest: str | Path, bands: Sequence[str] | None = None, survey: Any = None):
        self.manifest, self.directory = Path(manifest), Path(manifest).parent
        self.table = read_manifest(manifest, check_files=True)
        stated = constant(self.table, "bands")
        names = stated.split(",") if stated else list(bands or ())
        if not names:
            raise DataError(
                f"{manifest} does not say which bands its cutouts have: fill the column bands ('g,r,i') or set data.bands."
            )
        first = read_image(self.directory / self.table["filepath"].iloc[0], len(names))
        self.shape = first.shape
        if self.shape[1] != self.shape[2]:
            raise DataError(f"{self.table['filepath'].iloc[0]}: cutouts must be square, not {self.shape[1]} x {self.shape[2]}.")
        scale = constant(self.table, "pixel_scale")
        stated_survey = survey.to_json() if hasattr(survey, "to_json") else survey
        name = constant(self.table, "survey") or "unknown"
        if stated_survey is None or stated_survey["name"] != name:
            stated_survey = {"name": name, "pixel_scale": float(scale) if scale is not None else float("nan"), "bands": {}}
        if scale is None and not known(self.table["pixel_scale"]).any():
            raise DataError(f"{manifest} has no pixel_scale: fill the column, in arcsec.")
        self.about = {
            "bands": names, "size": self.shape[1], "unit": "as given", "survey": stated_survey, "masked": True,
            "synthetic": bool(self.table["label_source"].str.startswith("sim:").all()),
        }  # fmt: skip
        if not known(self.table["checksum"]).all():
            self.table["checksum"] = [
                zlib.crc32(image.data) if image is not None else 0 for image in map(self._try, range(len(self)))
            ]

    def __len__(self) -> int:
        return len(self.table)

    def record(self, row: int) -> np.ndarray:
        path = self.directory / self.table["filepath"].iloc[row]
        image = read_image(path, self.shape[0])
        if image.shape != self.shape:
            raise DataError(f"{path}: the image is {list(image.shape)}, those before it {list(self.shape)}.")
        return image

    def _try(self, row: int) -> np.ndarray | None:
        try:
            return self.record(row)
        except DataError:
            return None

    def read(self, rows: np.ndarray, check: bool = True) -> np.ndarray:
        return np.stack([self.record(int(row)) for row in rows])

    def corrupt(self) -> np.ndarray:
        """Rows that cannot be read."""
        return np.array([row for row in range(len(self)) if self._try(row) is None], dtype=int)
