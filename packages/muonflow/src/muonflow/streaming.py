"""Many Parquet files as one data set whose rows stay on disk: any number of muons, bounded memory.

An index holds how many events of each split every row group has; a row of a split is found from it by bisection, and row
groups are read when their rows are asked for and kept for a while. Which rows make which batch is a pure function of
(seed, epoch), as for data in memory, so that a position is one integer and a run resumes exactly.

Splits are by shower: a hash of what stands before the slash in `event_id` decides, so that a file that is added later moves no
shower from one side to another.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from muonflow.data import CARRIED, check, statistics
from muonflow.events import CONDITIONS, MUONS, Events
from muonflow.tables import about_of, events_of
from skyloom.data import Data
from skyloom.errors import ConfigError, DataError, MissingFile
from skyloom.run.seeds import numpy_generator

__all__ = ["LANES", "Shards", "StreamOrder", "find_files", "from_shards"]

LANES = 4  # streams of batches that share no row group within an epoch: up to so many workers read nothing twice
STATISTICS = 200_000  # events of the training split that scalers and marginal density are fitted on
SIDES = ("train", "val", "test")


def from_shards(
    path: str,
    shuffle: str = "interleave",
    window: int = 4,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    wait: float = 0.0,
    corrupt: str = "refuse",
    most_held_out: int | None = 200_000,
    rules: None = None,
) -> Data:
    """The Parquet files of a folder (see `muonflow.prepare`), never in memory as a whole.

    Args:
        path: folder, file or pattern
        shuffle: "none" reads in order; "interleave" mixes the rows of `window` row groups at a time, taken at random from all
            files; "full" permutes all rows, at the price of reading a row group for nearly every row
        window: row groups mixed at a time, by each of the streams
        fractions: of showers in training, validation and test
        wait: seconds to wait for a file that is still being written (it has no footer yet)
        corrupt: "refuse" a row group that cannot be read, or "skip" it with a warning
        most_held_out: events of validation and of test at most, the first ones; null takes all
        rules: what `muonflow.rules.check` said of the model before any data were read: nothing
    """
    if shuffle not in ("none", "interleave", "full"):
        raise ConfigError(f"data.shuffle={shuffle!r}: none, interleave or full is wanted.")
    if corrupt not in ("refuse", "skip"):
        raise ConfigError(f"data.corrupt={corrupt!r}: refuse or skip is wanted.")
    if window < 1 or wait < 0:
        raise ConfigError(f"data.window={window} must be positive and data.wait={wait} not negative.")
    files = find_files(path)
    index = Index.build(files, fractions, wait, corrupt == "skip")
    train, val, test = (Shards(index, side, shuffle, window) for side in range(3))
    val.most, test.most = most_held_out, most_held_out
    about_file = about_of(files[0])
    sample = train.first(STATISTICS)
    check(sample)
    about = {
        "synthetic": bool(about_file.get("synthetic", False)),
        "oracle": about_file.get("oracle"),
        **statistics(sample),
        "conditions": list(CONDITIONS),
        "muons": list(MUONS),
        "files": [file.name for file in files],
        "unreadable": index.unreadable,
        "fingerprint": index.fingerprint(fractions),
    }
    return Data(train, val, test, about, carry=CARRIED, group="shower")


def find_files(path: str) -> list[Path]:
    """Parquet files of a folder, of a pattern, or the one file, by name; hidden ones are still being written."""
    where = Path(path)
    if where.is_file():
        return [where]
    found = sorted(where.glob("**/*.parquet") if where.is_dir() else where.parent.glob(where.name))
    files = [file for file in found if not file.name.startswith(".")]
    if not files:
        raise MissingFile(f"{path} holds no Parquet files: make prepare pkg=muonflow writes some.")
    return files


def side_of(showers: Sequence[str], fractions: tuple[float, float, float]) -> np.ndarray:
    """0, 1 or 2 for each name, by a hash of it: the same in every file, process and run.

    >>> side_of(["a", "b", "a"], (0.5, 0.25, 0.25)).tolist()[::2]
    [0, 0]
    """
    edges = np.cumsum(fractions) / sum(fractions)
    unique, inverse = np.unique(np.asarray(showers, dtype=object), return_inverse=True)
    words = [int.from_bytes(hashlib.blake2b(str(name).encode(), digest_size=8).digest(), "big") for name in unique]
    return np.searchsorted(edges[:2], np.array(words, dtype=np.float64) / 2.0**64, side="right")[inverse]


@dataclass(frozen=True)
class Index:
    """Where the rows are. `rows[g, s]`: events of split `s` in row group `g`; `file[g]`, `number[g]`: where that group is."""

    files: list[Path]
    file: np.ndarray
    number: np.ndarray
    rows: np.ndarray
    fractions: tuple[float, float, float]
    skip: bool
    unreadable: list[str]

    @classmethod
    def build(cls, files: list[Path], fractions: tuple[float, float, float], wait: float, skip: bool) -> "Index":
        """Read the names of all events, and nothing else."""
        import pyarrow as pa

        where, counts, unreadable = [], [], []
        for k, path in enumerate(files):
            parquet = opened(path, wait)
            missing = {"event_id", "muons", *CONDITIONS} - set(parquet.schema_arrow.names)
            if missing:
                raise DataError(
                    f"{path} lacks the columns {', '.join(sorted(missing))}: convert it with make prepare pkg=muonflow input=…"
                )
            for group in range(parquet.num_row_groups):
                try:
                    sides = sides_of_group(parquet, group, fractions)
                except (pa.ArrowException, OSError) as error:
                    unreadable.append(_complaint(path, group, error, skip))
                    continue
                where.append((k, group))
                counts.append(np.bincount(sides, minlength=3))
        if not where:
            raise DataError(f"none of {len(files)} files holds a readable row group.")
        file, number = np.array(where).T
        return cls(files, file, number, np.array(counts), fractions, skip, unreadable)

    def fingerprint(self, fractions: Sequence[float]) -> str:
        """Of the file list, their sizes and rows: a run is resumed on the files that it remembers, or refused."""
        text = [(f.name, f.stat().st_size) for f in self.files]
        return hashlib.blake2b(repr((text, self.rows.tolist(), list(fractions))).encode(), digest_size=8).hexdigest()


def opened(path: Path, wait: float = 0.0) -> Any:
    """The file, once its footer is there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    until = time.monotonic() + wait
    while True:
        try:
            return pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            if time.monotonic() >= until:
                raise DataError(
                    f"{path} cannot be opened: {str(error).splitlines()[0]} If it is still being written, set "
                    "data.wait=<seconds>."
                ) from None
            time.sleep(min(0.5, wait))


def sides_of_group(parquet: Any, group: int, fractions: tuple[float, float, float]) -> np.ndarray:
    names = parquet.read_row_group(group, columns=["event_id"])["event_id"].to_pylist()
    return side_of([str(name).partition("/")[0] for name in names], fractions)


def _complaint(path: Path, group: int, error: Exception, skip: bool) -> str:
    import warnings

    text = f"{path}, row group {group}, cannot be read: {str(error).splitlines()[0]}"
    if not skip:
        raise DataError(f"{text} Mend or remove the file, or set data.corrupt=skip.") from None
    warnings.warn(f"{text} It is left out.", stacklevel=3)
    return f"{path.name}:{group}"


class Shards:
    """One split of many files, map-style: `len` and `__getitems__`; at most `held` row groups are in memory."""

    def __init__(self, index: Index, side: int, shuffle: str = "none", window: int = 4, most: int | None = None) -> None:
        self.index, self.side, self.shuffle, self.window, self.most = index, side, shuffle, window, most
        self.stop = np.cumsum(index.rows[:, side])
        self.start = self.stop - index.rows[:, side]
        self.held = (LANES + 1) * window  # every lane's window, and one that a lane is leaving
        self._cache: OrderedDict[int, Events] = OrderedDict()
        self.read: list[int] = []  # row groups in the order of reading

    def __len__(self) -> int:
        total = int(self.stop[-1])
        return total if self.most is None else min(total, self.most)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict(), "read": []}  # a worker reads for itself

    def order(self, rows: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, accumulate: int = 1) -> "StreamOrder":
        """What the training loop asks a data set that knows best in which order it is read."""
        return StreamOrder(self, rows, batch_size, seed, rank, world, accumulate)

    def group(self, number: int) -> Events:
        """The events of this split in a row group."""
        import pyarrow as pa

        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        path, group = self.index.files[self.index.file[number]], int(self.index.number[number])
        try:
            parquet = opened(path)
            table = parquet.read_row_group(group)
            names = [str(name).partition("/")[0] for name in table["event_id"].to_pylist()]
            mine = np.flatnonzero(side_of(names, self.index.fractions) == self.side)
            events = events_of(table, f"{path}, row group {group}").take(mine)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}, row group {group}, cannot be read: {str(error).splitlines()[0]}") from None
        events.columns["shower"] = torch.as_tensor([_number_of(names[k]) for k in mine.tolist()], dtype=torch.int64)
        self.read.append(number)
        self._cache[number] = events
        while len(self._cache) > self.held:
            self._cache.popitem(last=False)
        return events

    def __getitems__(self, rows: np.ndarray | Tensor) -> dict[str, Tensor]:
        return self.take(rows).__getitems__(np.arange(len(rows)))

    def take(self, rows: np.ndarray | Tensor) -> Events:
        """These events, in this order; each row group that they need is read once."""
        index = np.asarray(rows, dtype=np.int64)
        if not len(index):
            return self.group(int(np.flatnonzero(self.stop > self.start)[0])).take(index)
        groups = np.searchsorted(self.stop, index, side="right")
        needed = np.unique(groups)
        pieces = [self.group(int(g)).take(index[groups == g] - self.start[g]) for g in needed]
        order = np.concatenate([np.flatnonzero(groups == g) for g in needed])
        return Events.join(pieces).take(np.argsort(order))

    def first(self, most: int) -> Events:
        """The first events, at most so many."""
        return self.take(np.arange(min(most, len(self))))


def _number_of(shower: str) -> int:
    return int.from_bytes(hashlib.blake2b(shower.encode(), digest_size=7).digest(), "big")


class StreamOrder:
    """Which rows make which batch. Ranks and lanes get row groups of their own, so that no two of them read the same one.

    Batch `k` comes from lane `k % LANES`; within it rank `r` has the rows `r, r + world, …`, all from its own row groups. With
    as many workers as divide LANES each worker meets whole lanes only. (`full` permutes all rows; then every reader reads all.)
    """

    def __init__(self, shards: Shards, rows: int, batch_size: int, seed: int, rank: int, world: int, accumulate: int) -> None:
        from skyloom.training.order import Order

        self.plain = Order(rows, batch_size, seed, rank, world, accumulate)
        self.shards, self.rows, self.batch_size, self.seed, self.world = shards, rows, batch_size, seed, world
        self.each = batch_size // world  # rows of one rank in one batch
        groups = int((shards.stop > shards.start).sum())
        self.lanes = max(min(LANES, groups // (2 * world)), 1)
        self.alone = shards.shuffle != "full" and groups >= world  # whether readers share no row group
        self.batches = self._batches(0) if self.alone else self.plain.batches

    def parts(self, batch: np.ndarray) -> list[np.ndarray]:
        return self.plain.parts(batch)

    def epoch(self, epoch: int) -> np.ndarray:
        """[batches, batch_size] row numbers of a whole epoch."""
        if not self.alone:
            return self.plain.epoch(epoch)
        owned = self._owned(epoch)
        out = np.empty((self.batches, self.batch_size), dtype=np.int64)
        for rank in range(self.world):
            for lane in range(self.lanes):
                mine = out[lane :: self.lanes, rank :: self.world]
                rng = numpy_generator(self.seed, "stream", epoch, rank, lane)
                mine[:] = self._mixed(owned[rank][lane], rng)[: mine.size].reshape(mine.shape)
        return out

    def _owned(self, epoch: int) -> list[list[np.ndarray]]:
        """Row groups of each rank and lane, so dealt that all have nearly equally many rows; whole files where they suffice."""
        sizes = self.shards.stop - self.shards.start
        filled = np.flatnonzero(sizes > 0)
        if self.shards.shuffle != "none":
            filled = numpy_generator(self.seed, "groups", epoch).permutation(filled)
        readers = self.world * self.lanes
        by_file = self.shards.index.file[filled]
        dealt: list[list[int]] = [[] for _ in range(readers)]
        load = np.zeros(readers)
        # the largest first, each to the reader that has least: rows are few enough to deal anew in every epoch
        units = [filled[by_file == f] for f in dict.fromkeys(by_file.tolist())]
        if len(units) < 2 * readers:
            units = [np.array([g]) for g in filled]
        for unit in sorted(units, key=lambda u: -int(sizes[u].sum())):
            reader = int(load.argmin())
            dealt[reader] += unit.tolist()
            load[reader] += sizes[unit].sum()
        place = {g: k for k, g in enumerate(filled.tolist())}
        return [
            [
                np.array(sorted(dealt[r * self.lanes + lane], key=place.__getitem__), dtype=np.int64)
                for lane in range(self.lanes)
            ]
            for r in range(self.world)
        ]

    def _batches(self, epoch: int) -> int:
        """So many that the reader with fewest rows has enough for its share."""
        sizes = self.shards.stop - self.shards.start
        fewest = min(int(sizes[lane].sum()) for rank in self._owned(epoch) for lane in rank)
        return max(fewest // self.each, 1) * self.lanes

    def _mixed(self, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rows = [np.arange(self.shards.start[g], self.shards.stop[g]) for g in groups]
        if self.shards.shuffle == "none":
            return np.concatenate(rows)
        size = self.shards.window
        return np.concatenate([rng.permutation(np.concatenate(rows[k : k + size])) for k in range(0, len(rows), size)])
