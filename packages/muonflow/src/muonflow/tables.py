"""Events as Parquet: one row per event, its muons as a list of structs; empty events are rows too.

    event_id string, depth_m f4, E0_GeV f4, zenith_rad f4, A i1, n_mu i4, muons list<struct<E_GeV f4, r_m f4[, phi_rad f4]>>

`event_id` is `<shower>/<number>`: events of one shower share what stands before the slash, and are never split. Where only
some of the events without muons were kept, a column `kept` f4 says which share of those like this one. The file's metadata
say units, who wrote it, and whether it is synthetic.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from muonflow.events import CONDITIONS, MUONS, Events
from skyloom.errors import DataError, MissingFile, nearest
from skyloom.run.files import write_whole

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["about_of", "events_of", "read_events", "stream_conditions", "write_events"]

NEEDED = ("E0_GeV", "zenith_rad", "A", "depth_m")


def write_events(path: str | Path, parts: Iterable[tuple[Events, Sequence[str] | None]], about: Mapping[str, Any]) -> int:
    """Write a stream of events with their names (None numbers them), whole or not at all; returns the number of rows."""
    import pyarrow.parquet as pq

    rows, writer = 0, None
    with write_whole(path) as temporary:
        try:
            for events, names in parts:
                table = _to_arrow(events, names, rows, about)
                writer = writer or pq.ParquetWriter(temporary, table.schema)
                writer.write_table(table)
                rows += len(events)
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise DataError(f"{path}: there are no events to write.")
    return rows


def read_events(path: str | Path) -> tuple[Events, dict[str, Any]]:
    """The events of a file with `muons`, and its `about`."""
    table, about = _read(path)
    return events_of(table, path), about


def about_of(path: str | Path) -> dict[str, Any]:
    """What the file's metadata say of it."""
    import pyarrow.parquet as pq

    return json.loads((pq.read_schema(path).metadata or {}).get(b"about", b"{}"))


def events_of(table: "pa.Table", path: str | Path) -> Events:
    """The events of a table; `path` is what complaints name."""
    condition, shower = _conditions(table, path)
    kept = (
        torch.as_tensor(table["kept"].to_numpy().astype(np.float32)) if "kept" in table.column_names else torch.ones(len(table))
    )
    columns = {"shower": shower, "kept": kept}
    count = torch.as_tensor(table["n_mu"].to_numpy().astype(np.int64)) if "n_mu" in table.column_names else None
    if "muons" not in table.column_names:
        return Events(condition, torch.zeros(len(condition), dtype=torch.int64), None, columns)
    lists = table["muons"].combine_chunks()
    lengths = torch.as_tensor(np.diff(lists.offsets.to_numpy()).astype(np.int64))
    if lists.null_count:
        raise DataError(f"{path}: column muons is null in {lists.null_count} rows; an event without muons holds an empty list.")
    if count is not None and not torch.equal(lengths, count):
        row = int(torch.nonzero(lengths != count)[0])
        raise DataError(f"{path}: row {row} holds {int(lengths[row])} muons, but n_mu says {int(count[row])}.")
    flat = lists.flatten()
    names = [field.name for field in flat.type]
    for name in MUONS:
        if name not in names:
            more = " Tables of x and y become tables of r by make prepare pkg=muonflow input=…" if "x_m" in names else ""
            raise DataError(f"{path}: muons have no field {name}.{nearest(name, names)}{more}")
    muons = np.stack([flat.field(name).to_numpy(zero_copy_only=False) for name in MUONS], 1).astype(np.float32)
    return Events(condition, lengths, torch.as_tensor(muons), columns)


def stream_conditions(path: str | Path, rows: int = 16_384) -> Iterator[tuple[Tensor, list[str]]]:
    """Conditions [N, 4] and event names of a Parquet or CSV table that need hold no muons, in pieces of exactly `rows` events
    (the last may hold fewer), of which only one is in memory."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"there is no file {path}.")
    first, waiting, held = 0, [], 0
    try:
        if path.suffix == ".csv":
            batches: Any = pyarrow.csv.open_csv(path)
        else:
            file = pq.ParquetFile(path)
            present = [name for name in ("event_id", *NEEDED) if name in file.schema_arrow.names]
            if not set(NEEDED) <= set(present):
                _conditions(file.schema_arrow.empty_table(), path)  # says which is lacking
            batches = file.iter_batches(rows, columns=present)
        for batch in batches:
            waiting.append(pa.table(batch) if isinstance(batch, pa.RecordBatch) else batch)
            held += len(batch)
            while held >= rows:
                table = pa.concat_tables(waiting)
                yield _named_conditions(table.slice(0, rows), path, first)
                waiting, held, first = [table.slice(rows)], held - rows, first + rows
    except pa.ArrowException as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    if not held and not first:
        raise DataError(f"{path} holds no events.")
    if held:
        yield _named_conditions(pa.concat_tables(waiting), path, first)


def _named_conditions(table: "pa.Table", path: Path, first: int) -> tuple[Tensor, list[str]]:
    condition, _ = _conditions(table, path, first)
    if "event_id" in table.column_names:
        return condition, [str(name) for name in table["event_id"].to_pylist()]
    return condition, [f"{first + k}/0" for k in range(len(condition))]


def _read(path: str | Path) -> tuple["pa.Table", dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"there is no file {path}.")
    try:
        table = pyarrow.csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
    except pa.ArrowException as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    if len(table) == 0:
        raise DataError(f"{path} holds no events.")
    return table, json.loads((table.schema.metadata or {}).get(b"about", b"{}"))


def _conditions(table: "pa.Table", path: str | Path, first: int = 0) -> tuple[Tensor, Tensor]:
    """Conditions [N, 4] and the number of each event's shower [N]; `first` is the row of the file that these begin with."""
    for name in NEEDED:
        if name not in table.column_names:
            raise DataError(f"{path}: no column {name}.{nearest(name, table.column_names)} Needed: {', '.join(NEEDED)}.")
    columns = []
    for name in CONDITIONS:
        values = table[name].to_numpy().astype(np.float32)
        if not np.isfinite(values).all():
            raise DataError(
                f"{path}: column {name} is not a finite number in row {first + int(np.flatnonzero(~np.isfinite(values))[0])}."
            )
        columns.append(torch.as_tensor(values.copy()))
    if "event_id" not in table.column_names:
        return torch.stack(columns, 1), torch.arange(len(table))
    shower = [str(name).partition("/")[0] for name in table["event_id"].to_pylist()]
    return torch.stack(columns, 1), torch.as_tensor(pd.factorize(np.array(shower))[0])


def _to_arrow(events: Events, names: Sequence[str] | None, first: int, about: Mapping[str, Any]) -> "pa.Table":
    import pyarrow as pa

    shower = events.columns.get("shower", torch.arange(len(events)) + first)
    names = names or [f"{s}/{first + k}" for k, s in enumerate(shower.tolist())]
    energy, zenith, mass, depth = (column.numpy().astype(np.float32) for column in events.condition.unbind(1))
    columns: dict[str, Any] = {
        "event_id": pa.array(list(names), pa.string()),
        "depth_m": depth,
        "E0_GeV": energy,
        "zenith_rad": zenith,
        "A": mass.astype(np.int8),
        "n_mu": events.count.numpy().astype(np.int32),
    }
    if "kept" in events.columns:
        columns["kept"] = events.columns["kept"].numpy().astype(np.float32)
    if events.muons is not None:
        fields = [*MUONS, "phi_rad"][: events.muons.shape[1]]
        flat = pa.StructArray.from_arrays([pa.array(c.numpy().astype(np.float32)) for c in events.muons.unbind(1)], fields)
        offsets = np.concatenate([[0], np.cumsum(events.count.numpy())]).astype(np.int32)
        columns["muons"] = pa.ListArray.from_arrays(pa.array(offsets), flat)
    units = {"E0_GeV": "GeV", "zenith_rad": "rad", "depth_m": "m, vertical", "muons": "GeV, m from the shower axis, rad"}
    return pa.table(columns).replace_schema_metadata({"about": json.dumps({"units": units, **about})})
