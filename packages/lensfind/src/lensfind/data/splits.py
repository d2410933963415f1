"""Which rows train, validate and test: groups stay together, strata keep their shares, and a row keeps its side.

>>> import pandas as pd
>>> table = pd.DataFrame({"object_id": list("abcd"), "ra": [10.0, 10.0008, 50.0, 90.0], "dec": [0.0, 0.0, 0.0, 0.0]})
>>> groups(table).tolist()                  # b lies 2.9 arcsec from a
['a', 'a', 'c', 'd']
"""

import hashlib
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from lensfind.data.manifest import known
from skyloom.errors import DataError

__all__ = ["SPLITS", "assign_splits", "balance", "groups", "sky_pairs", "strata"]

SPLITS = ("train", "val", "test")
SKY_RADIUS = 5.0  # arcsec
SEEING_EDGES = (0.8, 1.2)  # arcsec: good, median, poor


def unit_vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """[N, 3] from degrees."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def chord(arcsec: float) -> float:
    """Length of the chord under an angle: what a tree of unit vectors measures."""
    return 2 * float(np.sin(np.radians(arcsec / 3600) / 2))


def sky_pairs(ra: np.ndarray, dec: np.ndarray, radius: float = SKY_RADIUS) -> np.ndarray:
    """[pairs, 2] rows that lie within `radius` arcsec of one another; positions that are not known pair with nothing."""
    rows = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if len(rows) < 2:
        return np.zeros((0, 2), dtype=int)
    pairs = cKDTree(unit_vectors(ra[rows], dec[rows])).query_pairs(chord(radius), output_type="ndarray")
    return rows[pairs].reshape(-1, 2)


def groups(table: pd.DataFrame, radius: float = SKY_RADIUS) -> np.ndarray:
    """[N] names of groups: rows that share an object, a `group_id`, a `seed`, or a patch of sky, and chains of these.

    A group is named after its alphabetically first object, so that names do not depend on the order of rows.
    """
    count = len(table)
    links = []
    if {"ra", "dec"} <= set(table.columns):
        ra, dec = (pd.to_numeric(table[name], errors="coerce").to_numpy(float, na_value=np.nan) for name in ("ra", "dec"))
        links.append(sky_pairs(ra, dec, radius))
    for name in ("object_id", "group_id", "seed"):
        if name not in table:
            continue
        rows = np.flatnonzero(known(table[name]))
        codes = pd.factorize(table[name].iloc[rows])[0]
        order = np.argsort(codes, kind="stable")
        same = np.flatnonzero(np.diff(codes[order]) == 0)
        links.append(np.stack([rows[order[same]], rows[order[same + 1]]], axis=1))
    pairs = np.concatenate(links) if links else np.zeros((0, 2), dtype=int)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    component = connected_components(graph, directed=False)[1]
    names = table["object_id"].astype(str).to_numpy()
    order = np.lexsort((names, component))
    first = np.unique(component[order], return_index=True)[1]
    return names[order][first][component]


def strata(table: pd.DataFrame, smallest: int = 10) -> np.ndarray:
    """[N] label, survey and seeing bin as one text; strata with fewer than `smallest` rows are merged: first over seeing, then
    over surveys, so that a singleton never stops a split."""
    label = table["label"].astype(int).astype(str).to_numpy(dtype=object)
    survey = (table["survey"].astype(str) if "survey" in table else pd.Series([""] * len(table))).to_numpy(dtype=object)
    seeing = np.full(len(table), "", dtype=object)
    if "seeing" in table:
        value = pd.to_numeric(table["seeing"], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        seeing = np.where(np.isnan(value), "?", np.digitize(value, SEEING_EDGES).astype(str)).astype(object)
    key = label + "|" + survey + "|" + seeing
    for coarser in (label + "|" + survey + "|*", label + "|*|*"):
        _, inverse, counts = np.unique(key.astype(str), return_inverse=True, return_counts=True)
        key = np.where(counts[inverse] < smallest, coarser, key)
    return key.astype(str)


def _hash(name: str, seed: int) -> float:
    """Uniform on [0, 1), from the name of a group."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{name}".encode()).digest()[:7], "big") / 2**56


def assign_splits(
    table: pd.DataFrame, fractions: tuple[float, float, float] = (0.7, 0.15, 0.15), seed: int = 42, radius: float = SKY_RADIUS
) -> pd.DataFrame:
    """The table with `sky_group_id` and `split`. Rows that have a split keep it, and their whole group follows them.

    Within each stratum groups are ordered by a hash of their name and cut at `fractions`: new rows move only what lies beside a
    cut, and nothing that was assigned before.
    """
    if abs(sum(fractions) - 1) > 1e-9 or min(fractions) < 0:
        raise DataError(f"split fractions must not be negative and sum to 1, not {fractions}.")
    table = table.reset_index(drop=True).copy()
    group = groups(table, radius)
    given = (
        table["split"].where(known(table["split"]), "").to_numpy(dtype=object)
        if "split" in table
        else np.full(len(table), "", object)
    )
    settled: dict[str, str] = {}
    for name, side in zip(group, given, strict=True):
        if side and settled.setdefault(name, side) != side:
            raise DataError(
                f"group {name!r} stands in {settled[name]!r} and in {side!r}: rows of one object or 5 arcsec of sky."
            )
    names = np.unique(group)
    sizes = pd.Series(group).value_counts()
    stratum = pd.Series(strata(table)).groupby(group).max()  # the label 1 of a group outranks its 0
    place = {name: _hash(name, seed) for name in names}
    for _, members in pd.Series(names).groupby(stratum[names].to_numpy()):
        free = sorted((name for name in members if name not in settled), key=place.__getitem__)
        weight = np.array([sizes[name] for name in free], dtype=float)
        middle = (np.cumsum(weight) - weight / 2) / max(weight.sum(), 1)
        sides = np.searchsorted(np.cumsum(fractions)[:2], middle, side="right")
        settled |= {name: SPLITS[side] for name, side in zip(free, sides, strict=True)}
    table["sky_group_id"] = group
    table["split"] = [settled[name] for name in group]
    return table


def balance(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Per split: rows, the share of lenses, of each survey, and means of seeing, PSF, pixel scale, magnitude and redshift."""
    found: dict[str, dict[str, float]] = {}
    for split in SPLITS:
        rows = table[table["split"] == split]
        figures: dict[str, Any] = {
            "rows": len(rows),
            "lenses": float((rows["label"] == 1).mean()) if len(rows) else float("nan"),
        }
        for name in ("seeing", "psf_fwhm", "pixel_scale", "magnitude", "z_spec"):
            if name in rows:
                figures[name] = float(pd.to_numeric(rows[name], errors="coerce").mean())
        if "survey" in rows:
            figures |= {
                f"survey {name}": float(share) for name, share in rows["survey"].value_counts(normalize=True).items() if name
            }
        found[split] = figures
    return found
