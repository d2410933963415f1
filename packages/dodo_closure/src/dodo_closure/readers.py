"""Files of states: published databases, stable points, merger volumes, raw simulation output; read in pieces, never whole."""

import fnmatch
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dodo_closure.layout import axis_order, canonical
from skyloom.errors import DataError, MissingFile

__all__ = ["KINDS", "Piece", "Source", "digest", "open_source", "opened", "text"]

INITIAL, FINAL, SPREAD = "F4_initial(1|ccm)", "F4_final(1|ccm)", "F4_final_stddev(1|ccm)"
GROWTH, NAMES, STABLE = "growthRate(1|s)", "directorynames", "stable"
VOLUME = ("n_e(1|ccm)", "n_a(1|ccm)", "n_x(1|ccm)")
VOLUME_FLUX = ("fn_e(1|ccm)", "fn_a(1|ccm)", "fn_x(1|ccm)")
KINDS = {
    "database": "initial and final four-fluxes of simulations",
    "prepared": "F_init and F_true of an earlier preparation, in any order of axes",
    "stable": "initial four-fluxes of states known to be stable",
    "volume": "densities and fluxes on a grid of a merger simulation; no final state",
    "emu": "the reduced output of one simulation over time",
    "initial": "initial four-fluxes alone",
}


@dataclass
class Piece:
    """Rows of a source, in 1/cm^3."""

    initial: np.ndarray
    """[N, 2, 3, 4]"""
    final: np.ndarray | None = None
    """[N, 2, 3, 4]; None where no simulation says"""
    growth: np.ndarray | None = None
    """[N], 1/s"""
    stable: np.ndarray | None = None
    """[N], whether the file calls the state stable"""
    names: list[str] = field(default_factory=list)
    """[N] directory of the simulation"""
    groups: np.ndarray | None = None
    """[N] rows that belong together, where the source knows"""


@dataclass(frozen=True)
class Source:
    """One file: `rows` states of a kind; `initial` and `final` name its data sets, `orders` their axes."""

    path: Path
    kind: str
    rows: int
    initial: str = INITIAL
    final: str | None = None
    orders: tuple[str, str] = ("", "")
    shape: tuple[int, ...] = ()

    def read(self, start: int, stop: int) -> Piece:
        """Rows start to stop."""
        with opened(self.path) as file:
            if self.kind == "volume":
                return Piece(_volume(file, self.shape, start, stop), names=[""] * (stop - start))
            initial = _rows(file, self.path, self.initial, self.orders[0], start, stop)
            final = _rows(file, self.path, self.final, self.orders[1], start, stop) if self.final else None
            stable = None
            if self.kind == "stable":
                stable = np.asarray(file[STABLE][start:stop]) > 0.5
                final = np.where(stable[:, None, None, None], initial, np.nan)
            growth = np.asarray(file[GROWTH][start:stop], dtype=np.float64) if GROWTH in file else None
            key = next((name for name in (NAMES, "dirname") if name in file), None)
            names = [text(v) for v in file[key][start:stop]] if key else [""] * len(initial)
            groups = np.asarray(file["split_group"][start:stop]) if "split_group" in file else None
            return Piece(initial, final, growth, stable, names, groups)


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The HDF5 file at `path`; what is wrong with it is said by name."""
    import h5py

    if not path.is_file():
        raise MissingFile(f"there is no file {path}.")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: not a readable HDF5 file ({error}). Is it cut short?") from error


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_source(path: str | Path, layout: str | None = None, kind: str | None = None) -> Source:
    """What a file holds, from the names of its data sets; see `KINDS`."""
    path = Path(path)
    if kind is not None and kind not in KINDS:
        raise DataError(f"kind={kind} is none of {', '.join(KINDS)}.")
    with opened(path) as file:
        kind = kind or _kind(file, path)
        if kind == "emu":
            return Source(path, kind, 1)
        if kind == "volume":
            return _volume_source(file, path)
        first, second = ("F_init", "F_true") if kind == "prepared" else (INITIAL, FINAL if kind == "database" else None)
        order = axis_order(_dataset(file, path, first).shape, f"{path}: {first!r}", layout)
        rows = file[first].shape[order.index("n")]
        if rows == 0:
            raise DataError(f"{path}: {first!r} has no row.")
        other = ""
        if second is not None:
            other = axis_order(_dataset(file, path, second).shape, f"{path}: {second!r}", layout)
            if file[second].shape[other.index("n")] != rows:
                raise DataError(f"{path}: {first!r} has {rows} rows and {second!r} {file[second].shape[other.index('n')]}.")
        if "nf" in file and int(np.asarray(file["nf"])) != 3:
            raise DataError(f"{path}: nf = {int(np.asarray(file['nf']))} flavors; three are needed.")
        for name in (STABLE,) if kind == "stable" else ():
            _dataset(file, path, name)
        for name in (GROWTH, NAMES, STABLE):
            if name in file and len(file[name]) != rows:
                raise DataError(f"{path}: {name!r} has {len(file[name])} rows where {first!r} has {rows}.")
        return Source(path, kind, rows, first, second, (order, other))


def _kind(file: Any, path: Path) -> str:
    tests = {
        "prepared": "F_init",
        "database": FINAL,
        "stable": STABLE,
        "initial": INITIAL,
        "volume": VOLUME[0],
        "emu": "N00(1|ccm)",
    }
    for kind, name in tests.items():
        if name in file:
            return kind
    known = [name.split("(")[0] for name in tests.values()]
    other = [name for name in file if name.split("(")[0] in known]
    if other:
        raise DataError(f"{path}: {other[0]!r} is not in 1/cm^3: convert it and name it {other[0].split('(')[0]}(1|ccm).")
    raise DataError(f"{path}: none of the data sets {', '.join(map(repr, tests.values()))}; it has {_listed(file)}.")


def _listed(file: Any) -> str:
    return ", ".join(map(repr, file)) or "none"


def _dataset(file: Any, path: Path, name: str) -> Any:
    if name in file:
        return file[name]
    stem = name.split("(")[0]
    same = fnmatch.filter(list(file), f"{stem}(*") or [key for key in file if key == stem]
    if same:
        raise DataError(f"{path}: has {same[0]!r} where {name!r} is needed: convert it to 1/cm^3 and name it so.")
    raise DataError(f"{path}: no data set {name!r}; it has {_listed(file)}.")


def _rows(file: Any, path: Path, name: str | None, order: str, start: int, stop: int) -> np.ndarray:
    where = tuple(slice(start, stop) if letter == "n" else slice(None) for letter in order)
    try:
        return canonical(file[name][where], order)
    except OSError as error:
        raise DataError(f"{path}: {name!r}, rows {start} to {stop}: not readable ({error}). Is it cut short?") from error


# ------------------------------------------------------------------------------------------------------ volumes of a merger run


def _volume_source(file: Any, path: Path) -> Source:
    shape = _dataset(file, path, VOLUME[0]).shape
    for n, flux in zip(VOLUME, VOLUME_FLUX, strict=True):
        if _dataset(file, path, n).shape != shape or len(shape) != 3:
            raise DataError(f"{path}: {n!r} has shape {file[n].shape}; three axes like {VOLUME[0]!r}, {shape}, are needed.")
        if _dataset(file, path, flux).shape != (3, *shape):
            raise DataError(f"{path}: {flux!r} has shape {file[flux].shape} where {(3, *shape)} = (xyz, grid) is needed.")
    return Source(path, "volume", int(np.prod(shape)), shape=shape)


def _volume(file: Any, shape: tuple[int, ...], start: int, stop: int) -> np.ndarray:
    """Rows of the flattened grid, read by slabs of its first axis. n_x is the sum of four heavy species."""
    plane = shape[1] * shape[2]
    first, last = start // plane, -(-stop // plane)
    cut = slice(start - first * plane, stop - first * plane)
    species = []
    for n, flux in zip(VOLUME, VOLUME_FLUX, strict=True):
        density = np.asarray(file[n][first:last], dtype=np.float64).reshape(-1)[cut]
        current = np.asarray(file[flux][:, first:last], dtype=np.float64).reshape(3, -1)[:, cut]
        species.append(np.concatenate([current.T, density[:, None]], axis=1))
    e, ebar, x = species[0], species[1], species[2] / 4
    return np.stack([np.stack([e, x, x], axis=1), np.stack([ebar, x, x], axis=1)], axis=1)
