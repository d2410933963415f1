"""Positions on the sky: which of two lists are the same object, and which rows of one list are."""

import numpy as np
from scipy.spatial import cKDTree

__all__ = ["groups_on_sky", "match", "separation"]

_ARCSEC = np.pi / 180 / 3600


def _vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    a, d = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def _chord(arcsec: float) -> float:
    return 2 * np.sin(arcsec * _ARCSEC / 2)


def separation(ra1: np.ndarray, dec1: np.ndarray, ra2: np.ndarray, dec2: np.ndarray) -> np.ndarray:
    """Angles in arcsec between positions in degrees, exact also for the smallest.

    >>> round(float(separation(359.9999, 0.0, 0.0001, 0.0)), 6)
    0.72
    """
    chord = np.linalg.norm(_vectors(ra1, dec1) - _vectors(ra2, dec2), axis=-1)
    return 2 * np.arcsin(np.clip(chord / 2, 0, 1)) / _ARCSEC


def match(
    ra: np.ndarray, dec: np.ndarray, of_ra: np.ndarray, of_dec: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """For each position the row of the nearest of a list within `radius` arcsec, else -1, and how far it is (NaN)."""
    n = len(np.atleast_1d(ra))
    index, away = np.full(n, -1), np.full(n, np.nan)
    there = np.isfinite(np.asarray(ra, float)) & np.isfinite(np.asarray(dec, float))
    if len(of_ra) and there.any():
        distance, nearest = cKDTree(_vectors(of_ra, of_dec)).query(_vectors(np.asarray(ra)[there], np.asarray(dec)[there]))
        close = distance <= _chord(radius)
        index[there] = np.where(close, nearest, -1)
        away[there] = np.where(close, 2 * np.arcsin(np.clip(distance / 2, 0, 1)) / _ARCSEC, np.nan)
    return index, away


def groups_on_sky(ra: np.ndarray, dec: np.ndarray, radius: float) -> np.ndarray:
    """[N] a number per object: rows linked by steps of at most `radius` arcsec share it. Rows without position stay alone."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ra, dec = np.asarray(ra, float), np.asarray(dec, float)
    there = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    pairs = np.empty((0, 2), dtype=int)
    if len(there):
        pairs = there[cKDTree(_vectors(ra[there], dec[there])).query_pairs(_chord(radius), output_type="ndarray")]
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(ra), len(ra)))
    return connected_components(links, directed=False)[1]
