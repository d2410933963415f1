"""Which axis of a file's array is which: inferred where only one reading is possible, refused where two are.

An order is a word of letters: n sample, c component (x, y, z, t), s neutrino or antineutrino, f flavor, a the six species
(nue, numu, nutau, nuebar, numubar, nutaubar). Published databases are `ncsf`; files written by column-major languages come
out reversed.
"""

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from skyloom.errors import DataError

__all__ = ["axis_order", "canonical", "feature_axis"]

_SIZES = {"c": 4, "s": 2, "f": 3, "a": 6}
_KINDS = {"fourflux": ("ncsf", "nca"), "states": ("csf",)}


def axis_order(shape: Sequence[int], where: str, layout: str | None = None) -> str:
    """The order of a four-flux array's axes, from its shape alone or as `layout` says.

    >>> axis_order((100, 4, 2, 3), "a file"), axis_order((4, 6, 100), "a file")
    ('ncsf', 'can')
    >>> axis_order((4, 4, 2, 3), "a file", layout="ncsf")
    'ncsf'
    """
    shape = tuple(shape)
    words = [word for word in _KINDS["fourflux"] if len(word) == len(shape)]
    readings = {order for word in words for order in map("".join, permutations(word)) if _fits(order, shape)}
    if layout is not None:
        if sorted(layout) not in [sorted(word) for word in words] or not _fits(layout, shape):
            raise DataError(
                f"{where}: layout={layout} does not fit the shape {shape}; its letters are n (sample), c (x, y, z, t), "
                "s (nu, nubar) and f (e, mu, tau), or a (six species) for the last two."
            )
        return layout
    if not readings:
        raise DataError(
            f"{where} has shape {shape}; four-fluxes are (N, 4, 2, 3) = (state, xyzt, nu/nubar, flavor) or (N, 6, 4), in any "
            "order of axes."
        )
    if len(readings) > 1:
        raise DataError(
            f"{where} has shape {shape}, which can be read as {' or '.join(sorted(readings))}: say layout=<one of them> "
            "(n sample, c component, s nu/nubar, f flavor, a species)."
        )
    return readings.pop()


def _fits(order: str, shape: tuple[int, ...]) -> bool:
    return all(_SIZES.get(letter, size) == size for letter, size in zip(order, shape, strict=True))


def canonical(array: np.ndarray, order: str) -> np.ndarray:
    """[N, 2, 3, 4] float64 from an array whose axes are `order`."""
    target = "nac" if "a" in order else "nsfc"
    turned = np.transpose(np.asarray(array, dtype=np.float64), [order.index(letter) for letter in target])
    return np.ascontiguousarray(turned).reshape(len(turned), 2, 3, 4)


def feature_axis(shape: Sequence[int], width: int, where: str) -> int:
    """Which of two axes holds the `width` features of a row."""
    found = [axis for axis, size in enumerate(shape) if size == width]
    if len(shape) != 2 or len(found) != 1:
        why = "both axes have that length" if len(found) == 2 else "no axis has that length"
        raise DataError(f"{where} has shape {tuple(shape)} where (N, {width}) is expected; {why}.")
    return found[0]
