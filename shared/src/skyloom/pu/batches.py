"""Batches that hold a fixed number of labelled rows: a pure function of (seed, epoch), like `skyloom.training.order`.

At a prior of 1e-3 a random batch of 256 holds no labelled row 77 times in 100; such a step knows no positive. Here P and U are
shuffled independently of each other, every batch takes so many of each, and so does every process and every accumulated part.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from skyloom.data import Batch
from skyloom.errors import ConfigError, DataError
from skyloom.run.seeds import numpy_generator
from skyloom.training.loading import fetch

__all__ = ["Balanced", "BalancedOrder"]


@dataclass(frozen=True)
class BalancedOrder:
    """Batches of `positives` labelled and `batch_size - positives` unlabeled rows over all processes together.

    An epoch goes once through the unlabeled (the last incomplete batch is left out) and as often as needed through the
    labelled, in a fresh shuffle each time, so that within an epoch no labelled row is used twice more often than another.

    >>> order = BalancedOrder(labelled=np.arange(10) < 3, batch_size=4, positives=2, seed=0)
    >>> order.batches, bool((order.epoch(0) < 3).sum(1).tolist() == [2, 2, 2])
    (3, True)
    """

    labelled: np.ndarray
    batch_size: int
    positives: int
    seed: int
    rank: int = 0
    world: int = 1
    accumulate: int = 1

    def __post_init__(self) -> None:
        parts = self.world * self.accumulate
        if not 0 < self.positives < self.batch_size or self.positives % parts or self.batch_size % parts:
            nearest = min(max(round(self.positives / parts), 1) * parts, self.batch_size - parts)
            raise ConfigError(
                f"{self.positives} labelled rows in a batch of {self.batch_size} cannot be shared out evenly to "
                f"devices x accumulate = {self.world} x {self.accumulate} parts; both must be multiples of {parts}, "
                f"and each part hold labelled and unlabeled rows. Nearest: {nearest}."
            )
        count, rest = int(self.labelled.sum()), int((~self.labelled).sum())
        if count == 0 or rest < self.batch_size - self.positives:
            raise DataError(
                f"{count} labelled and {rest} unlabeled rows do not fill one batch of {self.positives} labelled and "
                f"{self.batch_size - self.positives} unlabeled rows: give more data or smaller batches."
            )

    @cached_property
    def _members(self) -> tuple[np.ndarray, np.ndarray]:
        return np.flatnonzero(self.labelled), np.flatnonzero(~self.labelled)

    @property
    def batches(self) -> int:
        return int((~self.labelled).sum()) // (self.batch_size - self.positives)

    def epoch(self, epoch: int) -> np.ndarray:
        """[batches, batch_size] row numbers of a whole epoch."""
        p, u = self._members
        rest = self.batch_size - self.positives
        unlabeled = numpy_generator(self.seed, "order of unlabeled", epoch).permutation(u)[: self.batches * rest]
        cycles = -(-self.batches * self.positives // len(p))
        shuffles = [numpy_generator(self.seed, "order of labelled", epoch, k).permutation(p) for k in range(cycles)]
        labelled = np.concatenate(shuffles)[: self.batches * self.positives]
        parts = self.accumulate, self.world  # rows r, r + world, … go to process r and are cut into `accumulate` pieces
        mine = labelled.reshape(self.batches, parts[0], -1, parts[1])
        others = unlabeled.reshape(self.batches, parts[0], -1, parts[1])
        return np.concatenate([mine, others], axis=2).reshape(self.batches, self.batch_size)

    def parts(self, batch: np.ndarray) -> list[np.ndarray]:
        """This process' micro-batches of a batch, each with its share of labelled rows."""
        return np.split(batch[self.rank :: self.world], self.accumulate)


class Balanced:
    """A map-style data set whose training batches hold the share `positives` of labelled rows.

    The loop asks a training split for its `order`; this one answers with a `BalancedOrder`.

        Data(train=Balanced(rows, labelled=rows["labelled"], positives=0.25), …)
    """

    def __init__(self, rows: Any, labelled: np.ndarray | Tensor, positives: float = 0.25):
        if not 0 < positives < 1:
            raise ConfigError(f"the share of labelled rows in a batch lies in (0, 1), not at {positives}.")
        self.rows, self.positives = rows, positives
        self.labelled = np.asarray(labelled) > 0.5
        if len(self.labelled) != len(rows):
            raise DataError(f"{len(self.labelled)} labels for {len(rows)} rows.")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Any:
        return self.rows[key]

    def __getitems__(self, rows: np.ndarray) -> Batch:
        return fetch(self.rows, rows)

    def order(self, rows: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, accumulate: int = 1) -> BalancedOrder:
        """The nearest count of labelled rows to the share that every process and part can have alike."""
        parts = world * accumulate
        count = min(max(round(self.positives * batch_size / parts), 1) * parts, batch_size - parts)
        return BalancedOrder(self.labelled, batch_size, count, seed, rank, world, accumulate)
