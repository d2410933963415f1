"""Identifiers of objects: 64-bit integers or text from file to file, never floating point.

A float64 holds integers exactly only up to 2^53 = 9.0e15. At 2.7e18 (Euclid) neighbouring floats are 512 apart, at 4e16
(DESI) 8 apart: a cast changes 511 of 512 Euclid identifiers, and merges objects that are closer than that. The join then
fails quietly, or pairs different galaxies.
"""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from skyloom.errors import DataError

__all__ = ["NO_IDENTIFIER", "as_identifiers", "is_identifier_name", "null_mask", "spacing"]

NO_IDENTIFIER = int(np.iinfo(np.int64).min)
"""What a missing integer identifier becomes; FITS writes the same."""
EMPTY_FIBRE = 999999
"""DESI's TARGETID where there is no target; an ordinary number in a catalogue whose identifiers are small."""

NAMES = (
    "object_id", "object_ids", "objectid", "TARGETID", "target_id", "target_ids", "targetids", "id_euclid", "id_desi",
    "SpectrumID", "segmentation_map_id", "source_id", "objid", "specobjid", "id", "ids", "name", "names", "filename",
    "filenames",
)  # fmt: skip

_INTEGER = re.compile(r"[+-]?\d+")
_ROUNDED = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(\.\d*)?[eE][+-]?\d+)")


def is_identifier_name(name: str) -> bool:
    return name.lower() in {known.lower() for known in NAMES}


def spacing(value: float) -> float:
    """Distance between neighbouring float64 near `value`.

    >>> spacing(2.7e18), spacing(3.96e16)
    (512.0, 8.0)
    """
    return float(np.spacing(np.float64(abs(value))))


def as_identifiers(values: Any, where: str) -> np.ndarray:
    """`values` [N] as int64, or as text where they are not whole numbers; floating point is refused.

    Text that spells whole numbers becomes int64; missing entries become the smallest int64, or "" among text.

    >>> as_identifiers(["2700000000000000001", "17"], "cat.csv, column object_id").dtype
    dtype('int64')
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{where}: identifiers must be one column, not an array of shape {array.shape}.")
    if array.dtype.kind == "f":
        finite = np.abs(array[np.isfinite(array)])
        largest = float(finite.max()) if len(finite) else 0.0
        raise DataError(
            f"{where}: identifiers are stored as {array.dtype}; near {largest:.4g} floating point cannot tell objects "
            f"closer than {spacing(largest):g} apart, so they have been damaged already. Write them as int64 or text at "
            "their source; casting them back does not help."
        )
    if array.dtype.kind in "iu":
        if array.dtype.kind == "u" and len(array) and int(array.max()) > np.iinfo(np.int64).max:
            raise DataError(f"{where}: identifier {int(array.max())} does not fit into 64 signed bits; give it as text.")
        return array.astype(np.int64)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    return _from_text(array.tolist(), where)


def _from_text(values: Iterable[Any], where: str) -> np.ndarray:
    words: list[str] = []
    for row, value in enumerate(values):
        if (isinstance(value, float) and value != value) or value is None:
            words.append("")
        elif isinstance(value, float):
            raise DataError(f"{where}, row {row}: identifier {value!r} is floating point; give it as an integer or as text.")
        else:
            words.append(str(value).strip())
    filled = [word for word in words if word]
    if filled and all(_INTEGER.fullmatch(word) for word in filled):
        try:
            return np.array([int(word) if word else NO_IDENTIFIER for word in words], dtype=np.int64)
        except OverflowError:
            return np.array(words, dtype=str)
    rounded = next((word for word in filled if _ROUNDED.fullmatch(word)), None)
    if rounded is not None:
        raise DataError(
            f"{where}: {rounded!r} is an identifier that went through floating point; write integers or text at the source."
        )
    return np.array(words, dtype=str)


def null_mask(ids: np.ndarray) -> np.ndarray:
    """[N] bool: entries that name no object."""
    if ids.dtype.kind != "i":
        return ids == ""
    null = (ids == NO_IDENTIFIER) | (ids == -1)
    if len(ids) and int(ids.max()) > 10**12:
        null |= ids == EMPTY_FIBRE
    return null
