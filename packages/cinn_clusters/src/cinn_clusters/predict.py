"""Posteriors for clusters of which only the catalogue scalars are known."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cinn_clusters.columns import INPUT_NAMES, INPUTS, LOOKBACK, TARGETS
from cinn_clusters.data import input_logarithms
from cinn_clusters.tables import check_units, complete_inputs, read_table
from skyloom.data import Columns
from skyloom.errors import DataError
from skyloom.flows.support import TrainingSupport
from skyloom.run.files import write_whole

__all__ = ["LARGEST_OUTSIDE", "inside_support", "posterior_table", "predict"]

LARGEST_OUTSIDE = 0.05  # share of draws outside the physical support above which a posterior is refused
LEVELS = ("p2.5", "p16", "median", "p84", "p97.5")  # the quantiles of posteriors.QUANTILES


def predict(
    task: torch.nn.Module,
    about: Mapping[str, Any],
    input: Path,
    output: Path,
    apply: Callable[[Any], dict[str, np.ndarray]],
) -> dict[str, Any]:
    """Write a Parquet table of posteriors for the rows of a CSV file.

    Arguments:
        task: The trained `MergerPosterior`; `apply` runs it.
        about: What it knows of the data it was trained on.
        input: CSV with HaloID, Snapshot and the seven inputs, in the units of `cinn_clusters.columns`.
        output: Parquet; per target the median, the 68 and 95 percent intervals, the standard deviation and the most probable
            value, and `inside_training_support`. Beside it, `<output>.draws.h5` holds the draws. A row with a missing input is
            kept, with missing values for its posterior unless the flow was trained with `task.hidden`.
        apply: From a data set to the task's predictions for its rows.

    Returns a summary: rows read, predicted, left without inputs, and outside the training support.
    """
    if "embedding" in about:
        raise DataError("this flow was trained with image embeddings, which a table of scalars lacks: predict from Python.")
    rows = read_table(input, INPUT_NAMES)
    missing_allowed = getattr(task, "hidden", 0.0) > 0
    complete = usable(rows, missing_allowed)
    if not complete.any():
        raise DataError(f"{input}: none of its {len(rows)} rows has all of {', '.join(INPUT_NAMES)}.")
    check_units(rows[complete].dropna(subset=["Group_M_Crit500", "Group_R_Crit500"]))
    context = _context(rows[complete])
    predictions = apply(Columns({"context": context}))
    _refuse_impossible(predictions["outside"])
    inside = np.zeros(len(rows), dtype=bool)
    inside[complete] = inside_support(context, about)
    table = posterior_table(rows, complete, predictions).assign(inside_training_support=inside)
    _write(table, output, about)
    _write_draws(rows[complete], predictions["samples"], output.with_suffix(".draws.h5"), about)
    strangers = int((complete & ~inside).sum())
    if strangers:
        warnings.warn(f"{strangers} rows lie outside what the flow was trained on; their posteriors are extrapolations.")
    return {
        "rows": len(rows),
        "predicted": int(complete.sum()),
        "missing_inputs": int((~complete_inputs(rows)).sum()),
        "outside_training_support": strangers,
    }


def inside_support(context: np.ndarray, about: Mapping[str, Any]) -> np.ndarray:
    """Whether inputs `[N, 7]` resemble the training split, in those that are present (NaN: missing). One ordinary row in a
    hundred does not (see `skyloom.flows.support`)."""
    raw = torch.as_tensor(np.asarray(context, dtype=np.float64))
    return TrainingSupport.from_json(about["alarm"]).familiar(input_logarithms()(raw)[0]).numpy()


def usable(rows: pd.DataFrame, missing_allowed: bool) -> np.ndarray:
    """Mask of rows to predict: all seven inputs are good, or, where the flow was trained for that, the lookback time and any
    other."""
    if not missing_allowed:
        return complete_inputs(rows)
    present = np.stack([np.isfinite(rows[c.name]) & (rows[c.name] > c.low) for c in INPUTS], 1)
    return present[:, LOOKBACK] & (present.sum(1) > 1)


def posterior_table(rows: pd.DataFrame, complete: np.ndarray, predictions: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Identifiers, and per target its posterior; NaN where `complete` is false."""
    columns: dict[str, np.ndarray] = {"HaloID": rows["HaloID"].to_numpy(), "Snapshot": rows["Snapshot"].to_numpy()}
    for d, target in enumerate(TARGETS):
        numbers = {level: predictions["quantiles"][:, d, k] for k, level in enumerate(LEVELS)}
        others = {"sd": predictions["sd"][:, d], "map": predictions["map"][:, d]}
        for name, values in (numbers | others).items():
            column = np.full(len(rows), np.nan, dtype=np.float32)
            column[complete] = values
            columns[f"{target.name}_{name}"] = column
    return pd.DataFrame(columns)


def _refuse_impossible(outside: np.ndarray) -> None:
    share = outside.mean(0)
    worst = int(share.argmax())
    if share[worst] > LARGEST_OUTSIDE:
        raise DataError(
            f"{share[worst]:.1%} of the draws of {TARGETS[worst].name} lie outside its physical support "
            f"(at most {LARGEST_OUTSIDE:.0%} is tolerated): the flow does not describe these clusters."
        )


def _context(rows: pd.DataFrame) -> np.ndarray:
    """The inputs `[N, 7]`, NaN where one is missing or impossible."""
    context = rows[list(INPUT_NAMES)].to_numpy(dtype=np.float32, copy=True)
    low = np.array([column.low for column in INPUTS])
    return np.where(np.isfinite(context) & (context > low), context, np.float32(np.nan))


def _write_draws(rows: pd.DataFrame, samples: np.ndarray, path: Path, about: Mapping[str, Any]) -> None:
    """HDF5: HaloID and Snapshot `[N]`, and per target its draws `[N, S]` with their unit."""
    import h5py

    with write_whole(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["content"] = (
            "draws of a flow trained on synthetic clusters" if about["synthetic"] else "draws of a posterior"
        )
        file.attrs["trained_on"] = str(about["fingerprint"])
        for name in ("HaloID", "Snapshot"):
            file[name] = rows[name].to_numpy()
        for d, target in enumerate(TARGETS):
            draws = file.create_dataset(target.name, data=np.asarray(samples[..., d], dtype=np.float32), compression="gzip")
            draws.attrs["unit"] = target.unit


def _write(table: pd.DataFrame, path: Path, about: Mapping[str, Any]) -> None:
    """Parquet with the unit of each column in its field's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    units = {target.name: target.unit for target in TARGETS}
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    fields = [
        field.with_metadata({"unit": units.get(field.name.rpartition("_")[0], "")}) if "last_" in field.name else field
        for field in arrow.schema
    ]
    kind = "posterior of a flow trained on synthetic clusters" if about["synthetic"] else "posterior"
    metadata = {"content": kind, "trained_on": str(about["fingerprint"])}
    with write_whole(path) as temporary:
        pq.write_table(arrow.cast(pa.schema(fields)).replace_schema_metadata(metadata), temporary)
