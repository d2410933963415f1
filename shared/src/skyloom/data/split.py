"""Splits by group: no cluster, simulation or sky position stands on two sides."""

from collections.abc import Sequence

import numpy as np

from skyloom.errors import DataError
from skyloom.run.seeds import numpy_generator

__all__ = ["group_split"]


def group_split(
    groups: Sequence | np.ndarray, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row indices of train, validation and test; fractions count groups, not rows.

    >>> train, val, test = group_split(np.repeat(np.arange(10), 3), seed=1)
    >>> len(train), len(val), len(test)
    (24, 3, 3)
    """
    names, group_of_row = np.unique(np.asarray(groups), return_inverse=True)
    if abs(sum(fractions) - 1) > 1e-9 or min(fractions) <= 0:
        raise DataError(f"split fractions must be positive and sum to 1, not {fractions}.")
    counts = np.floor(np.array(fractions) * len(names) + 0.5).astype(int)
    counts[1:] = np.maximum(counts[1:], 1)
    counts[0] = len(names) - counts[1] - counts[2]
    if counts[0] < 1:
        raise DataError(f"{len(names)} groups cannot be split into train, validation and test; at least 3 are needed.")
    order = numpy_generator(seed, "group split").permutation(len(names))
    side = np.empty(len(names), dtype=int)
    side[order] = np.repeat([0, 1, 2], counts)
    sides = side[group_of_row]
    train, val, test = (np.flatnonzero(sides == k) for k in range(3))
    return train, val, test
