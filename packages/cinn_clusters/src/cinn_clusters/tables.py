"""Reading the merger catalogue: two tables joined row by row, and an account of every row that did not make it.

A target outside its physical support is missing, whatever number stands there: the catalogue writes -1 for an unknown mass,
and a flow would learn it as a mass. Supports: 0 < T < age at the snapshot, M > 0, m_sub >= 0.1 (the catalogue's own cut,
in 1e14 Msun), 0 < q <= 1, and log V, log d finite.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cinn_clusters.columns import INPUT_NAMES, INPUTS, KEY, TARGET_NAMES, TARGETS
from cinn_clusters.cosmology import AGE_TODAY, HUBBLE, r500_from_m500, redshift_at_age
from skyloom.errors import DataError, MissingFile, nearest

__all__ = ["Account", "check_units", "complete_inputs", "join", "read_table", "usable_rows"]

SENTINEL = -1.0  # the catalogue's "unknown"


@dataclass
class Account:
    """Where the rows went: `joined = kept + sum(dropped.values())`; each row is dropped once, for its first reason."""

    observables: int = 0
    unobservables: int = 0
    joined: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    columns: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per column, how many joined rows are missing, sentinel or out of support (a row can count in several)."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_table(path: str | Path, columns: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """The key (HaloID, Snapshot) and the named columns of a CSV file; optional ones where present.

    Raises `DataError` when a column is absent, an identifier is not a whole number, a value is not a number, or a key
    occurs twice.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"no table {path}: give the path of a CSV file with columns {', '.join([*KEY, *columns])}.")
    table = pd.read_csv(path, dtype=dict.fromkeys(KEY, str))
    for name in [*KEY, *columns]:
        if name not in table.columns:
            raise DataError(f"{path} has no column {name!r}.{nearest(name, table.columns)}")
    kept = table[[*KEY, *columns, *(name for name in optional if name in table.columns)]].copy()
    for name in KEY:
        kept[name] = _whole_numbers(kept[name], f"{path}, column {name!r}")
    for name in columns:
        kept[name] = _numbers(kept[name], f"{path}, column {name!r}")
    _refuse_duplicates(kept, str(path))
    return kept


def join(observables: pd.DataFrame, unobservables: pd.DataFrame) -> tuple[pd.DataFrame, Account]:
    """The rows present in both tables, matched on (HaloID, Snapshot), in the order of the first."""
    for name, table in (("observables", observables), ("unobservables", unobservables)):
        _refuse_duplicates(table, f"the {name}")
    targets = unobservables[[*KEY, *TARGET_NAMES]]
    rows = observables.merge(targets, on=list(KEY), how="inner", validate="one_to_one")
    if rows.empty:
        raise DataError("no (HaloID, Snapshot) pair occurs in both tables; are they of the same simulation?")
    return rows, Account(len(observables), len(unobservables), len(rows))


def usable_rows(rows: pd.DataFrame, account: Account, tau_floor: float = 0.0) -> pd.DataFrame:
    """Rows whose inputs and targets are all present and physical; `account` is completed with the reasons of the others.

    `tau_floor` [Gyr]: a merger must precede its snapshot by more than this. A little below zero keeps mergers that the
    catalogue dates at the snapshot itself.
    """
    reasons = _faults(rows, tau_floor)
    account.columns = {
        name: {reason: int(mask.sum()) for reason, mask in faults.items() if mask.any()}
        for name, faults in reasons.items()
        if any(mask.any() for mask in faults.values())
    }
    left = np.ones(len(rows), dtype=bool)
    for name, faults in reasons.items():
        for reason, mask in faults.items():
            fresh = int((left & mask).sum())
            if fresh:
                account.dropped[f"{name}: {reason}"] = fresh
            left &= ~mask
    account.kept = int(left.sum())
    _refuse_empty_columns(rows, left)
    _warn_of_sentinels(account)
    return rows[left].reset_index(drop=True)


def complete_inputs(rows: pd.DataFrame) -> np.ndarray:
    """Mask of rows whose seven inputs are all present and positive where they must be, bool [N]."""
    good = np.ones(len(rows), dtype=bool)
    for column in INPUTS:
        values = rows[column.name].to_numpy()
        good &= np.isfinite(values) & (values > column.low)
    return good


def check_units(rows: pd.DataFrame, tolerance: float = 0.01) -> None:
    """R500 follows from M500 and the redshift; a disagreement beyond `tolerance` means that units were misread."""
    redshift = redshift_at_age(AGE_TODAY - rows["lookback_time_Gyr"].to_numpy())
    expected = r500_from_m500(rows["Group_M_Crit500"].to_numpy() * 1e10 / HUBBLE, redshift)
    ratio = rows["Group_R_Crit500"].to_numpy() / expected
    wrong = np.flatnonzero(~(np.abs(ratio - 1) < tolerance))
    if len(wrong):
        first = rows.iloc[wrong[0]]
        raise DataError(
            f"{len(wrong)} of {len(rows)} rows have an R500 that does not follow from M500 and the lookback time; the first is "
            f"HaloID {first['HaloID']:.0f}, Snapshot {first['Snapshot']:.0f}, whose R500 is {ratio[wrong[0]]:.3g} times the "
            "expected one. Group_M_Crit500 must be in 1e10 Msun/h, Group_R_Crit500 in comoving kpc/h."
        )


def _faults(rows: pd.DataFrame, tau_floor: float) -> dict[str, dict[str, np.ndarray]]:
    """Per column, masks of the rows that are missing, sentinel or out of support: disjoint, in this order."""
    latest = AGE_TODAY - rows["lookback_time_Gyr"].to_numpy() - tau_floor
    faults = {}
    for column in (*INPUTS, *TARGETS):
        values = rows[column.name].to_numpy(dtype=np.float64)
        missing = ~np.isfinite(values)
        outside = ~missing & ~((values > column.low) & (values <= column.high))
        if column.name == "last_T_coll":
            outside |= ~missing & (values >= latest)  # False where the snapshot's own time is missing
        sentinel = outside & (values == SENTINEL)
        faults[column.name] = {"missing": missing, "sentinel": sentinel, "out of support": outside & ~sentinel}
    return faults


def _refuse_empty_columns(rows: pd.DataFrame, left: np.ndarray) -> None:
    for name in (*INPUT_NAMES, *TARGET_NAMES):
        if not np.isfinite(rows[name].to_numpy(dtype=np.float64)).any():
            raise DataError(f"column {name!r} holds no value in any of the {len(rows)} joined rows.")
    if not left.any():
        raise DataError(f"none of the {len(rows)} joined rows is complete; see the units and supports in the README.")


def _warn_of_sentinels(account: Account) -> None:
    for name in TARGET_NAMES:
        unphysical = sum(n for reason, n in account.columns.get(name, {}).items() if reason != "missing")
        if unphysical > 0.01 * account.joined:
            warnings.warn(
                f"{unphysical} of {account.joined} rows hold an impossible {name} (a code for 'unknown', or beyond its "
                "support); they are treated as missing and dropped.",
                stacklevel=3,
            )


def _refuse_duplicates(table: pd.DataFrame, where: str) -> None:
    repeated = table.duplicated(subset=list(KEY))
    if repeated.any():
        first = table[repeated].iloc[0]
        raise DataError(
            f"{where}: {int(repeated.sum())} rows repeat an earlier (HaloID, Snapshot), the first being "
            f"({first['HaloID']}, {first['Snapshot']}). Keep one row of each."
        )


def _whole_numbers(values: Iterable[str], where: str) -> np.ndarray:
    try:
        return np.array([int(value) for value in values], dtype=np.int64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: an identifier must be a whole number ({error}); floats lose digits.") from error


def _numbers(values: pd.Series, where: str) -> pd.Series:
    try:
        return pd.to_numeric(values).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {error}; missing values are written as an empty cell.") from error
