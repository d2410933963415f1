"""What deeplenstronomy's make_dataset writes: CONFIGURATION_<n>_images.npy (or .h5) [N, bands, H, W] and …_metadata.csv.

Its files do not say which configurations are lenses: name them, lenses=CONFIGURATION_1 (several: joined by commas). Images are
ADU of the simulated survey unless unit= says otherwise.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from lensfind.data.converters.source import Found, Source, about
from skyloom.errors import ConfigError, DataError, nearest


def _images(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    with h5py.File(path) as file:
        names = list(file)
        if len(names) != 1:
            raise DataError(f"{path} holds {', '.join(names) or 'nothing'}, not one array of images.")
        return file[names[0]][...]


def _column(table: pd.DataFrame, ending: str, bands: list[str]) -> np.ndarray:
    """The largest over planes, objects and profiles of `PLANE_…-<ending>-<band>`; NaN if there is none."""
    fitting = [name for name in table if any(str(name).endswith(f"{ending}-{band}") for band in bands)]
    numbers = table[fitting].apply(pd.to_numeric, errors="coerce")
    return numbers.max(axis=1).to_numpy(dtype=float) if fitting else np.full(len(table), np.nan)


def source(
    input: Path, lenses: str | None = None, bands: str = "g,r,i", pixel_scale: float = 0.263, survey: str = "des",
    unit: str = "ADU", size: int | None = None,
) -> Source:  # fmt: skip
    files = sorted([*input.glob("CONFIGURATION_*_images.npy"), *input.glob("CONFIGURATION_*_images.h5")])
    if not files:
        raise DataError(f"{input}: there is no CONFIGURATION_<n>_images.npy or .h5 in it.")
    configurations = [path.name.rpartition("_images")[0] for path in files]
    if lenses is None:
        raise ConfigError(f"say which configurations are lenses: lenses=<one or more of {','.join(configurations)}>.")
    chosen = lenses.split(",")
    for name in chosen:
        if name not in configurations:
            raise ConfigError(f"{input} has no {name!r}.{nearest(name, configurations)}")
    names, parts, place = bands.split(","), [], []
    arrays = [_images(path) for path in files]
    for number, (path, configuration, images) in enumerate(zip(files, configurations, arrays, strict=True)):
        metadata = pd.read_csv(path.with_name(f"{configuration}_metadata.csv"))
        if images.ndim != 4 or images.shape[1] != len(names) or len(metadata) != len(images):
            raise DataError(
                f"{path}: images are {list(images.shape)}, metadata has {len(metadata)} rows, bands are {bands}: set bands=."
            )
        label = int(configuration in chosen)
        rows = pd.DataFrame({"object_id": [f"{configuration}-{k}" for k in range(len(metadata))], "label": label})
        radius = _column(metadata, "theta_E", names)
        rows["theta_E"] = np.where((radius > 0) & bool(label), radius, np.nan)
        seeing = _column(metadata, "seeing", names)
        rows["seeing"] = np.where((seeing > 0) & (seeing <= 5), seeing, np.nan)
        rows["kind"] = configuration
        rows["deeplens_configuration"] = configuration
        parts.append(rows)
        place += [(number, k) for k in range(len(metadata))]
    table = pd.concat(parts, ignore_index=True)
    table["label_source"], table["label_confidence"] = "sim:deeplens", 1.0
    table["survey"], table["pixel_scale"], table["bands"] = survey, pixel_scale, bands
    facts: dict[str, Any] = about(names, arrays[0].shape[-1], unit, survey, pixel_scale, True, "simulated")

    def read(k: int) -> Found:
        number, row = place[k]
        return Found(np.asarray(arrays[number][row], dtype=np.float32))

    return Source(table, facts, read)
