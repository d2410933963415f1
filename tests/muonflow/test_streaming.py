"""Rows on disk: whose muons are whose, who reads what, and what a resumed run sees."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muonflow import Events, MuonBundles, showers
from muonflow.prepare import write_shards
from muonflow.streaming import LANES, StreamOrder, find_files, from_shards, side_of
from skyloom.errors import ConfigError, DataError, MissingFile
from skyloom.training.loading import load


def tagged(first, counts):
    """Events whose muons say in their radius which event is theirs, and whose depth says which they are."""
    count = torch.as_tensor(counts)
    owner = torch.repeat_interleave(torch.arange(len(count)), count) + first
    number = torch.arange(len(count)) + first
    mass = torch.tensor([1.0, 4.0, 14.0])[number // 2 % 3]
    condition = torch.stack([1e6 * (1 + number // 2 % 7), 0.1 * (number // 2 % 11), mass, 300.0 + number], 1)
    muons = torch.stack([10 + torch.rand(len(owner)), 1.0 + owner], 1)
    return Events(condition, count, muons, {"shower": number // 2, "kept": torch.ones(len(count))})


def associated(batch):
    return torch.equal(batch["muons"][:, 1] - 1, batch["condition"][:, 3][batch["owner"]] - 300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    parts = [(tagged(100 * k, rng.poisson(rng.gamma(0.5, 4.0, 100))), None) for k in range(48)]
    about = {"synthetic": True, "oracle": None}
    assert write_shards(where, parts, about, 400)["files"] == 12
    return where


@pytest.fixture(scope="module")
def data(folder):
    return from_shards(str(folder), window=2)


def numbers(batch):
    return (batch["condition"][:, 3] - 300).long().tolist()


def test_splits_are_by_shower_and_hold_every_event_once(data):
    seen = [numbers(split.__getitems__(np.arange(len(split)))) for split in (data.train, data.val, data.test)]
    assert sorted(n for side in seen for n in side) == list(range(4800))
    sides = [{n // 2 for n in side} for side in seen]
    assert not (sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2])
    assert len(seen[0]) / 4800 == pytest.approx(0.8, abs=0.03)
    names = [str(n) for n in range(1000)]
    assert np.array_equal(side_of(names, (0.8, 0.1, 0.1)), side_of(names[::-1], (0.8, 0.1, 0.1))[::-1])


@given(st.lists(st.integers(0, 3000), max_size=60), st.integers(0, 2**20))
@settings(max_examples=25, deadline=None)
def test_muons_stay_with_their_event_whatever_rows_are_asked_for(data, rows, seed):
    batch = data.train.__getitems__(np.array(rows, dtype=np.int64))
    assert associated(batch)
    assert len(batch["count"]) == len(rows)
    alone = [numbers(data.train.__getitems__(np.array([row])))[0] for row in rows[:3]]
    assert numbers(batch)[:3] == alone
    assert len(data.train._cache) <= data.train.held


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("shuffle", ["none", "interleave"])
def test_ranks_and_workers_share_no_row_group_and_no_row(folder, world, shuffle):
    train = from_shards(str(folder), shuffle=shuffle, window=2).train
    order = train.order(len(train), 24, seed=3, world=world)
    assert order.alone
    for epoch in (0, 1):
        rows = order.epoch(epoch)
        assert len(np.unique(rows)) == rows.size
        assert rows.size > 0.75 * len(train)
        readers = {}
        for rank in range(world):
            mine = rows[:, rank::world]
            for lane in range(order.lanes):
                groups = np.searchsorted(train.stop, mine[lane :: order.lanes].ravel(), side="right")
                readers[rank, lane] = set(groups.tolist())
        every = [g for groups in readers.values() for g in groups]
        assert len(every) == len(set(every)), "two readers read one row group"
        parts = [StreamOrder(train, len(train), 24, 3, rank, world, 1).parts(rows[0])[0] for rank in range(world)]
        assert sorted(np.concatenate(parts).tolist()) == sorted(rows[0].tolist())
    if shuffle == "interleave":
        assert not np.array_equal(order.epoch(0), order.epoch(1))
    assert np.array_equal(order.epoch(1), train.order(len(train), 24, seed=3, world=world).epoch(1))


def test_workers_bring_the_same_batches_as_none(data):
    order = data.train.order(len(data.train), 64, seed=0)
    rows = list(order.epoch(0)[:8])
    assert LANES % 2 == 0
    for plain, far in zip(load(data.train, rows, 0), load(data.train, rows, 2), strict=True):
        assert all(torch.equal(plain[name], far[name]) for name in plain)
        assert associated(far)


def test_a_row_group_is_read_once_an_epoch(folder):
    train = from_shards(str(folder), window=2).train
    train.read.clear()
    train._cache.clear()
    order = train.order(len(train), 24, seed=3)
    for lane in range(order.lanes):  # as a worker of its own would
        for rows in order.epoch(0)[lane :: order.lanes]:
            train.__getitems__(rows)
    assert len(train.read) == len(set(train.read))


def test_full_shuffle_takes_rows_from_everywhere(folder):
    train = from_shards(str(folder), shuffle="full").train
    rows = train.order(len(train), 64, seed=0).epoch(0)[0]
    assert len(set(np.searchsorted(train.stop, rows, side="right").tolist())) > 20


class Noting(MuonBundles):
    """A task that notes which events it was trained on, and dies where it is told to."""

    def losses(self, batch):
        assert associated(batch)
        if len(self.seen) == self.killed_at:
            raise KeyboardInterrupt
        self.seen.append(numbers(batch))
        return super().losses(batch)


def test_a_run_that_was_stopped_sees_what_it_lacked(folder, tmp_path):
    """Killed in the middle of its second epoch, and taken up again: the same batches, the same weights."""
    from skyloom.run import Run
    from skyloom.training import Trainer

    settings = {"epochs": 2, "batch_size": 256, "quiet": True, "log_every": 999, "checkpoint_every": 0.0}
    settings["objective"] = [{"metric": "val/nll", "direction": "minimize"}]

    def fit(run, seen, killed_at=None):
        data = from_shards(str(folder), window=2, most_held_out=100)
        torch.manual_seed(0)
        task = Noting(data.about)
        task.seen, task.killed_at = seen, killed_at
        Trainer(**settings).fit(task, data, run=run)
        return task

    whole, parts = [], []
    once = fit(Run.create(tmp_path, {"pkg": "a"}), whole)
    run = Run.create(tmp_path, {"pkg": "b"})
    with pytest.raises(KeyboardInterrupt):
        fit(run, parts, killed_at=len(whole) * 2 // 3)
    again = fit(run, parts)
    assert parts == whole
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), again.parameters(), strict=True))


def test_a_damaged_row_group_is_named_or_left_out(folder, tmp_path):
    import shutil

    import pyarrow.parquet as pq

    shutil.copytree(folder, tmp_path / "s")
    victim = find_files(str(tmp_path / "s"))[3]
    meta = pq.ParquetFile(victim).metadata.row_group(2).column(0)
    content = bytearray(victim.read_bytes())
    begin = meta.dictionary_page_offset or meta.data_page_offset
    content[begin : begin + meta.total_compressed_size] = b"\xff" * meta.total_compressed_size
    victim.write_bytes(content)
    with pytest.raises(DataError, match=rf"{victim.name}, row group 2, cannot be read"):
        from_shards(str(tmp_path / "s"))
    with pytest.warns(UserWarning, match="left out"):
        data = from_shards(str(tmp_path / "s"), corrupt="skip")
    assert data.about["unreadable"] == [f"{victim.name}:2"]
    assert sum(data.sizes().values()) == 4700


def test_the_file_list_is_remembered(folder, tmp_path):
    import shutil

    whole = from_shards(str(folder))
    assert whole.about["files"] == [f"part-{k:05d}.parquet" for k in range(12)]
    shutil.copytree(folder, tmp_path / "s")
    assert from_shards(str(tmp_path / "s")).about["fingerprint"] == whole.about["fingerprint"]
    find_files(str(tmp_path / "s"))[-1].unlink()
    assert from_shards(str(tmp_path / "s")).about["fingerprint"] != whole.about["fingerprint"]


def test_a_file_that_is_still_being_written_is_waited_for(folder, tmp_path):
    import shutil
    import threading

    shutil.copytree(folder, tmp_path / "s")
    last = find_files(str(tmp_path / "s"))[-1]
    content = last.read_bytes()
    last.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"still being written, set data.wait"):
        from_shards(str(tmp_path / "s"))
    writer = threading.Timer(0.3, partial(last.write_bytes, content))
    writer.start()
    assert sum(from_shards(str(tmp_path / "s"), wait=20).sizes().values()) == 4800
    writer.join()


def test_settings_and_folders_that_cannot_be_are_named(tmp_path, folder):
    with pytest.raises(MissingFile, match="make prepare"):
        from_shards(str(tmp_path))
    with pytest.raises(ConfigError, match="shuffle='all'"):
        from_shards(str(folder), shuffle="all")
    events = showers.simulate(2000, index=2.0, seed=0)
    import pandas as pd

    pd.DataFrame({"E0_GeV": events.condition[:, 0].numpy()}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="lacks the columns A, depth_m"):
        from_shards(str(tmp_path))
