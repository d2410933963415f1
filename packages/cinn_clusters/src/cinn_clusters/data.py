"""From two tables to three splits: columns for the flow, statistics of the training split, and who is in which split.

A batch holds `context` `[B, 7]` and `target` `[B, 6]` in the catalogue's own units; the transforms to the scaled units of the
flow are fitted on the training split, and travel in `about` as JSON. Rows are split by physical cluster: one merger is seen
at several snapshots, and a random split would put it on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cinn_clusters.baselines import gaussian_population, linear_gaussian, straight_line
from cinn_clusters.columns import INPUT_NAMES, INPUTS, KEY, LOOKBACK, TARGET_NAMES, TARGETS
from cinn_clusters.cosmology import AGE_TODAY
from cinn_clusters.synthetic import merger_catalogue
from cinn_clusters.tables import check_units, join, read_table, usable_rows
from cinn_clusters.truth import log_posterior
from skyloom.data import Columns, Data, fingerprint, group_split
from skyloom.errors import DataError
from skyloom.flows.support import TrainingSupport
from skyloom.flows.transforms import Chain, Complement, Identity, Log, PerColumn, Relative, Saturation, Standardise, Whiten

__all__ = ["from_csv", "from_tables", "input_logarithms", "repeated_mergers", "synthetic", "what_is_known", "with_truth"]

CARRY = ("target", "halo_id", "snapshot", "cluster_id")
ALARM_ROWS = 2000  # of the training split, kept to tell strangers by
SUBCLUSTER_FLOOR = 0.0999  # just under the catalogue's cut at 0.1 [1e14 Msun], where its density is largest
RATIO_CEILING = 1.05  # above the largest mass ratio, 1, which occurs and must have a finite image
MAIN, SUB, RATIO = (TARGET_NAMES.index(f"last_{name}") for name in ("M_Crit500_coll", "Subcluster_mass", "Mass_ratio"))


def synthetic(n_clusters: int = 352, seed: int = 0, fractions: Sequence[float] = (0.8, 0.1, 0.1)) -> Data:
    """The synthetic catalogue of `n_clusters` clusters at eight snapshots, split by cluster.

    Validation and test rows carry `log_prob_true`, the log density of their merger under the true posterior.
    """
    observables, unobservables = merger_catalogue(n_clusters, seed)
    data = from_tables(observables, unobservables, seed=seed, fractions=fractions, tau_floor=0.0, synthetic=True)
    return with_truth(data)


def with_truth(data: Data) -> Data:
    """Held-out rows with `log_prob_true`: the log density under the true posterior, the most that a flow can reach."""
    return replace(data, val=_judged(data.val), test=_judged(data.test), carry=(*data.carry, "log_prob_true"))


def _judged(rows: Columns) -> Columns:
    exact = log_posterior(rows["context"].numpy(), rows["target"].numpy(), RATIO_CEILING, draws=2000)
    return Columns({**rows.columns, "log_prob_true": torch.as_tensor(exact, dtype=torch.float32)})


def from_csv(
    observables: str | Path,
    unobservables: str | Path,
    clusters: str | Path | None = None,
    seed: int = 0,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    tau_floor: float = -0.05,
    synthetic: bool = False,
) -> Data:
    """The catalogue from two CSV files, each with HaloID and Snapshot.

    Arguments:
        observables: The seven inputs, and `cluster_id` unless `clusters` has it.
        unobservables: The six targets.
        clusters: HaloID, Snapshot, cluster_id: which physical cluster each row is, from the merger tree.
        seed: Of the split.
        fractions: Shares of clusters for training, validation and test.
        tau_floor: Least time between a merger and its snapshot [Gyr]; below zero, since a catalogue dates some at zero.
        synthetic: Whether the files hold made-up clusters; figures and reports then say so.
    """
    inputs = read_table(observables, INPUT_NAMES, optional=["cluster_id"])
    targets = read_table(unobservables, TARGET_NAMES)
    if clusters is not None:
        owners = read_table(clusters, ["cluster_id"])
        inputs = inputs.drop(columns="cluster_id", errors="ignore").merge(owners, on=list(KEY), how="left")
    if "cluster_id" not in inputs.columns:
        raise DataError(
            f"{observables} has no column 'cluster_id'. HaloID is an index of one snapshot and names no cluster, so rows "
            "cannot be split without leaks: add the column, or give a table of HaloID, Snapshot, cluster_id as `clusters`."
        )
    if inputs["cluster_id"].isna().any():
        raise DataError(f"{int(inputs['cluster_id'].isna().sum())} rows of {observables} have no cluster_id.")
    return from_tables(inputs, targets, seed=seed, fractions=fractions, tau_floor=tau_floor, synthetic=synthetic)


def from_tables(
    observables: pd.DataFrame,
    unobservables: pd.DataFrame,
    seed: int = 0,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    tau_floor: float = 0.0,
    synthetic: bool = False,
) -> Data:
    """Join, filter, split by cluster, and fit the transforms on the training split. See `from_csv` for the arguments."""
    joined, account = join(observables, unobservables)
    rows = usable_rows(joined, account, tau_floor)
    check_units(rows)
    columns = _columns(rows)
    train, val, test = group_split(rows["cluster_id"].to_numpy(), _three(fractions), seed)
    splits = {name: Columns(columns).take(index) for name, index in (("train", train), ("val", val), ("test", test))}
    _refuse_leaks(splits)
    about = what_is_known(splits["train"], tau_floor) | {
        "synthetic": synthetic,
        "fingerprint": fingerprint(columns),
        "rows": account.to_json(),
        "split": {name: torch.unique(split["cluster_id"]).tolist() for name, split in splits.items()},
    }
    return Data(splits["train"], splits["val"], splits["test"], about=about, carry=CARRY, group="cluster_id")


def repeated_mergers(train: Tensor, test: Tensor) -> float:
    """Share of the rows of `test` `[N, 6]` whose merger, all six targets equal, is also a row of `train`."""
    known = {row.tobytes() for row in train.numpy()}
    return sum(row.tobytes() in known for row in test.numpy()) / max(len(test), 1)


def _columns(rows: pd.DataFrame) -> dict[str, Tensor]:
    def real(names: Sequence[str]) -> Tensor:
        return torch.as_tensor(rows[list(names)].to_numpy(dtype=np.float32, copy=True))

    def whole(name: str) -> Tensor:
        return torch.as_tensor(rows[name].to_numpy(dtype=np.int64, copy=True))

    return {
        "context": real(INPUT_NAMES),
        "target": real(TARGET_NAMES),
        "halo_id": whole("HaloID"),
        "snapshot": whole("Snapshot"),
        "cluster_id": whole("cluster_id"),
    }


def _target_transform(tau_floor: float) -> Chain:
    """Each target to the whole real line, so that no draw can leave its support.

    The mass ratio nearly is `m_sub / M` times a constant (the masses are of different definitions), until it saturates at 1:
    it is modelled as what it differs by from that.
    """
    capped = PerColumn([Saturation(RATIO_CEILING) if d == RATIO else Identity() for d in range(len(TARGETS))])
    since_merger = Chain(Complement(LOOKBACK, offset=AGE_TODAY, slope=-1.0), Log(tau_floor))
    lines = PerColumn([since_merger, Identity(), Log(), Log(SUBCLUSTER_FLOOR), Log(), Identity()])
    return Chain(capped, Relative(RATIO, to=SUB, over=MAIN), lines)


def input_logarithms(more: int = 0) -> PerColumn:
    """Logarithms of what spans decades, and `more` columns as they are (the components of an embedding).

    Whitened afterwards, since it is the ratios of the masses that tell of a merger: the black hole, stars and gas of a cluster
    all follow its mass, and a merger shows in what they miss of it.
    """
    lines = [Identity() if index == LOOKBACK else Log() for index in range(len(INPUTS))]
    return PerColumn([*lines, *(Identity() for _ in range(more))])


def what_is_known(train: Columns, tau_floor: float) -> dict[str, Any]:
    """What travels beside the weights: units, transforms, baselines, the prior, and the alarm, all of the training split."""
    context, target = train["context"].double(), train["target"].double()
    more = context.shape[1] - len(INPUTS)
    logarithms = input_logarithms(more)(context)[0]
    to_context = Chain(input_logarithms(more), Whiten.fit(logarithms))
    raw = _target_transform(tau_floor)
    to_target = Chain(*raw.steps, Standardise.fit(raw(target, context)[0]))
    w, z = to_context(context)[0].numpy(), to_target(target, context)[0].numpy()
    lookback, time = context[:, LOOKBACK].numpy(), target[:, 0].numpy()
    return {
        "inputs": {column.name: column.unit for column in INPUTS} | {f"embedding_{k}": "" for k in range(more)},
        "targets": {column.name: column.unit for column in TARGETS},
        "context_transform": to_context.to_json(),
        "target_transform": to_target.to_json(),
        "target_sd": target.std(0).tolist(),
        "prior": torch.quantile(target, torch.linspace(0, 1, 201, dtype=torch.float64), dim=0).T.tolist(),
        "baselines": {
            "linear": linear_gaussian(w, z),
            "population": gaussian_population(w, z),
            "lookback": straight_line(lookback, time),
        },
        "context_columns": Chain(input_logarithms(more), Standardise.fit(logarithms)).to_json(),
        "alarm": _alarm(logarithms),
    }


def _alarm(logarithms: Tensor) -> dict[str, Any]:
    """What inputs looked like in training, to ring for one ordinary cluster in a hundred (more, where rows are few)."""
    return TrainingSupport.fit(logarithms, alarm=max(0.01, 6.1 / len(logarithms)), rows=ALARM_ROWS).to_json()


def _refuse_leaks(splits: dict[str, Columns]) -> None:
    for name in ("val", "test"):
        share = repeated_mergers(splits["train"]["target"], splits[name]["target"])
        if share > 0:
            raise DataError(
                f"{share:.0%} of the {name} rows hold a merger that the training split holds too, so cluster_id does not "
                "follow physical clusters through the snapshots. Take it from the merger tree."
            )


def _three(fractions: Sequence[float]) -> tuple[float, float, float]:
    train, val, test = (float(share) for share in fractions)
    return train, val, test
