"""Tables of earlier productions: every muon arrives with its own event, and what was dropped is told."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from muonflow import physics
from muonflow.layouts import layout_of, mass_number, read_layout
from muonflow.prepare import prepare
from muonflow.tables import read_events
from skyloom.errors import ConfigError, DataError, MissingFile

# three showers at two depths each, the second without muons; the first muon of the last row lies on the axis
PRIMARY = np.array([[1e5, 0.1, 0.938, 1500], [1e5, 0.1, 0.938, 2000], [2e5, 0.5, 3.727, 1500], [2e5, 0.5, 3.727, 2000],
                    [9e6, 0.9, 52.1, 1600], [9e6, 0.9, 52.1, 1700]])  # fmt: skip
BUNDLES = [[[100.0, 3, 4]], [], [], [], [[50.0, 6, 8], [70.0, 0, 5]], [[40.0, 0, 0], [60.0, 5, 12]]]
RADII = [5, 10, 5, 1e-3, 13]


def hdf5(path, primary=PRIMARY, bundles=BUNDLES, wrong_id=None):
    import h5py

    rows, counts, table = [], [], []
    for k, bundle in enumerate(bundles):
        ids = [k // 2 + 1.0, 7.0]
        table.append([*ids, *primary[k, :3], 0.0, primary[k, 3]])
        rows += [[*(ids if k != wrong_id else [99.0, 7.0]), *m, 0.0] for m in bundle] or [[0.0] * 6]
        counts.append(max(len(bundle), 1))
    with h5py.File(path, "w") as file:
        for name, values in (("primaries", table), ("muons", rows)):
            file[name] = np.array(values, dtype=np.float32)
        file["counts"] = np.array(counts, dtype=np.int32)
    return path


def parquet(path, version, primary=PRIMARY, bundles=BUNDLES):
    import pyarrow as pa
    import pyarrow.parquet as pq

    with_r = [[[m[0], float(np.hypot(*m[1:])), *m[1:]] for m in b] for b in bundles]
    columns = {"primary": pa.array(primary.tolist(), pa.list_(pa.float32()))}
    columns["muons"] = pa.array(bundles if version == 1 else with_r, pa.list_(pa.list_(pa.float32())))
    if version == 1:
        columns |= {"primary_major_id": pa.array([2**63 + 5 + k // 2 for k in range(len(primary))], pa.uint64())}
        columns |= {"primary_minor_id": pa.array([3] * len(primary), pa.uint64())}
    pq.write_table(pa.table(columns), path)
    return path


def jsonl(path, primary=PRIMARY, bundles=BUNDLES):
    lines = []
    for k in range(0, len(primary), 2):
        depths = [
            [primary[j, 3], {f"track_{i}": [m[0], float(np.hypot(*m[1:])), *m[1:]] for i, m in enumerate(bundles[j])}]
            for j in (k, k + 1)
        ]
        lines.append(json.dumps({"energy": primary[k, 0], "zenith": primary[k, 1], "mass": primary[k, 2], "depths": depths}))
    path.write_text("\n".join(lines))
    return path


MAKE = {
    "hdf5": lambda folder: hdf5(folder / "a.h5"),
    "parquet_v1": lambda folder: parquet(folder / "a.parquet", 1),
    "parquet_v2": lambda folder: parquet(folder / "a.parquet", 2),
    "jsonl": lambda folder: jsonl(folder / "a.jsonl"),
}


@pytest.mark.parametrize("layout", MAKE)
def test_each_layout_becomes_the_same_events(layout, tmp_path):
    source = MAKE[layout](tmp_path)
    assert layout_of(source) == layout
    report = prepare(output=str(tmp_path / "out"), input=str(source))
    events, about = read_events(tmp_path / "out" / "part-00000.parquet")
    assert events.count.tolist() == [1, 0, 0, 0, 2, 2]
    assert events.muons[:, 0].tolist() == [100, 50, 70, 40, 60]
    assert torch.allclose(events.muons[:, 1], torch.tensor(RADII, dtype=torch.float32), rtol=1e-5)
    assert events.condition[:, 2].tolist() == [1, 1, 4, 4, 56, 56]
    assert torch.allclose(events.condition[:, 3], torch.tensor(PRIMARY[:, 3], dtype=torch.float32))
    assert events.columns["shower"].tolist() == [0, 0, 1, 1, 2, 2]
    assert about["synthetic"] is False
    assert report["events written without muons"] == report["without muons"] == 3
    assert report["muons moved off the axis to 1 mm"] == 1
    # on the axis is no dummy: that row holds two muons
    assert report.get("muons dropped: the muon of zeros of an empty event", 0) == (3 if layout == "hdf5" else 0)


def test_what_no_bundle_can_be_is_dropped_with_its_reason(tmp_path):
    primary = np.array([[1e5, 0.1, 0.938, 1500], [-1.0, 0.1, 1, 1500], [1e5, 2.0, 1, 1500], [1e5, 0.1, 7.3, 1500],
                        [1e5, 0.1, 1, 100], [np.nan, 0.1, 1, 1500], [1e4, 0.1, 56, 1500]])  # fmt: skip
    bundles = [[[10.0, 1, 1], [float("nan"), 1, 1], [-3.0, 1, 1]], [], [[5.0, 1, 1]], [], [], [], [[500.0, 1, 1]]]
    report = Counter()
    (pair,) = read_layout(parquet(tmp_path / "a.parquet", 1, primary, bundles), report)
    assert pair[0].count.tolist() == [1]
    assert report == {
        "events read": 7, "muons read": 5, "events written": 1, "muons written": 1, "events written without muons": 0,
        "muons dropped: not a number": 1, "muons dropped: energy not positive": 1, "events dropped: unknown mass": 1,
        "events dropped: primary not a number": 1, "events dropped: primary energy not positive": 1,
        "events dropped: zenith outside [0, pi/2]": 1, "events dropped: depth not below the firn (200 m)": 1,
        "events dropped: a muon above E0 / A": 1, "muons dropped: the muon of zeros of an empty event": 0,
        "muons moved off the axis to 1 mm": 0, "events dropped: muons of another primary": 0,
    }  # fmt: skip


def test_muons_of_another_primary_are_not_taken_for_its_own(tmp_path):
    report = Counter()
    (pair,) = read_layout(hdf5(tmp_path / "a.h5", wrong_id=4), report)
    assert report["events dropped: muons of another primary"] == 1
    assert pair[0].count.tolist() == [1, 0, 0, 0, 2]


def test_masses_in_gev_and_mass_numbers_are_told_apart():
    given = np.array([0.9383, 3.7274, 13.04, 25.13, 52.1, 1, 4, 14, 27, 56, 0.0, 16.0])
    assert mass_number(given).tolist() == [1, 4, 14, 27, 56, 1, 4, 14, 27, 56, 0, 0]
    assert set(physics.MASS_NUMBERS.values()) == {1, 4, 14, 27, 56}


def test_files_that_cannot_be_converted_say_why(tmp_path):
    with pytest.raises(MissingFile):
        prepare(output=str(tmp_path / "o"), input=str(tmp_path / "none.h5"))
    (tmp_path / "a.jsonl").write_text('{"energy": 1e5}\n')
    with pytest.raises(DataError, match=r"line 1: not a shower \(KeyError: 'zenith'\)"):
        prepare(output=str(tmp_path / "o"), input=str(tmp_path / "a.jsonl"))
    (tmp_path / "b.h5").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        prepare(output=str(tmp_path / "o"), input=str(tmp_path / "b.h5"))
    with pytest.raises(DataError, match="no known layout"):
        layout_of(tmp_path / "a.root")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        prepare(output=str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="on this machine"):
        prepare(output="s3://bucket")


def test_synthetic_shards_hold_what_the_simulation_makes(tmp_path):
    from muonflow import Events, showers

    report = prepare(output=str(tmp_path / "s"), n_showers=210_000, depths=1, index=2.0, seed=4, rows_per_file=10_000)
    files = sorted((tmp_path / "s").glob("*.parquet"))
    assert report["files"] == len(files) == 2
    back = Events.join([read_events(file)[0] for file in files])
    expected = showers.simulate(210_000, 1, 2.0, 0.01, seed=4)
    assert torch.equal(back.muons, expected.muons)
    assert torch.equal(back.count, expected.count)
    assert torch.equal(back.columns["kept"], expected.columns["kept"])
    assert report["without muons"] == int((expected.count == 0).sum()) > 0
    with pytest.raises(ConfigError, match="already holds"):
        prepare(output=str(tmp_path / "s"))
