"""Scalars and image embeddings together: the same rows, splits and targets, with the embedding's main components as inputs.

The components are the principal axes of the training split's embeddings: a few hundred directions of noise would drown the
scalars on a few thousand rows. `shuffled` gives every row another row's embedding: the control, which must do no better than
scalars.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cinn_clusters.columns import INPUT_NAMES
from cinn_clusters.data import from_csv, from_tables, what_is_known, with_truth
from cinn_clusters.embeddings import Embeddings, read_embeddings, stand_in
from cinn_clusters.synthetic import merger_catalogue
from skyloom.data import Columns, Data, fingerprint
from skyloom.errors import ConfigError

__all__ = ["from_files", "synthetic", "with_embeddings"]


def synthetic(
    n_clusters: int = 352,
    seed: int = 0,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    size: int = 256,
    information: float = 0.4,
    components: int = 16,
    shuffled: bool = False,
    embeddings: str | Path | None = None,
    filenames: str | Path | None = None,
) -> Data:
    """The synthetic catalogue with stand-in embeddings (`cinn_clusters.embeddings.stand_in`), or with those of its maps, from
    the two files that `cinn_clusters.encoder.embed` writes.

    `log_prob_true` is of the true posterior given the scalars alone, so that `nll_excess` falls below zero where embeddings
    tell more than any use of the scalars could.
    """
    observables, unobservables = merger_catalogue(n_clusters, seed)
    data = from_tables(observables, unobservables, seed=seed, fractions=fractions, tau_floor=0.0, synthetic=True)
    if embeddings is not None and filenames is not None:
        known = read_embeddings(embeddings, filenames)
    elif embeddings is filenames is None:
        known = Embeddings.from_arrays(*stand_in(observables, unobservables, size, information, seed))
    else:
        raise ConfigError("embeddings of maps come as two files: data.embeddings=embeddings.npy data.filenames=filenames.npy.")
    return with_truth(with_embeddings(data, known, 0.0, components, shuffled, seed))


def from_files(
    observables: str | Path,
    unobservables: str | Path,
    embeddings: str | Path,
    filenames: str | Path,
    clusters: str | Path | None = None,
    seed: int = 0,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    tau_floor: float = -0.05,
    synthetic: bool = False,
    components: int = 16,
    shuffled: bool = False,
) -> Data:
    """The catalogue from its CSV files (see `cinn_clusters.data.from_csv`) with embeddings.npy and filenames.npy."""
    data = from_csv(observables, unobservables, clusters, seed, fractions, tau_floor, synthetic)
    return with_embeddings(data, read_embeddings(embeddings, filenames), tau_floor, components, shuffled, seed)


def with_embeddings(
    data: Data, embeddings: Embeddings, tau_floor: float, components: int = 16, shuffled: bool = False, seed: int = 0
) -> Data:
    """`data` with the embedding's principal components appended to its inputs, joined by (HaloID, Snapshot)."""
    splits = {"train": data.train, "val": data.val, "test": data.test}
    vectors = {name: torch.as_tensor(embeddings.of(*_key(rows))).double() for name, rows in splits.items()}
    if shuffled:
        g = torch.Generator().manual_seed(seed)
        vectors = {name: v[torch.randperm(len(v), generator=g)] for name, v in vectors.items()}
    mean = vectors["train"].mean(0)
    axes = torch.linalg.svd(vectors["train"] - mean, full_matrices=False).Vh[:components]
    wide = {name: _appended(rows, (vectors[name] - mean) @ axes.T) for name, rows in splits.items()}
    known = what_is_known(wide["train"], tau_floor)
    kept = {name: data.about[name] for name in ("synthetic", "rows", "split")}
    shape = {"pairs": len(embeddings.keys), "size": int(mean.shape[0]), "components": len(axes), "shuffled": shuffled}
    about = {**known, **kept, "embedding": shape, "fingerprint": fingerprint(wide["train"].columns)}
    return Data(wide["train"], wide["val"], wide["test"], about=about, carry=data.carry, group=data.group)


def _key(rows: Columns) -> tuple[np.ndarray, np.ndarray]:
    return rows["halo_id"].numpy(), rows["snapshot"].numpy()


def _appended(rows: Columns, more: Tensor) -> Columns:
    context = rows["context"][:, : len(INPUT_NAMES)]
    return Columns({**rows.columns, "context": torch.cat([context, more.to(context.dtype)], 1)})
