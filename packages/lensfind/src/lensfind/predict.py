"""Scores for a file of cutouts: HDF5, NumPy .npz or a FITS cube.

The file holds images [N, bands, size, size] in the flux unit of the survey (nJy), under the name `images` (HDF5 and npz; for
FITS the primary array), optionally `ids` [N], and says which survey and bands they are: the attributes (HDF5), arrays (npz)
or header cards (FITS, SURVEY and BANDS = "g,r,i") `survey` and `bands`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skyloom.data import Batch
from skyloom.errors import DataError

__all__ = ["Cutouts", "predict", "read_cutouts"]

Apply = Callable[[Any], dict[str, np.ndarray]]


@dataclass
class Cutouts:
    """Images of a file, fetched by the batch; an HDF5 file is read as it is asked for, the others are held in memory."""

    path: Path
    shape: tuple[int, ...]
    ids: np.ndarray
    survey: str | None
    bands: list[str] | None
    images: np.ndarray | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        if self.images is not None:
            return self.images[rows]
        import h5py

        order = np.argsort(rows)  # HDF5 reads rows in rising order
        with h5py.File(self.path) as file:
            return file["images"][rows[order]][np.argsort(order)]

    def __getitems__(self, rows: np.ndarray) -> Batch:
        images = np.asarray(self._rows(np.asarray(rows)), dtype=np.float32)
        return {"image": torch.from_numpy(images)}

    def unusable(self, step: int = 1024) -> np.ndarray:
        """[N] whether a cutout has a pixel that is not finite."""
        bad = [
            ~np.isfinite(self._rows(np.arange(k, min(k + step, len(self))))).all(axis=(1, 2, 3))
            for k in range(0, len(self), step)
        ]
        return np.concatenate(bad) if bad else np.zeros(0, dtype=bool)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    value = np.asarray(value).item() if np.ndim(value) == 0 else value
    return value.decode() if isinstance(value, bytes) else str(value)


def _names(value: Any) -> list[str] | None:
    if value is None:
        return None
    if np.ndim(value) == 0:
        return [name.strip() for name in str(_text(value)).split(",")]
    return [str(_text(name)) for name in value]


def read_cutouts(path: Path) -> Cutouts:
    """Open a file of cutouts; its ending chooses the reader."""
    readers = {".h5": _read_hdf5, ".hdf5": _read_hdf5, ".npz": _read_npz, ".fits": _read_fits, ".fit": _read_fits}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: cutouts are read from {', '.join(readers)} files only.")
    found = reader(path)
    if len(found.shape) != 4:
        raise DataError(f"{path}: images must be [N, bands, rows, columns], found {list(found.shape)}.")
    if len(found.ids) != len(found):
        raise DataError(f"{path}: {len(found.ids)} ids for {len(found)} images.")
    return found


def _read_hdf5(path: Path) -> Cutouts:
    import h5py

    with h5py.File(path) as file:
        if "images" not in file:
            raise DataError(f"{path}: no data set `images`; it holds {sorted(file)}.")
        shape = file["images"].shape
        ids = file["ids"][...] if "ids" in file else np.arange(shape[0])
        ids = np.array([_text(i) for i in ids]) if ids.dtype.kind in "OS" else ids
        attributes = {**file.attrs, **file["images"].attrs}
    return Cutouts(path, shape, ids, _text(attributes.get("survey")), _names(attributes.get("bands")))


def _read_npz(path: Path) -> Cutouts:
    with np.load(path, allow_pickle=False) as file:
        if "images" not in file:
            raise DataError(f"{path}: no array `images`; it holds {sorted(file)}.")
        parts = {name: file[name] for name in ("images", "ids", "survey", "bands") if name in file}
    images = parts["images"]
    ids = parts.get("ids", np.arange(len(images) if images.ndim else 0))
    return Cutouts(path, images.shape, ids, _text(parts.get("survey")), _names(parts.get("bands")), images)


def _read_fits(path: Path) -> Cutouts:
    from astropy.io import fits

    with fits.open(path, memmap=False) as file:
        header, data = file[0].header, file[0].data
    if data is None:
        raise DataError(f"{path}: the primary HDU holds no image.")
    images = np.ascontiguousarray(data, dtype=np.float32)
    return Cutouts(path, images.shape, np.arange(len(images)), header.get("SURVEY"), _names(header.get("BANDS")), images)


def _check(found: Cutouts, about: dict[str, Any], survey: str | None, other_survey: bool) -> None:
    """Refuse what the model was not trained for."""
    trained, bands, size = about["survey"]["name"], about["bands"], about["size"]
    named = survey or found.survey
    if named is None:
        raise DataError(
            f"{found.path} does not say which survey it is of, and this model knows {trained!r} only: give the file the "
            "attribute `survey` (a header card SURVEY in FITS), or pass survey=."
        )
    if named.lower() != trained.lower() and not other_survey:
        raise DataError(
            f"{found.path} is of survey {named!r}, this model was trained for {trained!r}: pixels, PSF and depth differ, "
            f"and its scores would mean nothing. Train with survey={named.lower()}, or pass other_survey=true."
        )
    if found.bands is not None and found.bands != list(bands):
        raise DataError(f"{found.path} has bands {found.bands}, this model takes {list(bands)}, in this order.")
    if found.shape[1:] != (len(bands), size, size):
        raise DataError(
            f"{found.path}: images are {list(found.shape[1:])} (bands, rows, columns), this model takes "
            f"{[len(bands), size, size]}: cut them out at {size} pixels of {about['survey']['pixel_scale']} arcsec."
        )


def predict(
    task: Any,
    about: dict[str, Any],
    input: Path,
    output: Path,
    apply: Apply,
    survey: str | None = None,
    other_survey: bool = False,
) -> dict[str, Any]:
    """Write a Parquet table of id, logit and score = sigmoid(logit) for the cutouts in `input`.

    A score is the probability of a lens as far as the network's own odds at the class prior of its training go; it is not
    calibrated. Cutouts with pixels that are not finite get NaN, never a plausible number. `survey` names that of a file that
    does not; `other_survey` allows one that the model was not trained for.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from skyloom.run.files import write_whole

    found = read_cutouts(Path(input))
    _check(found, about, survey, other_survey)
    if not len(found):
        raise DataError(f"{input}: there are no images in it.")
    logit = np.asarray(apply(found)["logit"], dtype=np.float32)
    unusable = found.unusable()
    logit[unusable] = np.nan
    table = pa.table({"id": found.ids, "logit": logit, "score": 1 / (1 + np.exp(-logit.astype(np.float64)))})
    notes = {"survey": about["survey"]["name"], "class_prior": str(about["class_prior"]), "input": Path(input).name}
    if about["synthetic"]:
        notes["trained_on"] = "synthetic images"
    with write_whole(output) as temporary:
        pq.write_table(table.replace_schema_metadata(notes), temporary)
    return {
        "cutouts": len(found),
        "not finite": int(unusable.sum()),
        "above even odds": int((logit > 0).sum()),
    }
