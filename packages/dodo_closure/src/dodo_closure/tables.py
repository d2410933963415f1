"""The prepared table: `preprocessed_all.h5`, four-fluxes [N, 6, 4] in 1/cm^3 with what Box3D says of them.

F_init, F_true, F_box, F_smooth (N, 6, 4) 1/cm^3      ntot (N,) 1/cm^3        invariants (N, 27)
residual (N, 24) = (F_true - F_box) / ntot            growth_rate (N,) 1/s    stable (N,)
box_diag (N, 6): I_plus, I_minus, P_large, growth (all in units of N), crossing, max_flux_factor
sim_id, dirname (N,) text                             split_group (N,): rows that stay on one side of a split
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dodo_closure.fluxes import SPECIES
from dodo_closure.layout import axis_order, canonical
from dodo_closure.readers import opened
from skyloom.errors import DataError

__all__ = ["SCHEMA", "append", "create", "read_table"]

SCHEMA = 1
_CHUNK = 4096
_TEXTS = ("sim_id", "dirname")
_ATTRIBUTES = ("schema_version", "component_order", "species_order", "about")


@contextmanager
def create(path: Path, about: dict[str, Any]) -> Iterator[Any]:
    """A new, empty table; `about` (settings, sources with their digests, whether synthetic) goes into its attributes."""
    import h5py

    from skyloom import __version__

    with h5py.File(path, "w") as file:
        settings = about["settings"]
        file.attrs.update(
            schema_version=SCHEMA,
            component_order="xyzt",
            species_order=",".join(SPECIES),
            heavy_average=settings["average_heavies"],
            quadrature=settings["quadrature"],
            box3d_variant=settings["variant"],
            code_version=__version__,
            about=json.dumps(about, sort_keys=True),
        )
        yield file


def append(file: Any, columns: dict[str, np.ndarray], sim_id: str) -> None:
    """More rows, in chunks of 4096, compressed."""
    import h5py

    columns = {**columns, "sim_id": np.full(len(columns["ntot"]), sim_id)}
    for name, values in columns.items():
        if name in _TEXTS:
            values, kind = values.astype(object), h5py.string_dtype()
        else:
            kind = values.dtype
        if name not in file:
            shape = (0, *values.shape[1:])
            options = {"maxshape": (None, *shape[1:]), "chunks": (_CHUNK, *shape[1:]), "compression": "gzip"}
            file.create_dataset(name, shape, kind, shuffle=name not in _TEXTS, compression_opts=4, **options)
        start = len(file[name])
        file[name].resize(start + len(values), axis=0)
        file[name][start:] = values


def read_table(path: str | Path, names: tuple[str, ...] | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Columns and `about` of a table of ours, four-fluxes as [N, 2, 3, 4]; `names` limits which are read."""
    path = Path(path)
    with opened(path) as file:
        missing = [name for name in _ATTRIBUTES if name not in file.attrs]
        if missing:
            raise DataError(
                f"{path}: no attribute {missing[0]!r}, so it is no table of ours: put it through "
                f"`make prepare pkg=dodo_closure input={path}` first."
            )
        if int(file.attrs["schema_version"]) != SCHEMA:
            raise DataError(f"{path}: schema {file.attrs['schema_version']}; this code reads {SCHEMA}. Prepare it anew.")
        if file.attrs["component_order"] != "xyzt" or file.attrs["species_order"] != ",".join(SPECIES):
            raise DataError(f"{path}: components {file.attrs['component_order']}, species {file.attrs['species_order']}.")
        about = json.loads(file.attrs["about"])
        columns: dict[str, np.ndarray] = {}
        for name in names or tuple(file):
            if name not in file:
                raise DataError(f"{path}: no data set {name!r}; it has {', '.join(map(repr, file))}.")
            values = file[name][:]
            if name.startswith("F_"):
                values = canonical(values, axis_order(values.shape, f"{path}: {name!r}", "nac"))
            columns[name] = values.astype(str) if name in _TEXTS else values
    if len({len(values) for values in columns.values()}) > 1:
        raise DataError(f"{path}: data sets of different length: { {k: len(v) for k, v in columns.items()} }.")
    return columns, about
