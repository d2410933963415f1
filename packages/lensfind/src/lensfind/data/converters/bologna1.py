"""Bologna lens challenge 1 (Metcalf et al. 2019, A&A 625, A119): 101 x 101 pixels, space (VIS) or ground (u, g, r, i).

    Public/Band1/imageEUC_VIS-100002.fits                                                    space
    Public/Band1/imageSDSS_R-100002.fits  Band2/imageSDSS_I-…  Band3/imageSDSS_G-…  Band4/imageSDSS_U-…      ground
    classifications.csv: ID,is_lens,Einstein_area,numb_pix_lensed_image,flux_lensed_image_in_sigma

Masked pixels of the ground set hold the number 100 in images whose light is about 1e-10: they become NaN.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lensfind.data.converters.source import Found, Source, about, numbered, table_of
from lensfind.data.files import read_image
from skyloom.errors import DataError

_BANDS = {"EUC_VIS": "VIS", "SDSS_U": "u", "SDSS_G": "g", "SDSS_R": "r", "SDSS_I": "i"}
_ORDER = ("u", "g", "r", "i", "VIS")
_MASKED = 100.0
KEY = ("ID", "is_lens")


def images(input: Path, bands: dict[str, str]) -> dict[str, dict[str, Path]]:
    """{ID: {band: file}} of all image<filter>-<ID>.fits below a folder."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(input.rglob("image*-*.fits*")):
        band = bands.get(path.name.removeprefix("image").rsplit("-", 1)[0])
        if band is None:
            continue
        files = found.setdefault(numbered(path), {})
        if band in files:
            raise DataError(f"{path} and {files[band]} are one image twice: convert one of the two folders at a time.")
        files[band] = path
    if not found:
        raise DataError(f"{input}: there is no image<filter>-<ID>.fits below it, filters {', '.join(bands)}.")
    return found


def key_of(input: Path, log: str | Path | None, columns: tuple[str, ...]) -> pd.DataFrame | None:
    """The table that has these columns: named, or the only one below the folder."""
    if log is not None:
        path = Path(log) if Path(log).is_file() else input / log
        if not path.is_file():
            raise DataError(f"there is no key {log}, neither here nor in {input}.")
        candidates = [path]
    else:
        candidates = sorted(input.rglob("*.csv"))
    fitting = [(path, table) for path in candidates for table in [table_of(path)] if set(columns) <= set(table.columns)]
    if len(fitting) > 1:
        raise DataError(f"{input} has several keys, {', '.join(str(path) for path, _ in fitting)}: say which with log=.")
    if not fitting:
        if log is not None:
            raise DataError(f"{candidates[0]} has no columns {', '.join(columns)}.")
        return None
    return fitting[0][1].assign(ID=lambda table: table["ID"].astype(int).astype(str)).drop_duplicates("ID").set_index("ID")


def source(input: Path, log: str | Path | None = None, size: int | None = None) -> Source:
    found = images(input, _BANDS)
    every = {band for files in found.values() for band in files}
    bands = [band for band in _ORDER if band in every]
    if "VIS" in every and len(every) > 1:
        raise DataError(f"{input} holds the space and the ground set: convert them one after the other.")
    ids = sorted(found, key=int)
    short = [name for name in ids if len(found[name]) < len(bands)]
    key = key_of(input, log, KEY)
    table = pd.DataFrame({"object_id": [f"bologna1-{'space' if 'VIS' in every else 'ground'}-{name}" for name in ids]})
    label = np.full(len(ids), -1) if key is None else key["is_lens"].reindex(ids).fillna(-1).to_numpy(dtype=int)
    table["label"], table["label_source"], table["label_confidence"] = label, "sim:bologna", (label >= 0).astype(float)
    for name in [] if key is None else key.columns:
        if key is not None and name != "is_lens" and not str(name).startswith("Unnamed"):
            table[f"bologna_{name}"] = pd.to_numeric(key[name].reindex(ids), errors="coerce").to_numpy()
    space = bands == ["VIS"]
    scale, survey = (0.1, "euclid") if space else (0.2, "kids")
    table["survey"], table["pixel_scale"] = survey, scale
    shape = read_image(found[ids[0]][bands[0]] if bands[0] in found[ids[0]] else next(iter(found[ids[0]].values()))).shape

    def read(k: int) -> Found:
        planes = [read_image(found[ids[k]][band], 1)[0] if band in found[ids[k]] else np.full(shape[1:], np.nan, np.float32)
                  for band in bands]  # fmt: skip
        image = np.stack(planes)
        if not space:
            image = np.where(image == _MASKED, np.nan, image)
        present = [band for band in bands if band in found[ids[k]]]
        return Found(image, row={"bands": ",".join(present)})

    notes = [f"{len(short)} objects lack a band, which is NaN there"] if short else []
    if key is None:
        notes.append("there is no key (CSV with ID, is_lens): all rows are unlabeled")
    elif (label == -1).any():
        notes.append(f"{int((label == -1).sum())} objects are not in the key and stay unlabeled")
    facts: dict[str, Any] = about(bands, shape[-1], "of the challenge", survey, scale, True, "see the challenge's page")
    return Source(table, facts, read, notes)
