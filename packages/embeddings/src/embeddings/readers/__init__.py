"""Embeddings from files as they are found: arrays with names, archives, torch files, tables.

`read(path)` recognises the format by what is there; each reader can be called by itself.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from embeddings.readers.arrays import read_archive, read_arrays
from embeddings.readers.cluster_maps import is_cluster_maps, views_of_halos
from embeddings.readers.hdf5 import read_hdf5
from embeddings.readers.safetensors_files import read_safetensors
from embeddings.readers.tables import read_table
from embeddings.readers.torch_files import read_torch
from embeddings.vectors.sets import EmbeddingSet
from skyloom.errors import DataError, MissingFile

__all__ = ["read", "read_archive", "read_arrays", "read_hdf5", "read_safetensors", "read_table", "read_torch"]


def read(
    path: str | Path, model: str | None = None, columns: Sequence[str] | None = None, id_columns: Sequence[str] | None = None
) -> EmbeddingSet:
    """The embeddings in `path`, a file or a folder of `.npy` files.

    Arguments:
        path: `.npy` (with its names beside it) or a folder of them, `.npz`, `.pt`, `.safetensors`, `.hdf5`, `.csv`, `.tsv`,
            `.fits`, `.parquet`. Names of cluster maps are taken apart (`embeddings.readers.cluster_maps`).
        model: What to call the model; by default the name of the file.
        columns: Of a table, the columns that make up the vector, in order.
        id_columns: Of a table, its identifiers, where their names are unusual.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFile(f"there is no file or folder {path}.")
    name = model or path.name.split(".")[0]
    tables = (".csv", ".tsv", ".csv.gz", ".fits", ".fit", ".fits.gz", ".parquet", ".pq")
    if path.name.endswith(tables):
        return read_table(path, name, columns, id_columns)
    more: dict[str, Any] = {"columns": columns, "id_columns": id_columns}
    for key, value in more.items():
        if value is not None:
            raise DataError(f"{path} is not a table, so {key} cannot be chosen in it.")
    found = _READERS[_kind(path)](path, name)
    return views_of_halos(found) if is_cluster_maps(found) else found


_READERS: dict[str, Callable[[Path, str], EmbeddingSet]] = {
    "folder": read_arrays, ".npy": read_arrays, ".npz": read_archive, ".pt": read_torch, ".pth": read_torch,
    ".safetensors": read_safetensors, ".h5": read_hdf5, ".hdf5": read_hdf5, ".hdf": read_hdf5,
}  # fmt: skip


def _kind(path: Path) -> str:
    kind = "folder" if path.is_dir() else path.suffix.lower()
    if kind not in _READERS:
        raise DataError(
            f"{path}: embeddings are read from a folder of .npy, .npy, .npz, .pt, .safetensors, .hdf5, .csv, .fits or .parquet."
        )
    return kind
