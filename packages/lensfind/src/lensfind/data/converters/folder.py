"""Any manifest of files, CSV or Parquet, with a row per cutout: FITS, npy, npz or 16-bit greyscale pictures."""

from pathlib import Path

import numpy as np

from lensfind.data.converters.source import Found, Source, squared
from lensfind.data.files import Files
from skyloom.errors import DataError


def source(input: Path, bands: str | None = None, size: int | None = None, unit: str = "as given") -> Source:
    if input.is_dir():
        tables = [path for path in (input / "manifest.parquet", input / "manifest.csv") if path.is_file()]
        if not tables:
            raise DataError(f"{input}: there is no manifest.parquet or manifest.csv in it; name the table itself.")
        input = tables[0]
    files = Files(input, bands.split(",") if bands else None)
    side = size or files.shape[-1]
    table = files.table.drop(columns=["filepath", "member", "checksum"])
    facts = {**files.about, "size": side, "unit": unit, "license": "as given"}
    return Source(table, facts, lambda k: Found(squared(np.asarray(files.record(k)), side)))
