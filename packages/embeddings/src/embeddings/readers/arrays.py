"""NumPy arrays: a folder of `.npy` files with or without a prefix, one `.npy` beside its names, or an `.npz` archive."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.readers.keys import IDENTIFIERS, MASKS, REDSHIFTS, VECTORS, first
from embeddings.vectors.sets import EmbeddingSet
from skyloom.errors import DataError, MissingFile

__all__ = ["MODALITY_FILES", "beside_files", "from_arrays", "read_archive", "read_arrays"]


def read_arrays(path: Path, model: str) -> EmbeddingSet:
    """`embeddings.npy` with `targetids.npy`, `object_ids.npy` or `filenames.npy` beside it; vectors stay on disk.

    In `multimodal_train_embeddings.npy` the part before `embeddings` is a prefix that all files of the set share. Several
    `<modality>_embeddings.npy` beside identifiers without a prefix are the modalities of one model: the form in which
    `embeddings.extract` writes. A folder without such files but with an `.npz` archive is read from that.
    """
    folder = path if path.is_dir() else path.parent
    candidates = [path] if path.is_file() else sorted(folder.glob("*embeddings.npy"))
    if not candidates:
        archives = sorted(folder.glob("*.npz"))
        if len(archives) == 1:
            return read_archive(archives[0], model)
        raise MissingFile(f"{folder} holds neither *embeddings.npy nor one .npz archive.")
    plain = beside_files(folder, "")
    modalities = {c.name.removesuffix("_embeddings.npy"): c for c in candidates if c.name in MODALITY_FILES.values()}
    if path.is_dir() and modalities and plain.keys() & _IDENTIFIER_NAMES:
        return _modalities(plain, modalities, model, folder)
    if len(candidates) > 1:
        raise DataError(f"{folder} holds several sets ({', '.join(c.name for c in candidates)}): name one of the files.")
    prefix = candidates[0].name.removesuffix("embeddings.npy") if candidates[0].name.endswith("embeddings.npy") else ""
    vectors = _load(candidates[0])
    _agrees_with_summary(folder / f"{prefix}summary.json", vectors)
    return from_arrays({**beside_files(folder, prefix), "embeddings": vectors}, model, str(candidates[0]))


MODALITY_FILES = {m: f"{m}_embeddings.npy" for m in ("image", "spectrum", "fused")}
_IDENTIFIER_NAMES = {name for names in IDENTIFIERS.values() for name in names}


def beside_files(folder: Path, prefix: str) -> dict[str, np.ndarray]:
    """Identifiers, redshifts and masks: every known name that has a file."""
    known = [*_IDENTIFIER_NAMES, *REDSHIFTS, *MASKS.values()]
    files = {name: folder / f"{prefix}{name}.npy" for name in known}
    return {name: _load(file) for name, file in files.items() if file.is_file()}


def _modalities(plain: Mapping[str, np.ndarray], files: Mapping[str, Path], model: str, folder: Path) -> EmbeddingSet:
    one = from_arrays({**plain, "embeddings": _load(next(iter(files.values())))}, model, str(folder))
    given = {kind: plain[name].astype(bool) for kind, name in MASKS.items() if name in plain}
    return EmbeddingSet(model, one.ids, {m: _load(file) for m, file in files.items()}, given, one.z)


def _agrees_with_summary(path: Path, vectors: np.ndarray) -> None:
    """astroPT writes how many vectors of which size it made; another count means a torn or mixed-up file."""
    if not path.is_file():
        return
    said = json.loads(path.read_text(encoding="utf-8"))
    stated = (said.get("n_samples", len(vectors)), said.get("embedding_dim", vectors.shape[-1]))
    if stated != vectors.shape:
        raise DataError(f"{path} says that there are {stated[0]} vectors of {stated[1]} numbers; the file has {vectors.shape}.")


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
        vectors = _guessed(arrays, where)
    if not vectors:
        raise DataError(f"{where}: no vectors under a known name; it has {', '.join(sorted(arrays))}.")
    if not ids:
        expected = ", ".join(name for names in IDENTIFIERS.values() for name in names)
        raise DataError(f"{where}: no identifiers; one of {expected} must stand beside the vectors.")
    redshift = first(REDSHIFTS, arrays)
    masks = {kind: np.asarray(arrays[name], dtype=bool) for kind, name in MASKS.items() if name in arrays}
    z = None if redshift is None else np.asarray(arrays[redshift], dtype=np.float64)
    return EmbeddingSet(model, ids, vectors, masks, z)


def _vectors(array: Any) -> Any:
    """As it is where it is floating point already, on disk or in memory."""
    return array if getattr(array, "dtype", np.dtype(int)).kind == "f" else np.asarray(array, dtype=np.float32)


def _guessed(arrays: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The one matrix of floating point numbers under an unknown name, with a warning that says so."""
    matrices = [k for k, v in arrays.items() if getattr(v, "ndim", np.ndim(v)) == 2 and getattr(v, "dtype", None) is not None]
    matrices = [k for k in matrices if arrays[k].dtype.kind == "f"]
    if len(matrices) != 1:
        return {}
    warnings.warn(f"{where}: no vectors under a known name; the matrix {matrices[0]!r} is taken for them.", stacklevel=2)
    return {"embedding": arrays[matrices[0]]}


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
