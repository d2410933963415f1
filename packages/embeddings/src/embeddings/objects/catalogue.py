"""Catalogues of galaxies: FITS, CSV and Parquet tables as identifiers, numbers with NaN for missing, and text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.objects.halos import HALO_SNAPSHOT, halo_snapshots
from embeddings.objects.identifiers import as_identifiers, is_identifier_name, null_mask
from embeddings.objects.properties import PROPERTIES, property_named, values
from skyloom.errors import DataError, MissingFile, nearest

__all__ = ["Catalogue", "merged", "read_catalogue", "table_columns"]

PASSIVE_BELOW = -11.0
"""log10 of star formation rate over stellar mass [1/yr]: galaxies that would need 100 Gyr to double are called passive."""

INTEGER_NULLS = {"i2": -32768, "i4": -(2**31), "i8": -(2**63)}
"""What FITS writers put for "missing" where the header gives no TNULL."""


@dataclass(frozen=True)
class Catalogue:
    """M objects."""

    ids: Mapping[str, np.ndarray]
    """Name -> [M] int64 or text."""
    numbers: Mapping[str, np.ndarray]
    """Column -> [M] float64, NaN where missing."""
    text: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Column -> [M] text without padding, "" where missing."""
    synthetic: bool = False

    def __len__(self) -> int:
        return len(next(iter(self.ids.values())))

    def properties(self, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """The named properties or columns, or all known ones that the catalogue has; each [M] with NaN where missing."""
        wanted = [p.name for p in PROPERTIES] if names is None else list(names)
        found = {name: values(property_named(name), self.numbers) for name in wanted}
        if names is not None:
            absent = [name for name, column in found.items() if column is None]
            if absent:
                hint = nearest(absent[0], [*self.numbers, *(p.name for p in PROPERTIES)])
                raise DataError(f"the catalogue has no column for {', '.join(absent)}.{hint}")
        return {name: column for name, column in found.items() if column is not None}

    def position(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Right ascension and declination [deg], where there are such columns without gaps."""
        lower = {name.lower(): column for name, column in self.numbers.items()}
        for ra, dec in (("right_ascension", "declination"), ("ra", "dec"), ("target_ra", "target_dec")):
            if ra in lower and dec in lower and np.isfinite(lower[ra]).all() and np.isfinite(lower[dec]).all():
                return lower[ra], lower[dec]
        return None

    def classes(self) -> dict[str, np.ndarray]:
        """`spectral type` and, from the specific star formation rate, `star formation`: [M] text, "" where unknown."""
        found = {}
        lower = {name.lower(): column for name, column in self.text.items()}
        for name in ("spectype", "class", "spectral_type", "type"):
            if name in lower:
                found["spectral type"] = np.char.upper(lower[name].astype(str))
                break
        mass, rate = (values(property_named(name), self.numbers) for name in ("log_mass", "log_sfr_or_limit"))
        if mass is not None and rate is not None:
            ssfr = rate - mass
            kind = np.where(ssfr > PASSIVE_BELOW, "star-forming", "passive")
            found["star formation"] = np.where(np.isfinite(ssfr), kind, "")
        return found

    def in_order(self) -> "Catalogue":
        """Sorted by identifiers, so that the order of rows in the file is forgotten."""
        keys = [self.ids[name] for name in sorted(self.ids, reverse=True)]
        order = np.lexsort([*(self.numbers[name] for name in sorted(self.numbers)), *keys])
        return Catalogue(
            {name: v[order] for name, v in self.ids.items()},
            {name: v[order] for name, v in self.numbers.items()},
            {name: v[order] for name, v in self.text.items()},
            self.synthetic,
        )


def read_catalogue(path: str | Path, id_columns: Iterable[str] | None = None) -> Catalogue:
    """Read a table; `id_columns` names the identifiers where their names are unusual."""
    path = Path(path)
    columns = table_columns(path, id_columns)
    chosen = set(id_columns) if id_columns is not None else {name for name in columns if is_identifier_name(name)}
    absent = chosen - columns.keys()
    if absent:
        raise DataError(f"{path}: no column {sorted(absent)[0]!r}.{nearest(sorted(absent)[0], columns)}")
    ids = {name: as_identifiers(columns[name], f"{path}, column {name}") for name in columns if name in chosen}
    if id_columns is None and {"HaloID", "Snapshot"} <= columns.keys():  # only both together name a simulated cluster
        ids[HALO_SNAPSHOT] = halo_snapshots(columns["HaloID"], columns["Snapshot"])
    if not ids:
        raise DataError(
            f"{path}: no identifier column is recognised among {', '.join(list(columns)[:20])}; name it in id_columns."
        )
    numbers, text = {}, {}
    for name, column in columns.items():
        if name in chosen or column.ndim != 1:
            continue
        if column.dtype.kind in "fiub":
            numbers[name] = column.astype(np.float64)
        else:
            text[name] = column.astype(str)
    kept = {name: v for name, v in ids.items() if not null_mask(v).all()}
    if not kept:
        raise DataError(f"{path}: the identifier columns {', '.join(ids)} hold nothing but null codes.")
    return Catalogue(kept, numbers, text)


def merged(tables: Sequence[Catalogue]) -> Catalogue:
    """One catalogue of the objects that all tables have, by an identifier that all have; the first of equal columns counts."""
    first, *rest = tables
    for other in rest:
        shared = [name for name in first.ids if name in other.ids]
        if not shared:
            raise DataError(f"the catalogues share no identifier: {', '.join(first.ids)} and {', '.join(other.ids)}.")
        key = shared[0]
        for table in (first, other):
            if len(np.unique(table.ids[key])) < len(table):
                raise DataError(f"{key} occurs more than once in a catalogue, so that tables cannot be put side by side by it.")
        _, mine, theirs = np.intersect1d(first.ids[key], other.ids[key], return_indices=True)
        if not len(mine):
            raise DataError(f"the catalogues have no object in common by {key}.")
        sides = [
            {**{k: v[theirs] for k, v in b.items()}, **{k: v[mine] for k, v in a.items()}}
            for a, b in ((first.ids, other.ids), (first.numbers, other.numbers), (first.text, other.text))
        ]
        first = Catalogue(sides[0], sides[1], sides[2], first.synthetic or other.synthetic)
    return first


def table_columns(path: Path, id_columns: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """All columns of a FITS, CSV or Parquet table in native byte order; missing numbers are NaN, missing text is ""."""
    if not path.is_file():
        raise MissingFile(f"there is no file {path}.")
    if path.name.endswith((".fits", ".fit", ".fits.gz")):
        return _fits_columns(path)
    if path.suffix in (".parquet", ".pq"):
        return _parquet_columns(path)
    if path.name.endswith((".csv", ".csv.gz", ".tsv")):
        return _csv_columns(path, id_columns)
    raise DataError(f"{path}: not a table that can be read; give .fits, .csv, .tsv or .parquet.")


# ------------------------------------------------------------------------------------------------ formats


def _fits_columns(path: Path) -> dict[str, np.ndarray]:
    """The first table extension. FITS stores big-endian numbers, null codes and padded text."""
    from astropy.io import fits

    with fits.open(path, memmap=True) as units:
        tables = [unit for unit in units if isinstance(unit, fits.BinTableHDU | fits.TableHDU)]
        if not tables:
            raise DataError(f"{path}: holds no table extension.")
        table = tables[0]
        # `.field` undoes TSCAL and TZERO; TNULL is ours to undo.
        return {column.name: _native(table.data.field(column.name), column.null, column.name) for column in table.columns}


def _native(values: Any, null: int | None, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind in "US":
        decoded = np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array.astype(str)
        return np.char.strip(decoded)
    array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "i" and not is_identifier_name(name):
        codes = [code for code in (null, INTEGER_NULLS.get(array.dtype.str[1:])) if code is not None]
        missing = np.isin(array, codes)
        return np.where(missing, np.nan, array.astype(np.float64)) if missing.any() else array
    if array.dtype.kind == "i" and null is not None:
        return np.where(array == null, np.iinfo(np.int64).min, array.astype(np.int64))
    return array


def _parquet_columns(path: Path) -> dict[str, np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {}
    table = pq.read_table(path)
    for name in table.column_names:
        column, kind = table[name].combine_chunks(), table.schema.field(name).type
        if pa.types.is_fixed_size_list(kind):
            columns[name] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), kind.list_size)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            columns[name] = _rectangle(column, path, name)
        elif pa.types.is_integer(kind) and is_identifier_name(name) and column.null_count:
            columns[name] = column.fill_null(np.iinfo(np.int64).min).to_numpy(zero_copy_only=False)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
            columns[name] = np.array([str(v).strip() if v is not None else "" for v in column.to_pylist()], dtype=str)
        else:
            columns[name] = column.to_numpy(zero_copy_only=False)
    return columns


def _rectangle(column: Any, path: Path, name: str) -> np.ndarray:
    """[N, D] from lists of equal length; a missing list becomes a row of NaN."""
    import pyarrow.compute as pc

    there = np.asarray(column.is_valid())
    lengths = np.unique(pc.list_value_length(column.drop_null()).to_numpy(zero_copy_only=False))
    if len(lengths) != 1:
        raise DataError(f"{path}, column {name}: lists of different lengths {lengths[:5].tolist()} are not vectors.")
    out = np.full((len(column), int(lengths[0])), np.nan, dtype=np.float32)
    out[there] = pc.list_flatten(column).to_numpy(zero_copy_only=False).reshape(-1, out.shape[1])
    return out


def _csv_columns(path: Path, id_columns: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Identifiers are read as text first: a CSV reader that guesses makes floats of a column with one gap."""
    import pandas as pd

    separator = "\t" if path.suffix == ".tsv" else ","
    header = pd.read_csv(path, sep=separator, nrows=0).columns
    named = set(id_columns or ()) | {name for name in header if is_identifier_name(name)}
    table = pd.read_csv(path, sep=separator, dtype=dict.fromkeys(named, str), keep_default_na=True)
    columns: dict[str, np.ndarray] = {}
    for name in table.columns:
        column = table[name]
        if name in named:
            columns[str(name)] = as_identifiers(
                column.astype(object).where(column.notna(), None).to_numpy(), f"{path}, column {name}"
            )
        elif column.dtype.kind in "fiub":
            columns[str(name)] = column.to_numpy()
        else:
            columns[str(name)] = np.array([str(v).strip() for v in column.astype(object).where(column.notna(), "")], dtype=str)
    return columns
