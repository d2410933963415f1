"""Event tables of earlier productions, read in pieces and made into events, with an account of what was dropped and why.

    HDF5        primaries (N, 7) ids, E, zenith, mass, time, depth;  muons (M, 6) ids, E, x, y, time;  counts (N,)
    Parquet v1  primary_major_id, primary_minor_id, primary [E, zenith, mass, depth], muons [[E, x, y], …]
    Parquet v2  primary [E, zenith, mass, depth], muons [[E, r, x, y], …]: the shower is told by its neighbours
    JSONL       one shower a line: energy, zenith, mass, depths [[depth, {track_0: [E, r, x, y], …}], …]

Energies in GeV, angles in rad, depths and distances in m. The mass is that of the particle in GeV, or a mass number. An event
without muons is a row like any other; the muon of zeros that HDF5 files hold in its place is taken out, and counted.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from muonflow.events import Events
from muonflow.physics import MASS_NUMBERS
from skyloom.errors import DataError, MissingFile

__all__ = ["LAYOUTS", "Raw", "clean", "layout_of", "mass_number", "read_layout"]

NUCLEON = 0.93149  # GeV, an atomic mass unit
KNOWN = np.array(sorted(MASS_NUMBERS.values()), dtype=np.float64)
ROWS = 10_000  # events read at once
ON_AXIS = 1.0e-3  # m: a muon at r = 0 is moved here


class Raw(NamedTuple):
    """Events as a file has them."""

    primary: np.ndarray  # [N, 4] E0 (GeV), zenith (rad), mass (GeV or A), depth (m)
    number: np.ndarray  # [N] of muons
    muons: np.ndarray  # [M, 2] E (GeV), r (m)
    shower: list[str]  # [N]
    strangers: np.ndarray | None = None  # [N] whether a row holds muons of another primary


def read_layout(path: str | Path, report: Counter[str], layout: str | None = None) -> Iterator[tuple[Events, list[str]]]:
    """Events and their names, piece by piece; `report` counts what was read, dropped and mended."""
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"there is no file {path}.")
    name = layout or layout_of(path)
    if name not in LAYOUTS:
        raise DataError(f"layout={name!r} is none of {', '.join(LAYOUTS)}.")
    for raw in LAYOUTS[name](path):
        yield clean(raw, report)


def layout_of(path: Path) -> str:
    """Which layout a file has, from its ending and its columns."""
    if path.suffix in (".h5", ".hdf5"):
        return "hdf5"
    if path.suffix in (".jsonl", ".json"):
        return "jsonl"
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        names = set(pq.read_schema(path).names)
        if {"primary", "muons"} <= names:
            return "parquet_v1" if "primary_major_id" in names else "parquet_v2"
        raise DataError(f"{path} has the columns {', '.join(sorted(names))}; a layout to convert has primary and muons.")
    raise DataError(f"{path}: no known layout ends in {path.suffix!r}; give .h5, .parquet or .jsonl.")


def mass_number(mass: np.ndarray) -> np.ndarray:
    """A of particle masses in GeV (0.938, 3.73, 13.04, 25.1, 52.1) or of mass numbers; 0 where it is none of the five.

    >>> mass_number(np.array([0.938, 52.1, 4.0, 7.0])).tolist()
    [1.0, 56.0, 4.0, 0.0]
    """
    out = np.zeros(len(mass))
    for scale in (1.0, NUCLEON):
        gap = np.abs(mass[:, None] / scale / KNOWN - 1)
        near = gap.min(1) < 0.01
        out = np.where(near, KNOWN[gap.argmin(1)], out)
    return out


def clean(raw: Raw, report: Counter[str]) -> tuple[Events, list[str]]:
    """Events without what no bundle can be. A muon that is no muon is dropped; an event that is none goes with its muons."""
    count, muons = raw.number.astype(np.int64), raw.muons.astype(np.float64)
    if int(count.sum()) != len(muons):
        raise DataError(f"counts of {len(count)} events sum to {count.sum()}, but there are {len(muons)} muons.")
    report["events read"] += len(count)
    report["muons read"] += len(muons)
    owner = np.repeat(np.arange(len(count)), count)
    empty = (muons == 0).all(1) & (count[owner] == 1)
    reasons = {
        "muons dropped: the muon of zeros of an empty event": empty,
        "muons dropped: not a number": ~np.isfinite(muons).all(1) & ~empty,
        "muons dropped: energy not positive": (muons[:, 0] <= 0) & ~empty,
    }
    good = ~np.logical_or.reduce(list(reasons.values()))
    for reason, which in reasons.items():
        report[reason] += int(which.sum())
    on_axis = good & (muons[:, 1] <= 0)
    report["muons moved off the axis to 1 mm"] += int(on_axis.sum())
    muons[on_axis, 1] = ON_AXIS
    energy, zenith, mass, depth = raw.primary.astype(np.float64).T
    number = mass_number(mass)
    with np.errstate(divide="ignore", invalid="ignore"):
        ceiling = np.where(number > 0, energy / number, np.inf)
    above = np.bincount(owner[good & (muons[:, 0] >= ceiling[owner])], minlength=len(count)) > 0
    rules = {
        "events dropped: primary not a number": ~np.isfinite(raw.primary).all(1),
        "events dropped: primary energy not positive": energy <= 0,
        "events dropped: zenith outside [0, pi/2]": ~((zenith >= 0) & (zenith <= np.pi / 2)),
        "events dropped: unknown mass": number == 0,
        "events dropped: depth not below the firn (200 m)": ~(depth > 200),
        "events dropped: muons of another primary": np.zeros(len(count), bool) if raw.strangers is None else raw.strangers,
        "events dropped: a muon above E0 / A": above,
    }
    kept = np.ones(len(count), bool)
    for reason, bad in rules.items():
        report[reason] += int((kept & bad).sum())
        kept &= ~bad
    condition = np.stack([energy, zenith, number, depth], 1).astype(np.float32)
    left = np.bincount(owner[good], minlength=len(count))
    events = Events(torch.tensor(condition), torch.tensor(left), torch.tensor(muons[good].astype(np.float32)))
    events = events.where(torch.tensor(kept))
    report["events written"] += len(events)
    report["events written without muons"] += int((events.count == 0).sum())
    report["muons written"] += int(events.count.sum())
    return events, [name for name, keep in zip(raw.shower, kept, strict=True) if keep]


class _Neighbours:
    """Names for showers whose rows stand next to each other: a new one where the primary changes."""

    def __init__(self) -> None:
        self.last: tuple[float, ...] | None = None
        self.number = -1

    def __call__(self, primary: np.ndarray) -> list[str]:
        names = []
        for row in map(tuple, primary.tolist()):
            if row != self.last:
                self.number, self.last = self.number + 1, row
            names.append(f"shower{self.number}")
        return names


def _hdf5(path: Path) -> Iterator[Raw]:
    try:
        import h5py
    except ImportError:
        raise DataError("HDF5 files need h5py: pip install h5py.") from None
    try:
        with h5py.File(path) as file:
            missing = {"primaries", "muons", "counts"} - set(file)
            if missing:
                raise DataError(f"{path} lacks the data sets {', '.join(sorted(missing))}.")
            yield from _hdf5_rows(path, file)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _hdf5_rows(path: Path, file: Any) -> Iterator[Raw]:
    counts, named = np.asarray(file["counts"]), _Neighbours()
    stop = np.cumsum(counts)
    if len(counts) and stop[-1] != len(file["muons"]):
        raise DataError(f"{path}: counts sum to {stop[-1]}, but there are {len(file['muons'])} muons.")
    for first in range(0, len(counts), ROWS):
        count = counts[first : first + ROWS]
        table = file["primaries"][first : first + ROWS].astype(np.float64)
        begin = stop[first] - counts[first]
        muons = file["muons"][begin : begin + count.sum()].astype(np.float64)
        owner = np.repeat(np.arange(len(count)), count)
        dummy = (muons[:, 2:5] == 0).all(1)
        foreign = (muons[:, :2] != table[owner, :2]).any(1) & ~dummy
        strangers = np.bincount(owner[foreign], minlength=len(count)) > 0
        primary = table[:, [2, 3, 4, 6]]
        pairs = np.stack([muons[:, 2], np.hypot(muons[:, 3], muons[:, 4])], 1)
        yield Raw(primary, count, pairs, named(table[:, :5]), strangers)


def _parquet(with_ids: bool) -> Callable[[Path], Iterator[Raw]]:
    def read(path: Path) -> Iterator[Raw]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        named, row = _Neighbours(), 0
        try:
            for batch in pq.ParquetFile(path).iter_batches(ROWS):
                primary = _matrix(batch["primary"], 4, path, "primary", row)
                outer = batch["muons"]
                count = np.diff(outer.offsets.to_numpy())
                inner = outer.flatten()
                width = int(inner.value_lengths()[0].as_py()) if len(inner) else (3 if with_ids else 4)
                if width not in (3, 4):
                    raise DataError(f"{path}: a muon has {width} numbers; [E, x, y] or [E, r, x, y] is wanted.")
                muons = _matrix(inner, width, path, "muons", row)
                radius = np.hypot(muons[:, 1], muons[:, 2]) if width == 3 else muons[:, 1]
                showers = named(primary[:, :3])
                if with_ids:
                    ids = zip(batch["primary_major_id"].to_pylist(), batch["primary_minor_id"].to_pylist(), strict=True)
                    showers = [f"{major}-{minor}" for major, minor in ids]
                yield Raw(primary, count, np.stack([muons[:, 0], radius], 1), showers)
                row += len(count)
        except pa.ArrowException as error:
            raise DataError(f"{path}, from row {row}: {str(error).splitlines()[0]}") from None

    return read


def _matrix(lists: Any, width: int, path: Path, column: str, row: int) -> np.ndarray:
    """[N, width] of lists of that length."""
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    if (lengths != width).any():
        wrong = int(np.flatnonzero(lengths != width)[0])
        raise DataError(f"{path}, from row {row}: list {wrong} of {column} has {lengths[wrong]} numbers, not {width}.")
    return lists.flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, width)


def _jsonl(path: Path) -> Iterator[Raw]:
    with open(path, encoding="utf-8") as file:
        number = 0
        while lines := list(islice(file, 1000)):
            primary, count, muons, showers = [], [], [], []
            for line in lines:
                number += 1
                if not line.strip():
                    continue
                for row, tracks in _shower(line, path, number):
                    primary.append(row)
                    count.append(len(tracks))
                    muons += tracks
                    showers.append(f"shower{number}")
            yield Raw(
                np.array(primary, dtype=np.float64).reshape(-1, 4),
                np.array(count, dtype=np.int64),
                np.array(muons, dtype=np.float64).reshape(-1, 2),
                showers,
            )


def _shower(line: str, path: Path, number: int) -> list[tuple[list[float], list[list[float]]]]:
    """(primary, muons) at each depth of one line."""
    try:
        shower = json.loads(line)
        head = [float(shower[name]) for name in ("energy", "zenith", "mass")]
        return [([*head, float(depth)], [[m[0], m[1]] for m in tracks.values()]) for depth, tracks in shower["depths"]]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{path}, line {number}: not a shower ({type(error).__name__}: {error}).") from None


LAYOUTS: dict[str, Callable[[Path], Iterator[Raw]]] = {
    "hdf5": _hdf5,
    "parquet_v1": _parquet(True),
    "parquet_v2": _parquet(False),
    "jsonl": _jsonl,
}
"""What can be converted, by name."""
