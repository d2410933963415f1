"""Images with their identifiers, a few at a time: from a folder, from HDF5, from shards."""

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from embeddings.objects.identifiers import as_identifiers
from embeddings.readers.keys import IDENTIFIERS, first
from skyloom.errors import DataError, MissingFile

__all__ = ["ImageSource", "image_source"]

PICTURES = (".png", ".jpg", ".jpeg", ".npy")
IMAGES = ("images", "image", "cutouts", "flux")


class ImageSource(Protocol):
    """N images of one size."""

    ids: np.ndarray
    kind: str
    """What the identifiers are: `object_id`, `TARGETID` or `name`."""
    bands: int
    size: int

    @property
    def fingerprint(self) -> str: ...
    def __len__(self) -> int: ...
    def read(self, rows: "Sequence[int] | np.ndarray") -> np.ndarray:
        """[B, bands, size, size] float32."""
        ...


def image_source(path: Path) -> "ImageSource":
    """Recognised by what is there."""
    if not path.exists():
        raise MissingFile(f"there is no file or folder {path}.")
    if path.is_file() and path.suffix in (".h5", ".hdf5", ".hdf"):
        return _Hdf5(path)
    if path.is_file() and path.suffix == ".tar":
        return _Shards([path])
    if path.is_dir():
        shards = sorted(path.glob("*.tar"))
        return _Shards(shards) if shards else _Folder(path)
    raise DataError(f"{path}: images are read from a folder of {', '.join(PICTURES)}, from HDF5, or from .tar shards.")


class _Named:
    """Sources whose images are files with names."""

    names: list[str]

    def _begin(self) -> None:
        if not self.names:
            raise DataError(f"no images ({', '.join(PICTURES)}) were found.")
        stems = [Path(name).name.rsplit(".", 1)[0] for name in self.names]
        if len(set(stems)) < len(stems):
            twice = next(stem for stem in stems if stems.count(stem) > 1)
            raise DataError(f"two images are called {twice!r}: names are identifiers, and must differ.")
        self.ids = as_identifiers(stems, "names of images")
        self.kind = "object_id" if self.ids.dtype.kind == "i" else "name"
        one = self._image(0)
        self.bands, self.size = one.shape[0], one.shape[1]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()[:16]

    def read(self, rows: "Sequence[int] | np.ndarray") -> np.ndarray:
        images = [self._image(int(row)) for row in rows]
        odd = next((k for k, image in enumerate(images) if image.shape != (self.bands, self.size, self.size)), None)
        if odd is not None:
            raise DataError(
                f"{self.names[rows[odd]]} has shape {images[odd].shape}, the first image ({self.bands}, {self.size}, ...)."
            )
        return np.stack(images)

    def _image(self, row: int) -> np.ndarray:
        raise NotImplementedError


class _Folder(_Named):
    def __init__(self, path: Path):
        self.path = path
        self.names = sorted(p.name for p in path.iterdir() if p.suffix.lower() in PICTURES)
        self._begin()

    def _image(self, row: int) -> np.ndarray:
        path = self.path / self.names[row]
        return _decoded(path.name, path.read_bytes())


class _Shards(_Named):
    """Tar files as webdataset writes them: `<key>.png`, `<key>.npy`; other members belong to the key and are passed over."""

    def __init__(self, paths: list[Path]):
        self.members = []
        for path in paths:
            with tarfile.open(path) as tar:
                wanted = [m for m in tar if m.isfile() and Path(m.name).suffix.lower() in PICTURES]
                self.members += [(path, m.name, m.offset_data, m.size) for m in wanted]
        self.names = [name for _, name, _, _ in self.members]
        self._begin()

    def _image(self, row: int) -> np.ndarray:
        path, name, offset, size = self.members[row]
        with open(path, "rb") as file:
            file.seek(offset)
            return _decoded(name, file.read(size))


class _Hdf5:
    """A data set `images` [N, bands, rows, columns] (or [N, rows, columns]) with identifiers beside it."""

    def __init__(self, path: Path):
        import h5py

        file = h5py.File(path, "r")
        key = first(IMAGES, file)
        if key is None:
            raise DataError(f"{path}: no data set called {', '.join(IMAGES)}; it has {', '.join(file)}.")
        self.path, self.images = path, file[key]
        if self.images.ndim not in (3, 4):
            raise DataError(f"{path}, {key}: images are [N, bands, rows, columns], not {self.images.shape}.")
        found = next(((kind, n) for kind, names in IDENTIFIERS.items() if (n := first((kind, *names), file))), None)
        if found is None:
            raise DataError(f"{path}: no identifiers stand beside {key}.")
        self.kind, name = found
        stored: Any = file[name]
        self.ids = as_identifiers(stored.asstr()[:] if h5py.check_string_dtype(stored.dtype) else stored[:], f"{path}, {name}")
        self.bands = self.images.shape[1] if self.images.ndim == 4 else 1
        self.size = int(self.images.shape[-1])

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.path.name}|{self.images.shape}".encode() + self.ids.tobytes()).hexdigest()[:16]

    def read(self, rows: "Sequence[int] | np.ndarray") -> np.ndarray:
        found = np.asarray(self.images[rows[0] : rows[-1] + 1], dtype=np.float32)[np.asarray(rows) - rows[0]]
        return found if found.ndim == 4 else found[:, None]


def _decoded(name: str, content: bytes) -> np.ndarray:
    """[bands, rows, columns] float32; pictures of 8 bits are scaled to 0 ... 1."""
    if name.endswith(".npy"):
        array = np.load(io.BytesIO(content), allow_pickle=False).astype(np.float32)
        return array if array.ndim == 3 else array[None]
    from PIL import Image

    picture = np.asarray(Image.open(io.BytesIO(content)))
    scaled = picture.astype(np.float32) / (255.0 if picture.dtype == np.uint8 else 1.0)
    return scaled[None] if scaled.ndim == 2 else np.moveaxis(scaled[..., :3], -1, 0)
