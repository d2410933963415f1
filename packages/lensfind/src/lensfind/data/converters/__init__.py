"""Readers of published data sets and of other programs' output: each gives a `Source`, which `lensfind.prepare` writes out.

A label comes from a table that states it, never from the name of a file or folder; what no table labels is unlabeled.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from lensfind.data.converters.source import Found, Source
from skyloom.errors import ConfigError, MissingFile, nearest

__all__ = ["CONVERTERS", "Found", "Source", "open_source"]

CONVERTERS = {
    "galaxiesml": "GalaxiesML HDF5 files (HSC PDR2, five bands): pretraining only",
    "castles": "a folder of CASTLES FITS images (HST): lenses only",
    "bologna1": "Bologna lens challenge 1, space or ground: a folder with Public/Band*/ and the key as CSV",
    "bologna2": "Bologna lens challenge 2: a folder with Public/EUC_*/ and the image catalogue",
    "galaxy_zoo": "a folder of Galaxy Zoo cutouts (FITS, npy) and its table of votes: pretraining only",
    "legacy": "a folder of cutouts of the DESI Legacy Surveys' viewer (FITS)",
    "hsc_cutouts": "a folder of HSC cutouts (FITS with image, mask, variance)",
    "deeplenstronomy": "an output folder of deeplenstronomy (npy or h5, with metadata)",
    "folder": "any manifest (CSV or Parquet) of FITS, npy, npz or 16-bit files",
    "tiles": "cutouts around the positions of a table, from survey tiles (FITS with WCS)",
}


def open_source(name: str, input: str | Path | None, **options: Any) -> Source:
    """The source that the converter `name` finds at `input`."""
    if name not in CONVERTERS:
        raise ConfigError(f"there is no converter {name!r}.{nearest(name, CONVERTERS)}")
    if input is None:
        raise ConfigError(f"say where the files are: make prepare pkg=lensfind data={name} input=<{CONVERTERS[name]}>")
    if not Path(input).exists():
        raise MissingFile(f"there is nothing at {input}; data={name} reads {CONVERTERS[name]}.")
    opened: Callable[..., Source] = import_module(f"lensfind.data.converters.{name}").source
    try:
        return opened(Path(input), **options)
    except TypeError as error:
        if "unexpected keyword argument" in str(error):
            raise ConfigError(f"converter {name!r}: {error}.") from error
        raise
