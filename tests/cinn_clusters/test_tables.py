"""Every row that is dropped is counted, and every mistake in a file is named."""

import warnings

import numpy as np
import pandas as pd
import pytest

from cinn_clusters.columns import INPUT_NAMES, TARGET_NAMES
from cinn_clusters.data import from_csv
from cinn_clusters.synthetic import merger_catalogue
from cinn_clusters.tables import check_units, join, read_table, usable_rows
from skyloom.errors import DataError, MissingFile


@pytest.fixture
def tables():
    return merger_catalogue(20, seed=1)


def usable(observables, unobservables, **options):
    rows, account = join(observables, unobservables)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return usable_rows(rows, account, **options), account


def test_the_account_adds_up(tables):
    kept, account = usable(*tables)
    assert account.joined == account.observables == 160
    assert account.kept + sum(account.dropped.values()) == account.joined
    assert len(kept) == account.kept > 0
    assert account.dropped["last_M_Crit500_coll: sentinel"] == (tables[1]["last_M_Crit500_coll"] == -1).sum()
    assert account.dropped["last_T_coll: missing"] == tables[1]["last_T_coll"].isna().sum()


def test_a_sentinel_is_never_a_mass(tables):
    kept, _ = usable(*tables)
    assert (kept["last_M_Crit500_coll"] > 0).all()
    rows, account = join(*tables)
    with pytest.warns(UserWarning, match="impossible last_M_Crit500_coll"):
        usable_rows(rows, account)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("last_T_coll", 0.0),
        ("last_T_coll", 14.5),
        ("last_M_Crit500_coll", 0.0),
        ("last_Subcluster_mass", 0.05),
        ("last_Mass_ratio", 0.0),
        ("last_Mass_ratio", 1.2),
        ("last_d_peri", np.inf),
        ("bcg_StellarMass", 0.0),
    ],
)
def test_values_beyond_their_support_are_missing(tables, column, value):
    observables, unobservables = tables
    before, _ = usable(observables, unobservables)
    row = (unobservables[["HaloID", "Snapshot"]] == before.loc[0, ["HaloID", "Snapshot"]]).all(axis=1)
    table = observables if column in INPUT_NAMES else unobservables
    table.loc[row, column] = value
    after, account = usable(observables, unobservables)
    assert len(after) == len(before) - 1
    reason = "missing" if np.isinf(value) else "out of support"
    assert account.columns[column][reason] >= 1


def test_a_merger_dated_at_its_snapshot_is_kept_when_asked(tables):
    observables, unobservables = tables
    joined, _ = usable(observables, unobservables)
    row = (unobservables[["HaloID", "Snapshot"]] == joined.loc[0, ["HaloID", "Snapshot"]]).all(axis=1)
    unobservables.loc[row, "last_T_coll"] = 13.803 - joined.loc[0, "lookback_time_Gyr"] + 0.001
    assert len(usable(observables, unobservables)[0]) == len(joined) - 1
    assert len(usable(observables, unobservables, tau_floor=-0.05)[0]) == len(joined)


def test_rows_match_by_key_and_not_by_place(tables):
    observables, unobservables = tables
    straight, _ = usable(observables, unobservables)
    shuffled, account = usable(observables, unobservables.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(straight, shuffled)
    _, fewer = usable(observables, unobservables.iloc[:100])
    assert (fewer.unobservables, fewer.joined) == (100, 100)
    assert account.joined == 160


def test_repeated_keys_are_refused_with_their_count(tables):
    observables, unobservables = tables
    with pytest.raises(DataError, match="3 rows repeat"):
        join(pd.concat([observables, observables.iloc[:3]]), unobservables)


def test_a_column_without_values_is_named(tables):
    observables, unobservables = tables
    unobservables["last_d_peri"] = np.nan
    with pytest.raises(DataError, match="last_d_peri"):
        usable(observables, unobservables)


def test_misread_units_are_refused(tables):
    observables, _ = tables
    check_units(observables)
    observables["Group_R_Crit500"] /= 0.6774
    with pytest.raises(DataError, match="comoving kpc/h"):
        check_units(observables)


def write(tmp_path, tables):
    paths = tmp_path / "observables1.csv", tmp_path / "unobservables1.csv"
    for table, path in zip(tables, paths, strict=True):
        table.to_csv(path, index=False)
    return paths


def test_files_are_read_as_they_were_written(tmp_path, tables):
    observables, _ = write(tmp_path, tables)
    back = read_table(observables, INPUT_NAMES, optional=["cluster_id"])
    pd.testing.assert_frame_equal(back, tables[0][list(back.columns)])


def test_file_mistakes_are_named(tmp_path, tables):
    observables, unobservables = write(tmp_path, tables)
    with pytest.raises(MissingFile, match="nothing.csv"):
        read_table(tmp_path / "nothing.csv", INPUT_NAMES)
    tables[1].rename(columns={"last_d_peri": "last_dperi"}).to_csv(unobservables, index=False)
    with pytest.raises(DataError, match="no column 'last_d_peri'. Did you mean 'last_dperi'"):
        read_table(unobservables, TARGET_NAMES)
    tables[0].astype({"HaloID": float}).to_csv(observables, index=False)
    with pytest.raises(DataError, match="whole number"):
        read_table(observables, INPUT_NAMES)
    tables[0].astype({"bcg_StellarMass": object}).assign(bcg_StellarMass="heavy").to_csv(observables, index=False)
    with pytest.raises(DataError, match="bcg_StellarMass"):
        read_table(observables, INPUT_NAMES)


def test_a_catalogue_without_cluster_ids_is_refused_and_a_map_mends_it(tmp_path, tables):
    observables, unobservables = write(tmp_path, tables)
    keys = tables[0][["HaloID", "Snapshot", "cluster_id"]]
    tables[0].drop(columns="cluster_id").to_csv(observables, index=False)
    with pytest.raises(DataError, match="names no cluster"):
        from_csv(observables, unobservables)
    keys.to_csv(tmp_path / "clusters.csv", index=False)
    with pytest.warns(UserWarning, match="impossible"):
        data = from_csv(observables, unobservables, tmp_path / "clusters.csv")
    assert sum(data.sizes().values()) == data.about["rows"]["kept"]


def test_halo_ids_passed_off_as_clusters_are_found_out(tmp_path, tables):
    observables, unobservables = write(tmp_path, tables)
    tables[0].assign(cluster_id=tables[0]["HaloID"]).to_csv(observables, index=False)
    with pytest.raises(DataError, match="merger tree"), pytest.warns(UserWarning, match="impossible"):
        from_csv(observables, unobservables)
