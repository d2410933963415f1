"""Cutouts to score, wherever they lie, behind one reader: rows, where they are on the sky, and images on demand.

| input | what it is |
|---|---|
| a directory with dataset.json | a data set of `make prepare` |
| manifest.csv / .parquet with `filepath` | cutouts in one file each, listed |
| another directory | its FITS, npy and npz files, one cutout each |
| .h5, .npz, a FITS cube | `images` [N, bands, size, size], maybe `ids`, `ra`, `dec` (degrees); attributes `survey`, `bands` |
| a .csv / .parquet of `ra`, `dec` with `tiles` | positions, cut out of the tiles of each band as they are scored |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from skyloom.errors import DataError

__all__ = ["Source", "open_source", "read_cutouts"]

Read = Callable[[np.ndarray], np.ndarray]
_KNOWN = ("ra", "dec", "seeing", "psf_fwhm", "depth")  # of a manifest: where it is, and what a conditioned model asks for
_ONE_EACH = (".fits", ".fit", ".npy", ".npz")


@dataclass
class Source:
    """`read(rows)` gives images [rows, bands, size, size] float32, NaN where a pixel is unusable; it may raise `DataError`."""

    path: Path
    shape: tuple[int, ...]  # rows, bands, rows, columns
    ids: np.ndarray
    survey: str | None
    bands: list[str] | None
    read: Read
    more: dict[str, np.ndarray] = field(default_factory=dict)  # ra, dec, and what else is known of the rows

    def __len__(self) -> int:
        return self.shape[0]


def open_source(
    path: str | Path,
    bands: Sequence[str],
    size: int,
    tiles: Mapping[str, Sequence[str]] | None = None,
    survey: str | None = None,
) -> Source:
    """Open `path`; `bands` and `size` are those of the model, for inputs that do not say."""
    path = Path(path)
    if tiles is not None:
        return _from_tiles(path, tiles, bands, size, survey)
    if path.is_dir():
        return _from_store(path) if (path / "dataset.json").is_file() else _from_folder(path, bands)
    if path.suffix.lower() in (".csv", ".parquet"):
        return _from_store(path.parent) if (path.parent / "dataset.json").is_file() else _from_manifest(path, bands)
    return read_cutouts(path)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    value = np.asarray(value).item() if np.ndim(value) == 0 else value
    return value.decode() if isinstance(value, bytes) else str(value)


def _names(value: Any) -> list[str] | None:
    if value is None:
        return None
    if np.ndim(value) == 0:
        return [name.strip() for name in str(_text(value)).strip("[]").replace('"', "").split(",")]
    return [str(_text(name)) for name in value]


# ---------------------------------------------------------------- one file of many cutouts


def read_cutouts(path: Path) -> Source:
    """A file of cutouts; its ending chooses the reader."""
    readers = {".h5": _hdf5, ".hdf5": _hdf5, ".npz": _npz, ".fits": _fits, ".fit": _fits}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: cutouts are read from {', '.join(readers)} files, manifests (.csv, .parquet) and directories only."
        )
    found = reader(path)
    if len(found.shape) != 4:
        raise DataError(f"{path}: images must be [N, bands, rows, columns], found {list(found.shape)}.")
    for name, values in {"ids": found.ids, **found.more}.items():
        if len(values) != len(found):
            raise DataError(f"{path}: {len(values)} {name} for {len(found)} images.")
    return found


def _hdf5(path: Path) -> Source:
    import h5py

    with h5py.File(path) as file:
        name = next((n for n in ("images", "image") if n in file), None)
        if name is None:
            raise DataError(f"{path}: no data set `images`; it holds {sorted(file)}.")
        shape = file[name].shape
        ids = next((file[n][...] for n in ("ids", "object_id") if n in file), np.arange(shape[0]))
        ids = np.array([_text(i) for i in ids]) if ids.dtype.kind in "OS" else ids
        more = {n: np.asarray(file[n][...], dtype=float) for n in ("ra", "dec") if n in file}
        attributes = {**file.attrs, **file[name].attrs}

    def read(rows: np.ndarray) -> np.ndarray:
        order = np.argsort(rows)  # HDF5 reads rows in rising order
        with h5py.File(path) as file:
            return np.asarray(file[name][rows[order]][np.argsort(order)], dtype=np.float32)

    return Source(path, shape, ids, _text(attributes.get("survey")), _names(attributes.get("bands")), read, more)


def _in_memory(path: Path, images: np.ndarray, ids: np.ndarray, survey: Any, bands: Any, more: dict[str, np.ndarray]) -> Source:
    return Source(
        path, images.shape, ids, _text(survey), _names(bands), lambda rows: np.asarray(images[rows], dtype=np.float32), more
    )


def _npz(path: Path) -> Source:
    with np.load(path, allow_pickle=False) as file:
        if "images" not in file:
            raise DataError(f"{path}: no array `images`; it holds {sorted(file)}.")
        parts = {name: file[name] for name in ("images", "ids", "survey", "bands", "ra", "dec") if name in file}
    images = parts["images"]
    ids = parts.get("ids", np.arange(len(images) if images.ndim else 0))
    return _in_memory(
        path, images, ids, parts.get("survey"), parts.get("bands"), {n: parts[n] for n in ("ra", "dec") if n in parts}
    )


def _fits(path: Path) -> Source:
    from astropy.io import fits

    with fits.open(path, memmap=False) as file:
        header, data = file[0].header, file[0].data
    if data is None:
        raise DataError(f"{path}: the primary HDU holds no image.")
    images = np.ascontiguousarray(data, dtype=np.float32)
    return _in_memory(path, images, np.arange(len(images)), header.get("SURVEY"), header.get("BANDS"), {})


# ---------------------------------------------------------------- manifests, folders, tiles


def _from_store(directory: Path) -> Source:
    from lensfind.data.storage import Store

    return _listed(directory, Store(directory))


def _from_manifest(path: Path, bands: Sequence[str]) -> Source:
    from lensfind.data.files import Files

    return _listed(path, Files(path, bands))


def _listed(path: Path, store: Any) -> Source:
    table = store.table
    more = {name: table[name].to_numpy(dtype=float) for name in _KNOWN if name in table}
    survey = store.about["survey"]
    name = survey["name"] if isinstance(survey, Mapping) else str(survey)
    shape = (len(store), *store.shape)
    return Source(path, shape, table["object_id"].to_numpy(dtype=str), name, list(store.about["bands"]), store.read, more)


def _from_folder(path: Path, bands: Sequence[str]) -> Source:
    """Every cutout file of a folder, in the order of their names; the survey is not known of them."""
    from lensfind.data.files import read_image

    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _ONE_EACH)
    if not files:
        raise DataError(f"{path} holds no cutouts ({', '.join(_ONE_EACH)}) and no dataset.json.")
    first = read_image(files[0], len(bands))

    def read(rows: np.ndarray) -> np.ndarray:
        images = [read_image(files[row], len(bands)) for row in rows]
        for row, image in zip(rows, images, strict=True):
            if image.shape != first.shape:
                raise DataError(f"{files[row]}: the image is {list(image.shape)}, those before it {list(first.shape)}.")
        return np.stack(images)

    return Source(path, (len(files), *first.shape), np.array([file.name for file in files]), None, None, read)


def _from_tiles(path: Path, tiles: Mapping[str, Sequence[str]], bands: Sequence[str], size: int, survey: str | None) -> Source:
    """Positions of a table, each cut out when it is its turn."""
    import pandas as pd

    from lensfind.data.tiles import cut_out

    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    missing = [name for name in ("ra", "dec") if name not in table]
    if missing or any(band not in tiles for band in bands):
        lacking = ", ".join([*missing, *(f"tiles of {band}" for band in bands if band not in tiles)])
        raise DataError(f"{path}: positions and the tiles of every band are needed to cut out; missing: {lacking}.")
    ra, dec = table["ra"].to_numpy(float), table["dec"].to_numpy(float)
    name = next((column for column in ("object_id", "id", "name") if column in table), None)
    ids = table[name].to_numpy() if name else np.arange(len(table))

    def read(rows: np.ndarray) -> np.ndarray:
        found = cut_out({band: tiles[band] for band in bands}, ra[rows], dec[rows], size, least_coverage=0.0)
        blank = np.full((len(bands), size, size), np.nan, dtype=np.float32)
        return np.stack([found[k].image if k in found else blank for k in range(len(rows))])

    survey = survey or _survey_of(tiles[bands[0]])
    return Source(path, (len(table), len(bands), size, size), ids, survey, list(bands), read, {"ra": ra, "dec": dec})


def _survey_of(tiles: Sequence[str]) -> str | None:
    """What the first tile's header says."""
    from astropy.io import fits

    if not tiles or not Path(tiles[0]).is_file():
        return None  # the cutting says what is missing
    with fits.open(tiles[0]) as file:
        named = [hdu.header["SURVEY"] for hdu in file if "SURVEY" in hdu.header]
    return str(named[0]) if named else None
