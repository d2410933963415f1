"""Predictions and other columns as Parquet: `[N]` is a column, `[N, …]` a column of fixed-size lists with its shape noted."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from skyloom.errors import MissingFile
from skyloom.run.files import write_whole

__all__ = ["read_columns", "write_columns"]


def write_columns(path: str | Path, columns: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
    """Write columns whole or not at all; `about` (units, whether synthetic, …) goes into the file's metadata as JSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays, shapes = {}, {}
    for name, values in columns.items():
        array = np.asarray(values)
        if array.ndim == 1:
            arrays[name] = pa.array(array)
        else:
            shapes[name] = list(array.shape[1:])
            arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), int(np.prod(array.shape[1:])))
    metadata = {"shapes": json.dumps(shapes), "about": json.dumps(about or {})}
    with write_whole(path) as temporary:
        pq.write_table(pa.table(arrays).replace_schema_metadata(metadata), temporary)


def read_columns(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The columns and the `about` of a file that `write_columns` wrote."""
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        raise MissingFile(f"there is no file {path}.")
    table = pq.read_table(path)
    metadata = {k.decode(): json.loads(v) for k, v in (table.schema.metadata or {}).items() if k in (b"shapes", b"about")}
    shapes = metadata.get("shapes", {})
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if name in shapes:
            columns[name] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), *shapes[name])
        else:
            columns[name] = column.to_numpy(zero_copy_only=False)
    return columns, metadata.get("about", {})
