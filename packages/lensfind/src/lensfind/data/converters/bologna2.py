"""Bologna lens challenge 2: Euclid-like VIS (200 pixels of 0.1 arcsec) and Y, J, H (66 pixels of 0.3 arcsec).

    Public/EUC_VIS/imageEUC_VIS-200000.fits  Public/EUC_Y/imageEUC_Y-200000.fits  EUC_J/…  EUC_H/…
    image_catalog2.0train.csv: lines of comment, then ,ID,x_crit,…,n_pix_source,…,n_source_im,mag_eff,…

A lens, as the challenge defines it: n_source_im > 0, mag_eff > 1.6 and n_pix_source > 20. The infrared bands are brought to the
pixels of VIS with their flux kept.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from lensfind.data.converters.bologna1 import images, key_of
from lensfind.data.converters.source import Found, Source, about, on_grid, squared
from lensfind.data.files import read_image

_BANDS = {"EUC_VIS": "VIS", "EUC_Y": "Y", "EUC_J": "J", "EUC_H": "H"}
_VIS, _NISP = 0.1, 0.3  # arcsec per pixel
_COLUMNS = ("ID", "n_source_im", "mag_eff", "n_pix_source")


def source(input: Path, log: str | Path | None = None, size: int = 200) -> Source:
    found = images(input, _BANDS)
    bands = [band for band in _BANDS.values() if any(band in files for files in found.values())]
    ids = sorted(found, key=int)
    key = key_of(input, log, _COLUMNS)
    table = pd.DataFrame({"object_id": [f"bologna2-{name}" for name in ids]})
    label = np.full(len(ids), -1)
    if key is not None:
        rows = key.reindex(ids)
        lens = (rows["n_source_im"] > 0) & (rows["mag_eff"] > 1.6) & (rows["n_pix_source"] > 20)
        label = np.where(rows["n_source_im"].isna(), -1, lens.astype(int))
        for name in key.columns:
            if not str(name).startswith("Unnamed"):
                table[f"bologna_{name}"] = pd.to_numeric(rows[name], errors="coerce").to_numpy()
    table["label"], table["label_source"], table["label_confidence"] = label, "sim:bologna", (label >= 0).astype(float)
    table["survey"], table["pixel_scale"] = "euclid", _VIS

    def read(k: int) -> Found:
        planes, present = [], []
        for band in bands:
            path = found[ids[k]].get(band)
            if path is None:
                planes.append(np.full((size, size), np.nan, np.float32))
                continue
            plane = read_image(path, 1)
            planes.append((squared(plane, size) if band == "VIS" else on_grid(plane, _NISP, _VIS, size))[0])
            present.append(band)
        return Found(np.stack(planes), row={"bands": ",".join(present)})

    notes = []
    if key is None:
        notes.append("there is no catalogue (CSV with ID, n_source_im, mag_eff, n_pix_source): all rows are unlabeled")
    elif (label == -1).any():
        notes.append(f"{int((label == -1).sum())} images are not in the catalogue and stay unlabeled")
    return Source(table, about(bands, size, "of the challenge", "euclid", _VIS, True, "see the challenge's page"), read, notes)
