"""GalaxiesML (Do et al. 2024, arXiv:2410.00271, CC BY 4.0): HSC PDR2 galaxies in g, r, i, z, y, float32, band first.

    5x64x64_training_with_morphology.hdf5: image [N, 5, H, W], object_id, specz_redshift, {g,…,y}_cmodel_mag, i_sersic_index, …

Nobody looked for lenses in it: every row is unlabeled, and some of them are lenses. The bits of the images are kept.
"""

import hashlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from lensfind.data.converters.source import Found, Source, about
from skyloom.errors import DataError, nearest

BANDS = ["g", "r", "i", "z", "y"]
PUBLISHED = {  # Zenodo 11117528, version 6.1: bytes and md5
    "5x127x127_training_with_morphology.hdf5": (66_162_421_525, "334e8d698dcc7169770ddc7d718f4a57"),
    "5x127x127_validation_with_morphology.hdf5": (13_232_318_722, "ba1ce213162fc10e54f666c3a83f9eba"),
    "5x127x127_testing_with_morphology.hdf5": (13_232_318_722, "a67ffc01def95ec07f9996105848f19d"),
    "5x64x64_training_with_morphology.hdf5": (16_929_883_345, "866a5494adefc700b637785b69917bd7"),
    "5x64x64_validation_with_morphology.hdf5": (3_385_955_482, "95154a37d2b1ea4a51182ec8ef4e5a19"),
    "5x64x64_testing_with_morphology.hdf5": (3_385_955_482, "a63d80990a9cfacde1fbb9562c6830c9"),
}
_SPLITS = {"training": "train", "validation": "val", "testing": "test"}


def verify_download(path: Path, md5: bool = False) -> None:
    """Refuse a published file whose size, or on demand whose md5, is not the record's: a download that broke off."""
    if path.name not in PUBLISHED:
        return
    size, digest = PUBLISHED[path.name]
    if path.stat().st_size != size:
        raise DataError(f"{path} has {path.stat().st_size:,} bytes, the published file {size:,}: download it again.")
    if md5:
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "md5").hexdigest() != digest:
                raise DataError(f"{path}: its md5 is not the published {digest}: download it again.")


def _table(path: Path) -> tuple[pd.DataFrame, int]:
    with h5py.File(path) as file:
        for name in ("image", "object_id", "specz_redshift"):
            if name not in file:
                raise DataError(f"{path} has no data set {name!r}, only {', '.join(sorted(file))}.{nearest(name, file)}")
        shape = file["image"].shape
        if len(shape) != 4 or shape[1] != len(BANDS) or shape[2] != shape[3]:
            raise DataError(f"{path}: image is {list(shape)}, not [N, 5, H, H] with the bands before rows and columns.")
        columns: dict[str, Any] = {"object_id": [str(value) for value in file["object_id"][...]]}
        redshift = np.asarray(file["specz_redshift"][...], dtype=float)
        columns["z_spec"] = np.where((redshift >= 0) & (redshift <= 10), redshift, np.nan)
        for name in sorted(file):
            data = file[name]
            if name not in ("image", "object_id", "specz_redshift") and data.shape == shape[:1] and data.dtype.kind in "fiu":
                values = np.asarray(data[...], dtype=float)
                columns[f"galaxiesml_{name}"] = np.where(values <= -99, np.nan, values)
    table = pd.DataFrame(columns)
    if "galaxiesml_i_cmodel_mag" in table:
        values = table["galaxiesml_i_cmodel_mag"]
        table["magnitude"] = values.where((values >= 5) & (values <= 35))
        table["magnitude_band"] = np.where(table["magnitude"].notna(), "i", "")
    if "galaxiesml_i_sersic_index" in table:
        values = table["galaxiesml_i_sersic_index"]
        table["sersic_index"] = values.where((values >= 0.3) & (values <= 10))
    side = next((split for word, split in _SPLITS.items() if f"_{word}_" in path.name), "")
    return table.assign(split=side), shape[-1]


def source(input: Path, usage: str = "pretrain", verify: str = "size", size: int | None = None) -> Source:
    if usage != "pretrain":
        raise DataError(f"GalaxiesML has no lens labels: usage must be 'pretrain', not {usage!r}.")
    paths = [input] if input.is_file() else sorted([*input.glob("*.hdf5"), *input.glob("*.h5")])
    if not paths:
        raise DataError(f"{input}: there is no .hdf5 file in it.")
    for path in paths:
        if verify != "no":
            verify_download(path, md5=verify == "md5")
    tables, sizes = zip(*map(_table, paths), strict=True)
    if len(set(sizes)) > 1:
        raise DataError(f"{input} holds cutouts of {sorted(set(sizes))} pixels: convert one size at a time.")
    place = [(path, row) for path, table in zip(paths, tables, strict=True) for row in range(len(table))]
    table = pd.concat(tables, ignore_index=True)
    table["object_id"] = "galaxiesml-" + table["object_id"]
    table["label"], table["label_source"], table["label_confidence"] = -1, "pretrain:galaxiesml", 0.0
    table["survey"], table["instrument"], table["pixel_scale"] = "hsc", "HSC", 0.168
    table["zero_point"], table["bands"], table["license"] = 27.0, ",".join(BANDS), "CC BY 4.0"
    opened: dict[Path, h5py.File] = {}

    def read(k: int) -> Found:
        path, row = place[k]
        if path not in opened:
            opened[path] = h5py.File(path)
        return Found(np.asarray(opened[path]["image"][row], dtype=np.float32))

    facts = about(BANDS, sizes[0], "HSC counts, zero point 27.0 AB mag", "hsc", 0.168, False, "CC BY 4.0")
    return Source(
        table, facts, read, ["GalaxiesML has no lens labels: it serves pretraining, and some of its galaxies are lenses"]
    )
