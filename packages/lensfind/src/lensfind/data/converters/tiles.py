"""Cutouts around the positions of a table from the tiles of a survey.

    <folder>/positions.csv: object_id,ra,dec[,label,label_source,…]        <folder>/g/*.fits  <folder>/r/*.fits  …

Fluxes become nJy by each tile's header (or zero_point=); a position in no tile is left out and counted.
"""

from pathlib import Path

import numpy as np

from lensfind.data.converters.source import Found, Source, about, labels_from, table_of
from lensfind.data.photometry import survey_of, to_nanojansky, zero_point_of
from lensfind.data.tiles import Tile, cut_out
from skyloom.errors import DataError


def source(
    input: Path, bands: str = "g,r,i", table: str = "positions.csv", size: int = 64, survey: str | None = None,
    zero_point: float | None = None, least_coverage: float = 0.5,
) -> Source:  # fmt: skip
    names = bands.split(",")
    tiles = {band: sorted([*(input / band).glob("*.fits"), *(input / band).glob("*.fits.fz")]) for band in names}
    empty = [band for band, files in tiles.items() if not files]
    if empty:
        raise DataError(f"{input}: there are no FITS files in {', '.join(str(input / band) for band in empty)}.")
    positions = table_of(input / table)
    if not {"object_id", "ra", "dec"} <= set(positions.columns):
        raise DataError(f"{input / table} needs the columns object_id, ra, dec.")
    rows = labels_from(input, input / table, positions["object_id"].astype(str).tolist())
    first = Tile(tiles[names[0]][0])
    scale, where = first.scale, survey or survey_of(first.header)
    points = {
        band: zero_point if zero_point is not None else zero_point_of(Tile(files[0]).header, where)
        for band, files in tiles.items()
    }
    first.close()
    inside = cut_out(tiles, rows["ra"], rows["dec"], size=1, least_coverage=0.0)
    keep = sorted(inside)
    kept = rows.iloc[keep].reset_index(drop=True)
    kept["survey"], kept["pixel_scale"] = where, scale
    factor = np.array([to_nanojansky(1.0, points[band]) for band in names])[:, None, None]

    def read(k: int) -> Found:
        found = cut_out(tiles, [kept["ra"].iloc[k]], [kept["dec"].iloc[k]], size, least_coverage)
        if not found:
            raise DataError(f"{kept['object_id'].iloc[k]} is covered by less than {least_coverage:.0%}.")
        cutout = found[0]
        present = [band for band, plane in zip(names, cutout.image, strict=True) if np.isfinite(plane).any()]
        return Found((cutout.image * factor).astype(np.float32), row={"wcs": cutout.wcs, "bands": ",".join(present)})

    notes = [f"{len(rows) - len(keep)} of {len(rows)} positions lie in no tile"] if len(keep) < len(rows) else []
    return Source(kept, about(names, size, "nJy", where, scale, False, "as given"), read, notes)
