"""Known lenses of the sky: cross-match with a stated radius, and list every hit.

So that no known lens sits among the unlabeled, and none under an injected arc. The catalogue is lenscat's (Vujeva et al. 2024,
arXiv:2406.04398; MIT): 32,838 rows in version 1.1.3, a few of which are one lens under two names.
"""

import importlib.metadata
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from lensfind.data.splits import chord, sky_pairs, unit_vectors
from skyloom.errors import DataError, MissingFile

__all__ = ["RADIUS", "hits", "mark_known", "read_lenscat", "unique_lenses"]

RADIUS = 5.0  # arcsec: an exclusion of 2 arcsec missed lenses whose catalogued position is that of an image
_COLUMNS = {
    "name": "name",
    "RA [deg]": "ra",
    "DEC [deg]": "dec",
    "zlens": "zlens",
    "type": "type",
    "grading": "grading",
    "ref": "ref",
}
_GRADES = ("confident", "probable")


def _installed() -> Path:
    """The catalogue of the installed lenscat, without importing it (and ligo.skymap with it)."""
    try:
        files = importlib.metadata.files("lenscat") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "catalog.csv":
            return Path(str(file.locate()))
    raise MissingFile(
        "lenscat is not installed: give the path of its catalog.csv, or `pip install 'skyloom-lensfind[catalogues]'`."
    )


def read_lenscat(path: str | Path | None = None) -> pd.DataFrame:
    """name, ra, dec (degrees), z_lens (NaN where it is not known), type (galaxy, group, cluster), grading, ref.

    From a catalog.csv, or from the installed package. zlens says '-', 'measured' or 'not measured' where it has no number.
    """
    path = _installed() if path is None or str(path) == "lenscat" else Path(path)
    if not path.is_file():
        raise MissingFile(f"there is no catalogue {path}.")
    raw = pd.read_csv(path)
    missing = [name for name in _COLUMNS if name not in raw]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}; lenscat has {', '.join(_COLUMNS)}.")
    table = raw[list(_COLUMNS)].rename(columns=_COLUMNS)
    for row in np.flatnonzero(~table["ra"].between(0, 360) | ~table["dec"].between(-90, 90)):
        at = (table["ra"].iloc[row], table["dec"].iloc[row])
        raise DataError(f"{path}, row {row} ({table['name'].iloc[row]}): {at} is no position.")
    unknown = sorted(set(table["grading"]) - set(_GRADES))
    if unknown:
        raise DataError(f"{path}: grading {unknown[0]!r} is not known; {' or '.join(_GRADES)}.")
    table["z_lens"] = pd.to_numeric(table["zlens"], errors="coerce")
    return table


def unique_lenses(catalogue: pd.DataFrame, radius: float = RADIUS) -> pd.DataFrame:
    """One row per lens: rows within `radius` arcsec of one another are one, under the best grade and the first name.

    `names` lists all of them, `rows` their numbers in the catalogue.
    """
    pairs = sky_pairs(catalogue["ra"].to_numpy(), catalogue["dec"].to_numpy(), radius)
    count = len(catalogue)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    lens = connected_components(graph, directed=False)[1]
    rank = catalogue["grading"].map({grade: k for k, grade in enumerate(_GRADES)}).to_numpy()
    order = np.lexsort((np.arange(count), rank, lens))
    first = order[np.unique(lens[order], return_index=True)[1]]
    members = pd.Series(np.arange(count)).groupby(lens).apply(list)
    found = catalogue.iloc[first].reset_index(drop=True)
    names = catalogue["name"].astype(str).to_numpy()
    found["names"] = ["; ".join(dict.fromkeys(names[rows])) for rows in members]
    found["rows"] = members.to_numpy()
    return found


def hits(table: pd.DataFrame, catalogue: pd.DataFrame, radius: float = RADIUS) -> pd.DataFrame:
    """Every pair of a row and a catalogue entry within `radius` arcsec: row, object_id, name, separation, grading, type, ref.

    Nearest first for each row. Rows without a position match nothing.
    """
    if not radius > 0:
        raise DataError(f"the match radius is {radius} arcsec; it must be above 0.")
    for name in ("ra", "dec"):
        if name not in table:
            raise DataError("rows need ra and dec (degrees) to be compared with known lenses.")
    ra, dec = (pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan) for name in ("ra", "dec"))
    placed = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    ours = unit_vectors(ra[placed], dec[placed])
    theirs = unit_vectors(catalogue["ra"].to_numpy(), catalogue["dec"].to_numpy())
    near = cKDTree(theirs).query_ball_point(ours, chord(radius)) if len(placed) else []
    rows, entries = [], []
    for place, found in zip(placed, near, strict=True):
        rows += [place] * len(found)
        entries += found
    matched = catalogue.iloc[entries].reset_index(drop=True)
    angle = np.zeros(0)
    if rows:
        where = np.searchsorted(placed, rows)
        angle = 2 * np.degrees(np.arcsin(np.linalg.norm(ours[where] - theirs[entries], axis=1) / 2)) * 3600
    listed = pd.DataFrame({
        "row": np.array(rows, dtype=int), "object_id": table["object_id"].to_numpy()[rows] if rows else [],
        "name": matched["name"], "separation": angle,
        **{name: matched[name] for name in ("grading", "type", "ref")},
    })  # fmt: skip
    return listed.sort_values(["row", "separation"], kind="stable").reset_index(drop=True)


def mark_known(
    table: pd.DataFrame, catalogue: pd.DataFrame, radius: float = RADIUS, promote: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table with `known_lens` (the nearest name) and `known_grade`, and the list of all hits.

    With `promote`, an unlabeled row on a confident lens becomes a lens (source obs:lenscat). A row that is labelled as no lens
    and lies on a confident one is an error: one of the two is wrong.
    """
    listed = hits(table, catalogue, radius)
    nearest_hit = listed.drop_duplicates("row").set_index("row")
    marked = table.reset_index(drop=True).copy()
    marked["known_lens"] = nearest_hit["name"].reindex(range(len(table))).fillna("").to_numpy()
    marked["known_grade"] = nearest_hit["grading"].reindex(range(len(table))).fillna("").to_numpy()
    sure = (marked["known_grade"] == "confident").to_numpy()
    label = marked["label"].to_numpy()
    for row in np.flatnonzero(sure & (label == 0)):
        raise DataError(
            f"row {row} ({marked['object_id'].iloc[row]!r}) is labelled no lens, and lies within {radius:g} arcsec of the "
            f"confirmed lens {marked['known_lens'].iloc[row]}: correct its label, or leave it out."
        )
    if promote:
        rows = sure & (label == -1)
        marked.loc[rows, "label"], marked.loc[rows, "label_confidence"] = 1, 1.0
        marked.loc[rows, "label_source"] = "obs:lenscat"
    return marked, listed
