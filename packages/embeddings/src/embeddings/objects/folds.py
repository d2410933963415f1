"""Groups of objects that belong together on the sky, and folds that never cut through a group."""

import numpy as np

from skyloom.errors import DataError
from skyloom.run.seeds import numpy_generator

__all__ = ["grouped_folds", "sky_cells"]


def sky_cells(ra: np.ndarray, dec: np.ndarray, size: float = 0.5) -> np.ndarray:
    """[N] int64: the cell of each position. Cells are `size` high and, to a good part, `size` wide on the sky.

    Neighbours share a field, its depth, its seeing and its calibration; objects of one cell are therefore kept together.

    Arguments:
        ra, dec: [N] degrees.
        size: Side of a cell [deg].
    """
    band = np.floor((np.asarray(dec) + 90.0) / size).astype(np.int64)
    middle = np.deg2rad((band + 0.5) * size - 90.0)
    around = np.maximum(np.floor(360.0 * np.cos(middle) / size), 1).astype(np.int64)  # cells in this band
    column = np.floor(np.mod(ra, 360.0) / 360.0 * around).astype(np.int64)
    return band * (int(360.0 / size) + 2) + column


def grouped_folds(groups: np.ndarray, folds: int = 5, seed: int = 0) -> np.ndarray:
    """[N] fold of each row, 0 ... folds-1. A function of the group's label and the seed, not of the order of rows.

    Large groups are placed first, each into the fold that has fewest rows so far; the seed breaks ties.

    >>> fold = grouped_folds(np.array([7, 7, 7, 8, 9, 9]), folds=3)
    >>> len(set(fold[:3])), np.bincount(fold).tolist() == sorted(np.bincount(fold), reverse=True)
    (1, True)
    """
    names, group_of_row, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if folds < 3:
        raise DataError(f"folds={folds}: at least 3 are needed, one to score, one to choose the penalty and one to fit.")
    if len(names) < folds:
        raise DataError(f"{len(names)} groups cannot fill {folds} folds: use smaller sky cells or fewer folds.")
    order = numpy_generator(seed, "folds").permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of_group = np.empty(len(names), dtype=np.int64)
    filled = np.zeros(folds, dtype=np.int64)
    for group in order:
        fold_of_group[group] = filled.argmin()
        filled[filled.argmin()] += sizes[group]
    return fold_of_group[group_of_row]
