"""A synthetic stand-in for embeddings of X-ray maps of simulated clusters: three views of each halo at each snapshot.

Two latents of a cluster, mass and time since the last merger, are seen by each view with noise of its own; snapshots of one
cluster share its last merger, so that objects of one cluster belong on one side of any split.
"""

import numpy as np

from embeddings.objects.catalogue import Catalogue
from embeddings.objects.halos import HALO_SNAPSHOT, halo_snapshots
from embeddings.readers.cluster_maps import views_of_halos
from embeddings.samples.joining import join
from embeddings.samples.sample import Sample
from embeddings.vectors.sets import EmbeddingSet
from skyloom.run.seeds import numpy_generator

__all__ = ["map_files", "synthetic_clusters"]

SNAPSHOTS = {50: 7.936, 59: 6.488, 67: 5.194, 72: 4.414, 78: 3.526, 84: 2.510, 91: 1.344, 99: 0.000}
"""TNG snapshot -> lookback time [Gyr]."""
AGE = 13.803  # Gyr, of the universe at the last snapshot


def map_files(clusters: int, dimension: int, seed: int) -> tuple[EmbeddingSet, Catalogue]:
    """Vectors with the file names of their maps, and a catalogue with HaloID, Snapshot and cluster_id."""
    rng = numpy_generator(seed, "synthetic cluster maps")
    mass, merger = rng.standard_normal((2, clusters))
    cluster = np.repeat(np.arange(clusters), len(SNAPSHOTS))
    snapshot = np.tile(list(SNAPSHOTS), clusters)
    lookback = np.tile(list(SNAPSHOTS.values()), clusters)
    grown = mass[cluster] - 0.15 * lookback + 0.2 * rng.standard_normal(len(cluster))
    age = AGE - lookback
    seen = np.stack([grown, merger[cluster], lookback / 4.0], axis=1)
    frame = np.linalg.qr(rng.standard_normal((dimension, 3)))[0]
    names, vectors = [], []
    halo = rng.permutation(900_000)[: len(cluster)] + 100_000  # another number at every snapshot, as in the simulation
    for view in (1, 2, 3):
        noise = 0.3 * rng.standard_normal((len(cluster), dimension))
        vectors.append((2.0 * seen @ frame.T + noise + 1.0).astype(np.float32))
        names += [f"snap_{s:03d}_halo_{h}_proj_{view}.jpg" for s, h in zip(snapshot, halo, strict=True)]
    order = rng.permutation(len(names))
    maps = EmbeddingSet(
        "cluster_maps", {"name": np.array(names)[order]}, {"embedding": np.concatenate(vectors)[order]}, synthetic=True
    )
    ratio = 1.0 / (1.0 + np.exp(1.0 - 0.5 * merger[cluster]))
    numbers = {
        "Group_M_Crit500": 10 ** (4.3 + 0.25 * grown),  # 1e10 Msun/h
        "last_T_coll": age * (0.45 + 0.4 / (1.0 + np.exp(-merger[cluster]))),  # Gyr
        "last_V_coll": 3.26 + 0.1 * mass[cluster],  # log10(km/s)
        "last_M_Crit500_coll": np.where(rng.random(len(cluster)) < 0.06, -1.0, 10 ** (0.4 + 0.25 * mass[cluster])),  # 1e14 Msun
        "last_Subcluster_mass": np.maximum(0.1, ratio * 10 ** (0.2 * mass[cluster])),  # 1e14 Msun
        "last_Mass_ratio": ratio,
        "last_d_peri": 2.4 + 0.3 * mass[cluster] - 0.1 * merger[cluster],  # log10(kpc)
        "lookback_time_Gyr": lookback,  # Gyr
        "cluster_id": cluster.astype(float),
    }
    keys = {HALO_SNAPSHOT: halo_snapshots(halo, snapshot)}
    return maps, Catalogue(keys, numbers, synthetic=True)


def synthetic_clusters(objects: int = 800, dimension: int = 64, seed: int = 0) -> Sample:
    """`objects` halos at a snapshot, eight snapshots of each cluster.

    >>> sample = synthetic_clusters(160, 16)
    >>> [e.name for e in sample.embeddings], len(np.unique(sample.groups))
    (['cluster_maps/projection 1', 'cluster_maps/projection 2', 'cluster_maps/projection 3'], 20)
    """
    maps, catalogue = map_files(objects // len(SNAPSHOTS), dimension, seed)
    return join([views_of_halos(maps)], catalogue, group="cluster_id")
