"""NumPy arrays: a folder of `.npy` files with or without a prefix, one `.npy` beside its names, or an `.npz` archive."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.readers.keys import IDENTIFIERS, MASKS, REDSHIFTS, VECTORS, first
from embeddings.sets import EmbeddingSet
from skyloom.errors import DataError, MissingFile

__all__ = ["from_arrays", "read_archive", "read_arrays"]


def read_arrays(path: Path, model: str) -> EmbeddingSet:
    """`embeddings.npy` with `targetids.npy`, `object_ids.npy` or `filenames.npy` beside it; vectors stay on disk.

    In `multimodal_train_embeddings.npy` the part before `embeddings` is a prefix that all files of the set share. A folder
    without such a file but with an `.npz` archive is read from that.
    """
    folder = path if path.is_dir() else path.parent
    candidates = [path] if path.is_file() else sorted(folder.glob("*embeddings.npy"))
    if not candidates:
        archives = sorted(folder.glob("*.npz"))
        if len(archives) == 1:
            return read_archive(archives[0], model)
        raise MissingFile(f"{folder} holds neither *embeddings.npy nor one .npz archive.")
    if len(candidates) > 1:
        raise DataError(f"{folder} holds several sets ({', '.join(c.name for c in candidates)}): name one of the files.")
    prefix = candidates[0].name.removesuffix("embeddings.npy") if candidates[0].name.endswith("embeddings.npy") else ""
    known = [name for names in IDENTIFIERS.values() for name in names] + [*REDSHIFTS, *MASKS.values()]
    beside = {name: folder / f"{prefix}{name}.npy" for name in known if (folder / f"{prefix}{name}.npy").is_file()}
    arrays = {name: _load(file) for name, file in beside.items()}
    return from_arrays({**arrays, "embeddings": _load(candidates[0])}, model, str(candidates[0]))


def read_archive(path: Path, model: str) -> EmbeddingSet:
    """An `.npz` archive with the same names inside."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return from_arrays({name: archive[name] for name in archive.files}, model, str(path))
    except ValueError as error:
        if not {"pickle", "objects"} & set(str(error).lower().replace(".", " ").split()):
            raise
        raise DataError(_pickled(path)) from error


def from_arrays(arrays: Mapping[str, Any], model: str, where: str) -> EmbeddingSet:
    """An EmbeddingSet from arrays under any of the known names."""
    ids = {kind: arrays[key] for kind, names in IDENTIFIERS.items() if (key := first(names, arrays)) is not None}
    vectors = {kind: _vectors(arrays[key]) for kind, names in VECTORS.items() if (key := first(names, arrays)) is not None}
    if not vectors:
        raise DataError(f"{where}: no vectors under a known name; it has {', '.join(sorted(arrays))}.")
    if not ids:
        expected = ", ".join(name for names in IDENTIFIERS.values() for name in names)
        raise DataError(f"{where}: no identifiers; one of {expected} must stand beside the vectors.")
    redshift = first(REDSHIFTS, arrays)
    masks = {kind: np.asarray(arrays[name], dtype=bool) for kind, name in MASKS.items() if name in arrays}
    z = None if redshift is None else np.asarray(arrays[redshift], dtype=np.float64)
    return EmbeddingSet(model, ids, vectors, masks, z)


def _vectors(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) and array.dtype.kind == "f" else np.asarray(array, dtype=np.float32)


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if not {"pickle", "objects"} & set(str(error).lower().replace(".", " ").split()):
            raise
        raise DataError(_pickled(path)) from error


def _pickled(path: Path) -> str:
    return (
        f"{path} holds Python objects, which can run code when they are read, and is refused. "
        "Write names as a text array (np.array(names, dtype=str)) and identifiers as int64."
    )
