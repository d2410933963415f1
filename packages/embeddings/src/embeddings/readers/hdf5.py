"""HDF5 files: datasets under the known names, at the root or in one group. Vectors stay on disk."""

from pathlib import Path
from typing import Any

import numpy as np

from embeddings.readers.arrays import from_arrays
from embeddings.readers.keys import IDENTIFIERS, MASKS, REDSHIFTS, VECTORS
from embeddings.vectors.sets import EmbeddingSet
from skyloom.errors import DataError

__all__ = ["Stored", "read_hdf5"]

_VECTORS = {name for names in VECTORS.values() for name in names}
_KNOWN = _VECTORS | {name for names in IDENTIFIERS.values() for name in names} | {*REDSHIFTS, *MASKS.values()}


class Stored:
    """A dataset that is read a few rows at a time, in any order, with repeats: HDF5 itself wants them rising and once."""

    def __init__(self, dataset: Any):
        self._dataset = dataset
        self.shape, self.dtype, self.ndim = dataset.shape, dataset.dtype, len(dataset.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice | int | np.integer):
            return self._dataset[rows]
        wanted = np.asarray(rows)
        if wanted.dtype == bool:
            wanted = np.flatnonzero(wanted)
        once, place = np.unique(wanted, return_inverse=True)
        if not len(once):
            return np.empty((0, *self.shape[1:]), dtype=self.dtype)
        if once[-1] - once[0] < 4 * len(once):  # nearly all of a stretch: one read and a selection beat many small reads
            return self._dataset[int(once[0]) : int(once[-1]) + 1][once - once[0]][place]
        return self._dataset[once][place]


def read_hdf5(path: Path, model: str) -> EmbeddingSet:
    """Contiguous datasets become memory maps; chunked or compressed ones are read as rows are asked for."""
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path} cannot be read as HDF5: {error}") from None
    group = _group_of_vectors(file, path)
    names = [name for name in group if name in _KNOWN and isinstance(group[name], h5py.Dataset)]
    arrays = {name: _lazily(group[name], path) if name in _VECTORS else _whole(group[name]) for name in names}
    return from_arrays(arrays, model, str(path))


def _group_of_vectors(file: Any, path: Path) -> Any:
    import h5py

    holders = [g for g in [file, *(v for v in file.values() if isinstance(v, h5py.Group))] if _VECTORS & set(g)]
    if len(holders) != 1:
        found = ", ".join(file) or "nothing"
        raise DataError(
            f"{path}: {len(holders) or 'no'} groups hold vectors under a known name (found {found}); "
            f"known are {', '.join(sorted(_VECTORS))}."
        )
    return holders[0]


def _lazily(dataset: Any, path: Path) -> Any:
    offset = dataset.id.get_offset()
    if offset is not None and dataset.dtype.isnative and dataset.size:
        return np.memmap(path, dtype=dataset.dtype, mode="r", offset=offset, shape=dataset.shape)
    return Stored(dataset)


def _whole(dataset: Any) -> np.ndarray:
    import h5py

    if h5py.check_string_dtype(dataset.dtype) is not None:
        return np.array(dataset.asstr()[:], dtype=str)
    array = dataset[:]
    return array.astype(array.dtype.newbyteorder("="))
