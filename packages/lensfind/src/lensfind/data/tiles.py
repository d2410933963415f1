"""Cutouts around sky positions from the tiles of a survey: any celestial WCS, several bands, partial coverage, in parallel."""

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skyloom.errors import DataError, MissingFile

__all__ = ["Cutout", "Tile", "cut_out", "pixel_scale"]

SCALES = (0.01, 2.5)  # arcsec per pixel that a survey's tile may have


@dataclass
class Cutout:
    """image [bands, size, size] float32, NaN where no tile has data."""

    image: np.ndarray
    x: float  # of the target, in pixels of the cutout, 0 at the centre of the first
    y: float
    pixel_scale: float  # arcsec
    coverage: float  # share of pixels with data in all bands
    wcs: str  # FITS header cards, one a line


def pixel_scale(wcs: Any) -> float:
    """Arcsec per pixel, the mean of both axes: for CD, PC and CDELT alike, turned or not."""
    from astropy.wcs.utils import proj_plane_pixel_scales

    scale = 3600 * float(np.mean(proj_plane_pixel_scales(wcs)))
    if not SCALES[0] <= scale <= SCALES[1]:
        raise DataError(f"the WCS has {scale:g} arcsec per pixel, outside {SCALES[0]:g} to {SCALES[1]:g}: not a survey's tile.")
    return scale


def _to_pixel(wcs: Any, sky: Any) -> tuple[np.ndarray, np.ndarray]:
    """x, y of positions in any frame, with the WCS's own frame and order of axes (declination may come first)."""
    from astropy.wcs.utils import wcs_to_celestial_frame

    own = sky.transform_to(wcs_to_celestial_frame(wcs)).spherical
    world = np.empty((len(sky), 2))
    world[:, wcs.wcs.lng], world[:, wcs.wcs.lat] = own.lon.deg, own.lat.deg
    x, y = wcs.all_world2pix(world, 0, quiet=True).T
    return x, y


def _to_sky(wcs: Any, x: np.ndarray, y: np.ndarray) -> Any:
    from astropy.coordinates import SkyCoord
    from astropy.wcs.utils import wcs_to_celestial_frame

    world = wcs.all_pix2world(np.stack([x, y], axis=-1), 0)
    return SkyCoord(world[:, wcs.wcs.lng], world[:, wcs.wcs.lat], unit="deg", frame=wcs_to_celestial_frame(wcs))


class Tile:
    """A FITS image with a celestial WCS; only the pixels that are asked for are read."""

    def __init__(self, path: str | Path):
        from astropy.io import fits
        from astropy.wcs import WCS

        self.path = Path(path)
        if not self.path.is_file():
            raise MissingFile(f"there is no tile {path}.")
        self._file = fits.open(self.path, memmap=True)
        for index, hdu in enumerate(self._file):
            if hdu.is_image and hdu.header.get("NAXIS", 0) >= 2 and WCS(hdu.header, self._file).has_celestial:
                self.hdu = index
                break
        else:
            raise DataError(f"{path}: no HDU holds an image with a celestial WCS (CTYPE like RA---TAN).")
        self.header = self._file[self.hdu].header
        self.wcs = WCS(self.header, self._file)
        if self.header["NAXIS"] > 2 or self.wcs.naxis > 2:
            raise DataError(f"{path} is a cube of {self.header.get('NAXIS3', 'several')} planes: give one tile per band.")
        self.shape = (self.header["NAXIS2"], self.header["NAXIS1"])
        self.scale = pixel_scale(self.wcs)

    def pixel(self, ra: Any, dec: Any) -> tuple[np.ndarray, np.ndarray]:
        """x, y [N] of ICRS positions in degrees, whatever the frame of the tile; far off its tangent point they are NaN."""
        from astropy.coordinates import SkyCoord

        sky = SkyCoord(np.atleast_1d(ra), np.atleast_1d(dec), unit="deg")
        x, y = _to_pixel(self.wcs, sky)
        near = np.isfinite(x) & np.isfinite(y)
        near[near] = _to_sky(self.wcs, x[near], y[near]).icrs.separation(sky[near]).arcsec < 1
        return np.where(near, x, np.nan), np.where(near, y, np.nan)

    def window(self, column: int, row: int, size: int) -> np.ndarray:
        """[size, size] with its first pixel at (column, row) of the tile, NaN beyond its edges."""
        out = np.full((size, size), np.nan, dtype=np.float32)
        left, right = max(column, 0), min(column + size, self.shape[1])
        low, high = max(row, 0), min(row + size, self.shape[0])
        if left < right and low < high:
            out[low - row : high - row, left - column : right - column] = self._file[self.hdu].section[low:high, left:right]
        return out

    def close(self) -> None:
        self._file.close()


def _corner(x: float, y: float, size: int) -> tuple[int, int]:
    """First pixel of a cutout whose middle is nearest to (x, y)."""
    return round(float(x) - (size - 1) / 2), round(float(y) - (size - 1) / 2)


def _from_other_grid(tile: Tile, wcs: Any, size: int, scale: float) -> np.ndarray:
    """The pixels of a cutout with another WCS, by cubic interpolation times the ratio of pixel areas, so that flux stays."""
    from scipy.ndimage import map_coordinates

    y, x = np.indices((size, size))
    tx, ty = _to_pixel(tile.wcs, _to_sky(wcs, x.ravel().astype(float), y.ravel().astype(float)))
    column, row = int(np.floor(np.nanmin(tx))) - 3, int(np.floor(np.nanmin(ty))) - 3
    reach = int(np.ceil(max(np.nanmax(tx) - column, np.nanmax(ty) - row))) + 4
    if reach > 20 * size + 100:
        raise DataError(f"{tile.path}: the bands' tiles do not show the same sky.")
    window = tile.window(column, row, reach).astype(float)
    bad = ~np.isfinite(window)
    at = [ty - row, tx - column]
    values = map_coordinates(np.where(bad, 0, window), at, order=3, mode="constant", cval=np.nan)
    touched = map_coordinates(bad.astype(float), at, order=1, mode="constant", cval=1.0)
    return np.where(touched > 0, np.nan, values * (scale / tile.scale) ** 2).reshape(size, size).astype(np.float32)


def _same_grid(one: Tile, other: Tile) -> bool:
    if one.shape != other.shape:
        return False
    x, y = np.array([0.0, one.shape[1] - 1, 0, one.shape[1] - 1]), np.array([0.0, 0, one.shape[0] - 1, one.shape[0] - 1])
    there = _to_pixel(other.wcs, _to_sky(one.wcs, x, y))
    return bool(max(np.abs(there[0] - x).max(), np.abs(there[1] - y).max()) < 0.01)


def _cut(tiles: Mapping[str, Tile], ra: float, dec: float, size: int) -> Cutout:
    """One object from one tile per band, on the pixels of the first band."""
    reference = next(iter(tiles.values()))
    x, y = (float(v[0]) for v in reference.pixel(ra, dec))
    column, row = _corner(x, y, size)
    moved = reference.wcs.deepcopy()
    moved.wcs.crpix -= [column, row]
    if moved.sip is not None:
        moved.sip.crpix[:] -= [column, row]
    planes = [
        tile.window(column, row, size) if _same_grid(reference, tile) else _from_other_grid(tile, moved, size, reference.scale)
        for tile in tiles.values()
    ]
    image = np.stack(planes)
    coverage = float(np.isfinite(image).all(axis=0).mean())
    cards = "\n".join(str(card) for card in moved.to_header(relax=True).cards)
    return Cutout(image, x - column, y - row, reference.scale, coverage, cards)


def _best(tiles: Sequence[Tile], ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """[N] the tile in which each position lies farthest from an edge; -1 where it lies in none."""
    depth = np.full((len(tiles), len(ra)), -np.inf)
    for k, tile in enumerate(tiles):
        x, y = tile.pixel(ra, dec)
        inside = np.minimum.reduce([x + 0.5, y + 0.5, tile.shape[1] - 0.5 - x, tile.shape[0] - 0.5 - y]) * tile.scale
        depth[k] = np.where(np.isfinite(inside), inside, -np.inf)
    best = depth.argmax(axis=0)
    return np.where(depth.max(axis=0) > 0, best, -1)


def _group(job: tuple[dict[str, Path], list[int], np.ndarray, np.ndarray, int]) -> list[tuple[int, Cutout]]:
    paths, rows, ra, dec, size = job
    tiles = {band: Tile(path) for band, path in paths.items()}
    try:
        return [(row, _cut(tiles, float(r), float(d), size)) for row, r, d in zip(rows, ra, dec, strict=True)]
    finally:
        for tile in tiles.values():
            tile.close()


def cut_out(
    tiles: Mapping[str, Sequence[str | Path]],
    ra: Sequence[float] | np.ndarray,
    dec: Sequence[float] | np.ndarray,
    size: int,
    least_coverage: float = 0.5,
    processes: int = 1,
) -> dict[int, Cutout]:
    """Cutouts of `size` pixels around positions (degrees), by the number of the position.

    `tiles` lists the FITS files of each band; the first band gives the pixel grid, and bands on another one are interpolated
    with their flux kept. Positions in no tile, or with less than `least_coverage` of the pixels, are left out. Objects of one
    tile are cut together, tiles in `processes` at a time, each reading only the pixels it needs.
    """
    ra, dec = np.asarray(ra, dtype=float), np.asarray(dec, dtype=float)
    if not tiles:
        raise DataError("there are no tiles: say which files show which band.")
    choice = {}
    for band, paths in tiles.items():
        opened = [Tile(path) for path in paths]
        choice[band] = _best(opened, ra, dec)
        for tile in opened:
            tile.close()
    jobs: dict[tuple[int, ...], list[int]] = {}
    for row in range(len(ra)):
        key = tuple(int(choice[band][row]) for band in tiles)
        if min(key) >= 0:
            jobs.setdefault(key, []).append(row)
    work = [
        ({band: Path(tiles[band][k]) for band, k in zip(tiles, key, strict=True)}, rows, ra[rows], dec[rows], size)
        for key, rows in jobs.items()
    ]
    if processes > 1 and len(work) > 1:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            found = [pair for part in pool.map(_group, work) for pair in part]
    else:
        found = [pair for job in work for pair in _group(job)]
    return {row: cutout for row, cutout in sorted(found, key=lambda pair: pair[0]) if cutout.coverage >= least_coverage}
