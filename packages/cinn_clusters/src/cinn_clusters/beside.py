"""Two runs on the same clusters, row by row: is one posterior better than the other, or does the split only make it seem so?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.data.tables import read_columns
from skyloom.errors import ConfigError, DataError
from skyloom.metrics import Comparison, paired_bootstrap
from skyloom.run import Run
from skyloom.run.listing import find_run
from skyloom.run.seeds import numpy_generator

__all__ = ["beside", "paired_scores"]

Array = NDArray[np.float64]
Predictions = dict[str, NDArray[Any]]


def beside(run: Run, other: str | None = None, runs_dir: str | Path = "runs", resamples: int = 2000) -> dict[str, str]:
    """The scores of `run` less those of `other` on the test rows that both have, with 95 percent intervals over clusters.

    Arguments:
        other: The second run: its directory, or a unique part of it.
        resamples: Of the clusters.
    """
    if other is None:
        raise ConfigError("`beside` compares two runs: say other=<directory or a unique part of it>.")
    first, second = (
        read_columns(each.directory / "predictions" / "test.parquet")[0] for each in (run, find_run(other, runs_dir))
    )
    said = {}
    for name, found in paired_scores(first, second, resamples).items():
        d = found.difference
        interval = f"[{d.low:+.4f}, {d.high:+.4f}]"
        said[name] = f"{found.first:.4f} against {found.second:.4f}: {d:+.4f} {interval}, p {found.p_value:.2g}"
    return said


def paired_scores(first: Predictions, second: Predictions, resamples: int = 2000) -> dict[str, Comparison]:
    """Differences, first less second, of two scores of which less is better: `nll`, nats per target, and `crps`, averaged over
    targets in units of the spread of the truths."""
    shared, a, b = np.intersect1d(_names(first), _names(second), return_indices=True)
    if len(shared) == 0:
        raise DataError("the two runs have no test row in common: compare runs on the same catalogue, with the same seed.")
    if not np.allclose(first["target"][a], second["target"][b], equal_nan=True):
        raise DataError("the two runs hold different mergers for the same (HaloID, Snapshot): two catalogues.")
    spread = first["target"][a].std(0)
    groups = first["cluster_id"][a]
    scores = {"nll": (_nll(first)[a], _nll(second)[b])}
    scores["crps"] = tuple((p["crps"][rows] / spread).mean(1) for p, rows in ((first, a), (second, b)))
    rng = numpy_generator(0, "paired scores")
    return {
        name: paired_bootstrap(_mean, one, two, groups, rng, groups=groups, resamples=resamples)
        for name, (one, two) in scores.items()
    }


def _names(p: Predictions) -> NDArray[Any]:
    """One number for each (HaloID, Snapshot)."""
    halo, snapshot = (p[name].astype(np.int64) for name in ("halo_id", "snapshot"))
    return halo * 1000 + snapshot


def _nll(p: Predictions) -> Array:
    return -p["log_prob"].astype(float) / p["target"].shape[1]


def _mean(values: Array, _: NDArray[Any]) -> float:
    return float(values.mean())
