"""An in-memory data set: named columns of equal length, fetched by the batch."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from skyloom.errors import DataError, nearest

__all__ = ["Columns", "fingerprint"]


class Columns:
    """Rows of several tensors, `{name: [N, ...]}`; a batch is the same rows of each.

    >>> rows = Columns({"x": torch.arange(6.0), "y": torch.arange(12.0).reshape(6, 2)})
    >>> len(rows), rows.__getitems__(np.array([1, 4]))["y"].tolist()
    (6, [[2.0, 3.0], [8.0, 9.0]])
    """

    def __init__(self, columns: Mapping[str, Tensor | np.ndarray]):
        if not columns:
            raise DataError("a data set needs at least one column.")
        self.columns = {name: torch.as_tensor(values) for name, values in columns.items()}
        lengths = {name: len(values) for name, values in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns differ in length: {lengths}.")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.columns:
            raise DataError(f"no column {name!r}.{nearest(name, self.columns)}")
        return self.columns[name]

    def __getitems__(self, rows: np.ndarray) -> dict[str, Tensor]:
        index = torch.as_tensor(rows)
        return {name: values[index] for name, values in self.columns.items()}

    def take(self, rows: np.ndarray) -> "Columns":
        return Columns(self.__getitems__(rows))


def fingerprint(arrays: Mapping[str, Tensor | np.ndarray]) -> str:
    """SHA-256 over names, shapes, types and bytes: equal data, equal text (16 hex digits)."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{array.shape}|{array.dtype.str}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
