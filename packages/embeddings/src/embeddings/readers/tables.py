"""Tables as embeddings: columns that hold vectors, a family of numbered columns, or any measured columns one names."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from embeddings.objects.catalogue import table_columns
from embeddings.objects.identifiers import as_identifiers, is_identifier_name
from embeddings.readers.keys import MASKS, REDSHIFTS, VECTORS, first
from embeddings.vectors.sets import EmbeddingSet
from skyloom.errors import DataError, nearest

__all__ = ["read_table"]


def read_table(
    path: Path, model: str, columns: Sequence[str] | None = None, id_columns: Sequence[str] | None = None
) -> EmbeddingSet:
    """A set from a FITS, CSV or Parquet table.

    With `columns`, those are the vector, whatever they measure. Without, columns that hold vectors are taken (a Parquet list
    column is a modality), or numbered columns of one name (`e0, e1, ...` or `embedding_000, ...`).
    """
    table = table_columns(Path(path), id_columns)
    chosen = set(id_columns) if id_columns is not None else {name for name in table if is_identifier_name(name)}
    absent = [name for name in [*(columns or ()), *(id_columns or ())] if name not in table]
    if absent:
        raise DataError(f"{path}: no column {absent[0]!r}.{nearest(absent[0], table)}")
    ids = {name: as_identifiers(table[name], f"{path}, column {name}") for name in table if name in chosen}
    if not ids:
        raise DataError(
            f"{path}: no identifier column is recognised among {', '.join(list(table)[:20])}; name it in id_columns."
        )
    redshift = first(REDSHIFTS, table)
    z = None if redshift is None or table[redshift].dtype.kind not in "fi" else table[redshift].astype(np.float64)
    masks = {kind: table[name].astype(bool) for kind, name in MASKS.items() if name in table and table[name].dtype.kind in "bi"}
    if columns is not None:
        vectors = {"columns": _stacked(table, list(columns), path)}
        return EmbeddingSet(model, ids, vectors, {}, z, {"columns": tuple(columns)})
    vectors = {
        _modality(name): v.astype(np.float32, copy=False) for name, v in table.items() if v.ndim == 2 and v.dtype.kind == "f"
    }
    if not vectors:
        vectors = {_modality(stem): _stacked(table, names, path) for stem, names in _numbered(table).items()}
    if not vectors:
        numeric = [name for name, v in table.items() if v.ndim == 1 and v.dtype.kind in "fiu" and name not in chosen]
        raise DataError(
            f"{path}: no column holds vectors. Name the columns that shall be the vector in `columns`, for example "
            f"[{', '.join(numeric[:5])}]."
        )
    return EmbeddingSet(model, ids, vectors, masks, z)


def _stacked(table: Mapping[str, np.ndarray], names: list[str], path: Path) -> np.ndarray:
    text = [name for name in names if table[name].dtype.kind not in "fiub" or table[name].ndim != 1]
    if text:
        raise DataError(f"{path}: column {text[0]!r} is not a column of numbers and cannot be a dimension of a vector.")
    return np.stack([table[name].astype(np.float64) for name in names], axis=1)


def _modality(name: str) -> str:
    stem = name.rstrip("_")
    return next((kind for kind, names in VECTORS.items() if stem in names or stem == kind), stem)


def _numbered(table: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Families of at least three columns `<stem><number>` whose numbers run without a gap."""
    families: dict[str, dict[int, str]] = {}
    for name, values in table.items():
        found = re.fullmatch(r"(.*?)_?(\d+)", name)
        if found and values.ndim == 1 and values.dtype.kind == "f":
            families.setdefault(found[1], {})[int(found[2])] = name
    whole = {s: n for s, n in families.items() if len(n) >= 3 and max(n) - min(n) + 1 == len(n) and min(n) in (0, 1)}
    return {stem or "embedding": [names[k] for k in sorted(names)] for stem, names in whole.items()}
