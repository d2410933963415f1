"""A data set on disk: a manifest, and cutouts in HDF5 files or WebDataset shards, float32, all bands.

    <directory>/manifest.parquet        one row per cutout: where it is, its checksum, its label, all that is known
    <directory>/dataset.json            what all cutouts share: survey, bands, size, unit, whether synthetic
    <directory>/cutouts-00000.h5        image [rows, bands, H, W] (and variance), one after the other, not compressed
    <directory>/cutouts-00000.tar       or: 000000.image.npy (000000.variance.npy) 000000.json, as the webdataset package reads

Both are read through the page cache without a copy of more than the rows asked for. A pixel that is not usable is NaN.
"""

import io
import json
import mmap
import os
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd

from lensfind.data.manifest import SCHEMA_VERSION, completed, read_manifest, write_manifest
from skyloom.errors import DataError, MissingFile
from skyloom.run.files import read_json, write_json, write_whole

__all__ = ["MANIFEST", "Store", "checksum", "write_part", "write_store"]

MANIFEST, ABOUT = "manifest.parquet", "dataset.json"
Storage = Literal["hdf5", "webdataset"]
ENDINGS = {"hdf5": ".h5", "webdataset": ".tar"}
_BLOCK = 512  # bytes: unit of a tar file


def checksum(image: np.ndarray) -> int:
    """CRC-32 of the bytes of an image."""
    return zlib.crc32(np.ascontiguousarray(image).data)


def _float32(images: Any, what: str) -> np.ndarray:
    array = np.asarray(images)
    if array.dtype.kind in "ui" and array.dtype.itemsize == 1:
        raise DataError(f"{what} are 8-bit: 256 levels hold neither faint arcs nor fluxes. Store float32.")
    if array.ndim != 4:
        raise DataError(f"{what} must be [rows, bands, H, W], not {list(array.shape)}.")
    return np.ascontiguousarray(array, dtype="<f4")


def write_part(path: Path, images: Any, table: pd.DataFrame, about: Mapping[str, Any], variance: Any = None) -> pd.DataFrame:
    """Write rows of cutouts to one file, whole or not at all; gives the rows with `filepath`, `member`, `checksum`."""
    images = _float32(images, "images")
    variance = None if variance is None else _float32(variance, "variance maps")
    if len(images) != len(table) or (variance is not None and variance.shape != images.shape):
        raise DataError(f"{len(images)} images, {len(table)} rows: each image has one row, and its variance the same shape.")
    table = table.reset_index(drop=True).copy()
    table["filepath"] = path.name
    table["checksum"] = [checksum(image) for image in images]
    if variance is not None:
        table["variance_map_available"], table["variance_map_path"] = True, path.name
    with write_whole(path) as temporary:
        write = _write_hdf5 if path.suffix == ".h5" else _write_tar
        table["member"] = write(temporary, images, variance, table, about)
    return completed(table)


def _write_hdf5(path: Path, images: np.ndarray, variance: Any, table: pd.DataFrame, about: Mapping[str, Any]) -> list[int]:
    with h5py.File(path, "w") as file:
        for name, value in about.items():
            file.attrs[name] = value if isinstance(value, (str, int, float, bool)) else json.dumps(value)
        file.create_dataset("image", data=images)
        if variance is not None:
            file.create_dataset("variance", data=variance)
        file.create_dataset("object_id", data=table["object_id"].astype(str).to_list(), dtype=h5py.string_dtype())
        file.create_dataset("label", data=table["label"].to_numpy(dtype="i1"))
    return list(range(len(images)))


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _write_tar(path: Path, images: np.ndarray, variance: Any, table: pd.DataFrame, about: Mapping[str, Any]) -> list[int]:
    """Members in the naming of WebDataset; dates and owners are left out, so that equal data are equal bytes."""
    offsets = []
    rows = json.loads(table.to_json(orient="records", double_precision=15))
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:

        def add(name: str, data: bytes) -> int:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            offset = tar.offset + _BLOCK
            tar.addfile(member, io.BytesIO(data))
            return offset

        for k, row in enumerate(rows):
            offsets.append(add(f"{k:06d}.image.npy", _npy(images[k])))
            if variance is not None:
                add(f"{k:06d}.variance.npy", _npy(variance[k]))
            add(f"{k:06d}.json", json.dumps({**row, "bands": ",".join(about.get("bands", []))}, sort_keys=True).encode())
    return offsets


def write_store(
    directory: str | Path, images: Any, table: pd.DataFrame, about: Mapping[str, Any], variance: Any = None,
    storage: Storage = "hdf5", rows_per_part: int = 1000,
) -> "Store":  # fmt: skip
    """Write a whole data set that fits in memory; `lensfind.prepare` writes larger ones part by part."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, start in enumerate(range(0, len(table), rows_per_part)):
        rows = slice(start, start + rows_per_part)
        path = directory / f"cutouts-{number:05d}{ENDINGS[storage]}"
        part_variance = None if variance is None else variance[rows]
        parts.append(write_part(path, images[rows], table.iloc[rows], about, part_variance))
    return finish_store(directory, pd.concat(parts, ignore_index=True), {**about, "storage": storage})


def finish_store(directory: Path, table: pd.DataFrame, about: Mapping[str, Any]) -> "Store":
    """Write the manifest and, last, dataset.json: a directory that has it is complete."""
    for key in ("bands", "size", "unit", "synthetic", "survey"):
        if key not in about:
            raise DataError(f"dataset.json must say {key!r}.")
    write_manifest(directory / MANIFEST, table)
    digest = zlib.crc32(np.asarray(table["checksum"], dtype="<u4").data)
    write_json(directory / ABOUT, {**about, "rows": len(table), "schema_version": SCHEMA_VERSION, "checksum": digest})
    return Store(directory)


class Store:
    """A data set on disk, opened: `table` is its manifest, `about` its dataset.json, `read(rows)` its images."""

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        if not (self.directory / ABOUT).is_file():
            raise MissingFile(f"there is no data set in {self.directory}: {ABOUT} is missing (an unfinished one has none yet).")
        self.about: dict[str, Any] = read_json(self.directory / ABOUT)
        self.table = read_manifest(self.directory / MANIFEST, check_files=True)
        self.shape = (len(self.about["bands"]), int(self.about["size"]), int(self.about["size"]))
        self._maps: dict[str, tuple[int, Any]] = {}
        self._files, self._part = np.unique(self.table["filepath"].to_numpy(dtype=str), return_inverse=True)
        self._member = self.table["member"].to_numpy(dtype=np.int64)
        self._checksum = self.table["checksum"].to_numpy(dtype=np.int64)

    def __len__(self) -> int:
        return len(self.table)

    def __getstate__(self) -> dict[str, Any]:
        """Open files stay behind when a worker process gets a copy."""
        return {**self.__dict__, "_maps": {}}

    def parts(self) -> list[np.ndarray]:
        """Rows of each file, in the order in which they lie in it."""
        found = [np.flatnonzero(self._part == k) for k in range(len(self._files))]
        return [rows[np.argsort(self._member[rows], kind="stable")] for rows in found]

    def _map(self, name: str, dataset: str) -> Any:
        """The file in memory: HDF5 as one array [rows, bands, H, W], tar as bytes."""
        key = f"{name}/{dataset}"
        process, opened = self._maps.get(key, (0, None))
        if process == os.getpid():
            return opened
        path = self.directory / name
        if path.suffix == ".tar":
            with open(path, "rb") as file:
                opened = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        else:
            opened = _mapped_hdf5(path, dataset)
        self._maps[key] = (os.getpid(), opened)
        return opened

    def _record(self, opened: Any, member: int) -> np.ndarray:
        if not isinstance(opened, mmap.mmap):
            return opened[member]
        return _parse_npy(opened, member, self.shape)

    def read(self, rows: np.ndarray, check: bool = True) -> np.ndarray:
        """Images [rows, bands, H, W]; one that differs from its checksum is an error that names it."""
        rows = np.asarray(rows)
        images = np.empty((len(rows), *self.shape), dtype=np.float32)
        for place, row in enumerate(rows):
            images[place] = self.record(int(row), check)
        return images

    def record(self, row: int, check: bool = True) -> np.ndarray:
        """One image [bands, H, W], as it lies in the page cache."""
        name = str(self._files[self._part[row]])
        try:
            image = self._record(self._map(name, "image"), int(self._member[row]))
            if check and checksum(image) != self._checksum[row]:
                raise ValueError("its bytes differ from its checksum")
        except (ValueError, OSError, KeyError, IndexError, EOFError) as error:
            named = f"row {row} of the manifest ({self.table['object_id'].iloc[row]!r})"
            raise DataError(f"{self.directory / name}: {named} is corrupt: {error}.") from error
        return image

    def variance(self, rows: np.ndarray) -> np.ndarray | None:
        """Variance maps [rows, bands, H, W], if they are stored."""
        if not self.table["variance_map_available"].all():
            return None
        maps = np.empty((len(rows), *self.shape), dtype=np.float32)
        for place, row in enumerate(np.asarray(rows)):
            name, member = str(self._files[self._part[row]]), int(self._member[row])
            if name.endswith(".tar"):  # the variance is the next member: its header comes after the padded image
                image_bytes = _npy_length(self._map(name, "image"), member, self.shape)
                member += -(-image_bytes // _BLOCK) * _BLOCK + _BLOCK
            maps[place] = self._record(self._map(name, "variance"), member)
        return maps

    def corrupt(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Rows whose bytes differ from their checksum."""
        bad = []
        for row in np.arange(len(self)) if rows is None else rows:
            try:
                self.record(int(row))
            except DataError:
                bad.append(int(row))
        return np.array(bad, dtype=int)


def _mapped_hdf5(path: Path, dataset: str) -> Any:
    """A data set that lies in one piece as a memory map, another one as h5py reads it."""
    file = h5py.File(path, "r")
    values = file[dataset]
    offset = values.id.get_offset()
    if offset is None or values.chunks is not None:
        return values
    shape, kind = values.shape, values.dtype
    file.close()
    return np.memmap(path, dtype=kind, mode="r", offset=offset, shape=shape)


def _npy_header(data: mmap.mmap, offset: int) -> tuple[dict[str, Any], int]:
    """The header of the npy record at `offset`, and where its numbers begin."""
    if data[offset : offset + 6] != b"\x93NUMPY":
        raise ValueError("there is no npy record where the manifest says")
    head = io.BytesIO(data[offset : offset + 256])
    version = np.lib.format.read_magic(head)
    if version != (1, 0):
        raise ValueError(f"npy version {version} is not known")
    shape, fortran, kind = np.lib.format.read_array_header_1_0(head)
    return {"shape": shape, "fortran": fortran, "kind": kind}, offset + head.tell()


def _npy_length(data: mmap.mmap, offset: int, shape: tuple[int, ...]) -> int:
    _, begin = _npy_header(data, offset)
    return begin - offset + 4 * int(np.prod(shape))


def _parse_npy(data: mmap.mmap, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    """[bands, H, W] without a copy; a header as NumPy writes it for such an image is recognised by its bytes alone."""
    expected = _expected_header(shape)
    if data[offset : offset + len(expected)] == expected:
        begin = offset + len(expected)
    else:
        header, begin = _npy_header(data, offset)
        if header["shape"] != shape or header["fortran"] or header["kind"] != np.dtype("<f4"):
            raise ValueError(f"it is {header['kind']} {header['shape']}, the data set float32 {shape}")
    return np.frombuffer(data, dtype="<f4", count=int(np.prod(shape)), offset=begin).reshape(shape)


def _expected_header(shape: tuple[int, ...], known: dict[tuple[int, ...], bytes] = {}) -> bytes:  # noqa: B006  a cache
    if shape not in known:
        known[shape] = _npy(np.zeros(shape, dtype="<f4"))[: -4 * int(np.prod(shape))]
    return known[shape]
