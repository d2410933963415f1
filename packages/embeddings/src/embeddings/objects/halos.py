"""The key of a simulated cluster at one time: neither the halo's number nor the snapshot's is one by itself."""

import numpy as np

__all__ = ["HALO_SNAPSHOT", "halo_snapshots"]

HALO_SNAPSHOT = "halo_snapshot"


def halo_snapshots(halos: np.ndarray, snapshots: np.ndarray) -> np.ndarray:
    """[N] text: the key of one halo at one time.

    >>> halo_snapshots(np.array([123456]), np.array([50])).tolist()
    ['123456_50']
    """
    return np.char.add(
        np.char.add(np.asarray(halos).astype(np.int64).astype(str), "_"), np.asarray(snapshots).astype(int).astype(str)
    )
