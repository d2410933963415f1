"""Galaxy Zoo: cutouts and the volunteers' votes on morphology. They are no lens labels, and none is made of them.

labels.csv: filename,ra,dec,t01_smooth_or_features_a01_smooth_debiased,…      images/<filename>
"""

from pathlib import Path

import numpy as np
import pandas as pd

from lensfind.data.converters.source import Found, Source, about, squared, table_of
from lensfind.data.files import read_image
from skyloom.errors import DataError


def source(
    input: Path, table: str = "labels.csv", images: str = "images", bands: str = "g,r,i", pixel_scale: float = 0.396,
    survey: str = "sdss", unit: str = "as given", size: int | None = None,
) -> Source:  # fmt: skip
    path = input / table if input.is_dir() else input
    votes = table_of(path)
    if "filename" not in votes:
        raise DataError(f"{path} has no column filename; it has {', '.join(map(str, votes.columns[:12]))}, …")
    folder = path.parent / images
    there = np.array([(folder / str(name)).is_file() for name in votes["filename"]], dtype=bool)
    if not there.any():
        raise DataError(f"none of the {len(votes)} files that {path} names is in {folder}.")
    kept = votes[there].reset_index(drop=True)
    names = bands.split(",")
    rows = pd.DataFrame({"object_id": [f"gzoo-{Path(str(name)).stem}" for name in kept["filename"]]})
    rows["label"], rows["label_source"], rows["label_confidence"] = -1, "weak:gzoo", 0.3
    for name in ("ra", "dec"):
        if name in kept:
            rows[name] = pd.to_numeric(kept[name], errors="coerce")
    rows["survey"], rows["pixel_scale"], rows["bands"] = survey, pixel_scale, bands
    for name in kept.columns:
        if name not in ("filename", "ra", "dec") and pd.api.types.is_numeric_dtype(kept[name]):
            rows[f"gzoo_{name}"] = kept[name]
    side = size or read_image(folder / str(kept["filename"].iloc[0]), len(names)).shape[-1]

    def read(k: int) -> Found:
        return Found(squared(read_image(folder / str(kept["filename"].iloc[k]), len(names)), side))

    notes = ["votes of morphology are no lens labels: these rows serve pretraining only"]
    if not there.all():
        notes.append(f"{int((~there).sum())} of {len(votes)} files are missing and were left out")
    return Source(rows, about(names, side, unit, survey, pixel_scale, False, "Galaxy Zoo"), read, notes)
