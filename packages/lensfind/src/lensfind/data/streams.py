"""Streams over a data set larger than memory: by rank and worker, shuffled by a seed, resumable, skipping what is corrupt."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from lensfind.data.storage import Store
from skyloom.data import Batch
from skyloom.errors import DataError
from skyloom.run.seeds import numpy_generator
from skyloom.training.progress import said

__all__ = ["Stream", "stream_order"]


def stream_order(
    parts: list[np.ndarray], seed: int, epoch: int, consumer: int = 0, consumers: int = 1, window: int = 0
) -> np.ndarray:
    """Rows that one consumer (a worker of a rank) reads in an epoch: a pure function of its arguments.

    Files are shuffled and dealt out to consumers; within those of one consumer a row moves by at most `window` places, so that
    reading stays sequential. `window` 0 is the order on disk.

    >>> parts = [np.arange(0, 4), np.arange(4, 8), np.arange(8, 12)]
    >>> sorted(np.concatenate([stream_order(parts, 1, 0, k, 2, window=6) for k in range(2)]).tolist()) == list(range(12))
    True
    """
    order = np.arange(len(parts))
    if window:
        order = numpy_generator(seed, "parts", epoch).permutation(len(parts))
    mine = [parts[k] for k in order[consumer::consumers]]
    rows = np.concatenate(mine) if mine else np.zeros(0, dtype=int)
    if not window:
        return rows
    jitter = numpy_generator(seed, "rows", epoch, consumer, consumers).random(len(rows)) * window
    return rows[np.argsort(np.arange(len(rows)) + jitter, kind="stable")]


@dataclass
class Stream(IterableDataset):
    """Batches of one epoch of a store, for `DataLoader(stream, batch_size=None, num_workers=w)`.

    Each file of the store is read by one worker of one rank. `begin` batches of this rank are left out, those it had before it
    was interrupted: order is computed and not read, so that resuming costs nothing. Memory holds one batch per worker.
    A corrupt record is reported and skipped; more than `corrupt_limit` (share of a worker's records) is an error.
    """

    store: Store
    batch_size: int
    rows: np.ndarray | None = None  # of the manifest; by default all
    seed: int = 0
    epoch: int = 0
    rank: int = 0
    world: int = 1
    window: int = 4096
    begin: int = 0
    corrupt_limit: float = 0.01
    skipped: list[int] = field(default_factory=list)
    """Rows that this process skipped; workers report theirs on standard error."""

    def _parts(self) -> list[np.ndarray]:
        if self.rows is None:
            return self.store.parts()
        chosen = np.zeros(len(self.store), dtype=bool)
        chosen[self.rows] = True
        return [part[chosen[part]] for part in self.store.parts() if chosen[part].any()]

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        parts = self._parts()
        consumers = self.world * workers
        if len(parts) < consumers and self.window:
            raise DataError(
                f"{self.store.directory} has {len(parts)} files for {self.world} ranks x {workers} workers, and some would get "
                f"nothing: take fewer workers, or prepare with rows_per_part={max(1, len(self.store) // consumers)}."
            )
        orders = [
            stream_order(parts, self.seed, self.epoch, self.rank * workers + k, consumers, self.window) for k in range(workers)
        ]
        had, turn = _had([-(-len(order) // self.batch_size) for order in orders], self.begin)
        mine = (worker + turn) % workers  # the loader asks worker 0 first: it goes on where the turn had come to
        order = orders[mine]
        for start in range(had[mine] * self.batch_size, len(order), self.batch_size):
            batch = self._batch(order[start : start + self.batch_size], len(order))
            if batch is not None:
                yield batch

    def _batch(self, rows: np.ndarray, total: int) -> Batch | None:
        intact, images = [], []
        for row in rows.tolist():
            try:
                images.append(self.store.record(row))
                intact.append(row)
            except DataError as error:
                self._skip(row, str(error), total)
        if not intact:
            return None
        label = self.store.table["label"].to_numpy(dtype=np.int64)[intact]
        batch = {"image": torch.from_numpy(np.stack(images)), "label": torch.from_numpy(label)}
        return {**batch, "row": torch.tensor(intact)}

    def _skip(self, row: int, message: str, total: int) -> None:
        self.skipped.append(row)
        if len(self.skipped) > self.corrupt_limit * total:
            raise DataError(
                f"{len(self.skipped)} of {total} records are corrupt, more than corrupt_limit={self.corrupt_limit:g} allows. "
                f"The last: {message}"
            )
        said(f"skipped a corrupt record: {message}")


def _had(batches: list[int], begin: int) -> tuple[list[int], int]:
    """Batches that each worker had given when `begin` were consumed, and whose turn it was: they take turns, one that is
    through is passed over.

    >>> _had([3, 1, 3], 5)
    ([2, 1, 2], 0)
    """
    had, turn = [0] * len(batches), 0
    for _ in range(min(begin, sum(batches))):
        while had[turn] == batches[turn]:
            turn = (turn + 1) % len(batches)
        had[turn] += 1
        turn = (turn + 1) % len(batches)
    return had, turn
