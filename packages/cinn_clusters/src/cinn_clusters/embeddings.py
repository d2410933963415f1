"""Image embeddings beside the scalars: two files, joined to the catalogue by the identifiers in their file names.

`embeddings.npy` `[N, D]` holds a vector per image and `filenames.npy` `[N]` its name, `snap_<SSS>_halo_<ID>_proj_<P>`, with or
without a folder and an ending. The vectors of one cluster's projections at a snapshot are averaged: none is kept by chance.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cinn_clusters.columns import KEY, TARGET_NAMES
from cinn_clusters.cosmology import AGE_TODAY
from skyloom.errors import DataError, MissingFile
from skyloom.run.seeds import numpy_generator

__all__ = ["Embeddings", "parse_name", "read_embeddings", "stand_in"]

_NAME = re.compile(r"snap_(\d{1,3})_halo_(\d+)_proj_(\d)(?:\.\w+)?$")
PROJECTIONS = 3
HIDDEN = 32  # nonlinear features that the stand-in mixes


@dataclass(frozen=True)
class Embeddings:
    """One vector `[M, D]` for each (HaloID, Snapshot), the mean of its projections."""

    keys: pd.MultiIndex
    vectors: NDArray[np.float32]

    def of(self, halo: NDArray[np.int64], snapshot: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors `[N, D]` of catalogue rows, in their order; every row must have one."""
        place = self.keys.get_indexer(pd.MultiIndex.from_arrays([halo, snapshot]))
        lacking = np.flatnonzero(place < 0)
        if len(lacking):
            some = ", ".join(f"({halo[i]}, {snapshot[i]})" for i in lacking[:5])
            raise DataError(
                f"{len(lacking)} of {len(halo)} catalogue rows have no embedding, the first (HaloID, Snapshot) being {some}; "
                f"{len(self.keys)} pairs have one."
            )
        return self.vectors[place]

    @classmethod
    def from_arrays(cls, vectors: NDArray[np.float32], names: NDArray[np.str_]) -> Embeddings:
        """From a vector and a name per image."""
        if vectors.ndim != 2 or len(vectors) != len(names):
            raise DataError(f"embeddings {vectors.shape} and {len(names)} file names do not fit: one vector for each name.")
        if not np.isfinite(vectors).all():
            raise DataError(f"{int((~np.isfinite(vectors)).any(1).sum())} embeddings hold values that are not finite.")
        table = pd.DataFrame([parse_name(str(name)) for name in names], columns=[*KEY, "projection"])
        repeated = table.duplicated()
        if repeated.any():
            raise DataError(
                f"{int(repeated.sum())} images are listed twice, the first being {names[int(repeated.argmax())]!r}."
            )
        groups = table.groupby(list(KEY), sort=True)
        label = groups.ngroup().to_numpy()
        total = np.zeros((groups.ngroups, vectors.shape[1]))
        np.add.at(total, label, vectors)
        mean = total / np.bincount(label)[:, None]
        return cls(
            pd.MultiIndex.from_frame(table.groupby(list(KEY), sort=True).size().index.to_frame(index=False)), _single(mean)
        )


def parse_name(name: str) -> tuple[int, int, int]:
    """HaloID, snapshot and projection of an image.

    >>> parse_name("maps/snap_050_halo_123456_proj_2.jpg")
    (123456, 50, 2)
    """
    found = _NAME.search(name)
    if found is None:
        raise DataError(f"{name!r} is no image name of the form snap_<SSS>_halo_<ID>_proj_<P>.")
    snapshot, halo, projection = (int(part) for part in found.groups())
    return halo, snapshot, projection


def read_embeddings(embeddings: str | Path, filenames: str | Path) -> Embeddings:
    """From the two files."""
    arrays = []
    for path in (Path(embeddings), Path(filenames)):
        if not path.exists():
            raise MissingFile(f"{path} does not exist; embeddings come as embeddings.npy [N, D] with filenames.npy [N].")
        arrays.append(np.load(path, allow_pickle=False))
    return Embeddings.from_arrays(_single(arrays[0]), arrays[1].astype(str))


def stand_in(
    observables: pd.DataFrame, unobservables: pd.DataFrame, size: int = 256, information: float = 1.0, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Synthetic embeddings `[3 N, size]` and their file names. They are made of numbers, not of maps.

    A random nonlinear map of what a picture of a merger could show (time since, mass ratio, pericentre, velocity) times
    `information`, plus a nuisance of the viewing angle and unit noise in every direction. With `information` 0 they say
    nothing.
    """
    rng = numpy_generator(seed, "synthetic embeddings")
    since = AGE_TODAY - observables["lookback_time_Gyr"].to_numpy() - unobservables["last_T_coll"].to_numpy()
    ratio, pericentre, velocity = (unobservables[TARGET_NAMES[d]].to_numpy() for d in (4, 5, 1))
    shown = np.stack([np.exp(-since / 1.5), np.log(ratio) * np.exp(-since / 4), pericentre - 2.4, 5 * (velocity - 3.26)], 1)
    shown = np.nan_to_num(shown)  # no merger yet: nothing to see
    shown = (shown - shown.mean(0)) / shown.std(0)
    inner, outer = rng.normal(size=(4, HIDDEN)), rng.normal(size=(HIDDEN, size)) / np.sqrt(HIDDEN)
    signal = np.tanh(0.5 * shown @ inner) @ outer
    angle = rng.normal(size=(PROJECTIONS, len(shown), 8)) @ (rng.normal(size=(8, size)) / np.sqrt(8))
    vectors = information * signal + angle + rng.normal(size=(PROJECTIONS, len(shown), size))
    halo, snapshot = (observables[name].to_numpy() for name in KEY)
    names = [f"snap_{s:03d}_halo_{h}_proj_{k + 1}.jpg" for k in range(PROJECTIONS) for h, s in zip(halo, snapshot, strict=True)]
    return _single(vectors.reshape(-1, size)), np.array(names)


def _single(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32)
