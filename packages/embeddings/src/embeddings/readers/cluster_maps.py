"""Embeddings of X-ray maps of simulated clusters: file names say which halo, which snapshot and which projection.

Three projections of one halo are three views of one object, with the same properties. As rows of their own they would stand on
both sides of any split by rows; here they are three modalities of one row, named `<HaloID>_<Snapshot>`.
"""

import re

import numpy as np

from embeddings.objects.halos import HALO_SNAPSHOT, halo_snapshots
from embeddings.vectors.sets import EmbeddingSet
from skyloom.errors import DataError

__all__ = ["is_cluster_maps", "parse_map_name", "views_of_halos"]

_NAME = re.compile(r"(?:.*/)?snap_(\d{3})_halo_(\d+)_proj_(\d)(?:\.\w+)?")


def parse_map_name(name: str) -> tuple[int, int, int]:
    """Snapshot, halo and projection.

    >>> parse_map_name("snap_050_halo_123456_proj_2.jpg")
    (50, 123456, 2)
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise DataError(f"{name!r} is not the name of a cluster map, snap_<SSS>_halo_<ID>_proj_<P>.")
    snapshot, halo, projection = (int(part) for part in found.groups())
    return snapshot, halo, projection


def is_cluster_maps(found: EmbeddingSet) -> bool:
    names = found.ids.get("name")
    return names is not None and names.dtype.kind == "U" and bool(len(names)) and _NAME.fullmatch(str(names[0])) is not None


def views_of_halos(found: EmbeddingSet) -> EmbeddingSet:
    """One row per halo and snapshot, one modality `projection <P>` per direction of view (NaN where there is no map)."""
    (modality,) = found.modalities
    parsed = np.array([parse_map_name(str(name)) for name in found.ids["name"]])
    if len(np.unique(parsed, axis=0)) < len(parsed):
        raise DataError(f"{found.model}: a map occurs twice among the file names; repeated maps must be dropped at the source.")
    keys, row = np.unique(halo_snapshots(parsed[:, 1], parsed[:, 0]), return_inverse=True)
    vectors = {}
    for projection in np.unique(parsed[:, 2]):
        mine = parsed[:, 2] == projection
        view = np.full((len(keys), found[modality].shape[1]), np.nan, dtype=np.float32)
        view[row[mine]] = found[modality][np.flatnonzero(mine)]
        vectors[f"projection {projection}"] = view
    return EmbeddingSet(found.model, {HALO_SNAPSHOT: keys}, vectors, synthetic=found.synthetic)
