"""Which rows make which batch: a pure function of (seed, epoch), so that a position is one integer.

Workers and processes hold no state: worker count cannot matter, and a resumed epoch goes on with exactly the batches it lacked.
"""

from dataclasses import dataclass

import numpy as np

from skyloom.errors import ConfigError, DataError
from skyloom.run.seeds import numpy_generator

__all__ = ["Order"]


@dataclass(frozen=True)
class Order:
    """Batches of `batch_size` rows over all processes together; the last incomplete one of an epoch is left out.

    >>> order = Order(rows=10, batch_size=4, seed=0)
    >>> order.batches, order.epoch(0).shape, bool((order.epoch(0) != order.epoch(1)).any())
    (2, (2, 4), True)
    """

    rows: int
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1
    accumulate: int = 1

    def __post_init__(self) -> None:
        if self.rows < self.batch_size:
            raise DataError(
                f"the training split has {self.rows} rows, fewer than one batch of {self.batch_size}: "
                f"set trainer.batch_size={max(self.rows // 2, 1)} or less, or give more data."
            )
        parts = self.world * self.accumulate
        if self.batch_size % parts:
            raise ConfigError(
                f"trainer.batch_size={self.batch_size} is the batch of one optimizer step over all processes; it must be "
                f"divisible by devices x accumulate = {self.world} x {self.accumulate}. "
                f"Nearest: {max(self.batch_size // parts, 1) * parts}."
            )

    @property
    def batches(self) -> int:
        return self.rows // self.batch_size

    def epoch(self, epoch: int) -> np.ndarray:
        """[batches, batch_size] row numbers of a whole epoch."""
        permutation = numpy_generator(self.seed, "order", epoch).permutation(self.rows)
        return permutation[: self.batches * self.batch_size].reshape(self.batches, self.batch_size)

    def parts(self, batch: np.ndarray) -> list[np.ndarray]:
        """This process' micro-batches of a batch: rank r takes rows r, r + world, …, cut into `accumulate` pieces."""
        return np.split(batch[self.rank :: self.world], self.accumulate)
