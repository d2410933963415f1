"""No muon is ever torn from its event."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muonflow.events import Events
from muonflow.tables import read_events, stream_conditions, write_events
from skyloom.errors import DataError, MissingFile


def tagged(counts):
    """Events whose muons carry the number of their own event as a third feature."""
    count = torch.tensor(counts, dtype=torch.int64)
    n = len(counts)
    tag = torch.repeat_interleave(torch.arange(n), count)
    condition = torch.stack([torch.arange(n) + 1000.0, torch.zeros(n), torch.ones(n), torch.full((n,), 1500.0)], 1)
    muons = torch.stack([torch.arange(len(tag)) + 1.0, torch.ones(len(tag)), tag.float()], 1)
    return Events(condition, count, muons, {"event": torch.arange(n), "shower": torch.arange(n) // 2})


def associated(batch):
    """The association detector: does every muon's tag name the event it is said to belong to?"""
    tags_agree = bool((batch["muons"][:, 2].long() == batch["event"][batch["owner"]]).all())
    counts_agree = bool((torch.bincount(batch["owner"], minlength=len(batch["count"])) == batch["count"]).all())
    return tags_agree and counts_agree and int(batch["count"].sum()) == len(batch["muons"])


counts = st.lists(st.one_of(st.integers(0, 4), st.just(0), st.integers(50, 200)), min_size=1, max_size=40)


@given(counts, st.integers(0, 2**31), st.integers(1, 7), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_muons_stay_with_their_event_through_everything(count, seed, size, world):
    rng = np.random.default_rng(seed)
    events = tagged(count)
    shuffled = events.take(rng.permutation(len(events)))
    assert associated(shuffled.__getitems__(rng.permutation(len(events))))
    filtered = shuffled.where(torch.as_tensor(rng.random(len(events)) < 0.7))
    thinned = filtered.where_muons(torch.as_tensor(rng.random(len(filtered.muons)) < 0.6))
    shards = [thinned.shard(rank, world) for rank in range(world)]
    assert sum(len(s) for s in shards) == len(thinned)
    joined = Events.join(shards)
    assert sorted(joined.muons[:, 0].tolist()) == sorted(thinned.muons[:, 0].tolist())
    batches = list(joined.batches(size))
    assert all(associated(batch) for batch in batches)
    assert [len(b["count"]) for b in batches[:-1]] == [size] * max(len(batches) - 1, 0)


def wrong_order(events, permutation):
    """How an earlier loader re-batched: primaries and counts permuted first, then the flat muons cut by the permuted counts."""
    count = events.count[permutation]
    pieces = torch.split(events.muons, count.tolist())
    muons = torch.cat([pieces[k] for k in permutation])
    owner = torch.repeat_interleave(torch.arange(len(count)), count)
    more = {k: v[permutation] for k, v in events.columns.items()}
    return {"condition": events.condition[permutation], "count": count, "muons": muons, "owner": owner, **more}


def test_the_order_that_tore_muons_from_their_primaries_is_detected():
    """Counts and conditions still agree, so a multiplicity head trains as if nothing were wrong; hardly any muon does."""
    rng = np.random.default_rng(0)
    events = tagged(rng.poisson(rng.gamma(0.5, 4.0, 2048)).tolist())
    permutation = torch.as_tensor(rng.permutation(len(events)))
    torn, whole = wrong_order(events, permutation), events.__getitems__(permutation)
    assert torch.equal(torn["count"], whole["count"])
    assert not associated(torn)
    own = (torn["muons"][:, 2].long() == torn["event"][torn["owner"]]).double().mean()
    assert float(own) < 0.01
    assert associated(whole)


def test_dropping_empty_events_leaves_the_others_their_muons():
    events = tagged([0, 3, 0, 1, 0])
    kept = events.where(events.count > 0)
    assert kept.columns["event"].tolist() == [1, 3]
    assert associated(kept.__getitems__(np.arange(2)))


def test_counts_that_do_not_sum_to_the_muons_are_refused():
    with pytest.raises(DataError, match="sum to 3, but there are 2 muons"):
        Events(torch.zeros(2, 4), torch.tensor([1, 2]), torch.zeros(2, 2))
    with pytest.raises(DataError, match="shape"):
        Events(torch.zeros(2, 3), torch.tensor([1, 1]), torch.zeros(2, 2))


@given(counts)
@settings(max_examples=20, deadline=None)
def test_parquet_round_trip_is_exact_and_keeps_empty_events(tmp_path_factory, count):
    events = tagged(count)
    two = Events(events.condition, events.count, events.muons[:, :2], {k: events.columns[k] for k in ("shower",)})
    path = tmp_path_factory.mktemp("table") / "events.parquet"
    half = len(two) // 2
    parts = [two.take(np.arange(half)), two.take(np.arange(half, len(two)))]
    assert write_events(path, [(p, None) for p in parts if len(p)], {"synthetic": True}) == len(two)
    back, about = read_events(path)
    assert torch.equal(back.condition, two.condition)
    assert torch.equal(back.count, two.count)
    assert torch.equal(back.muons, two.muons)
    assert torch.equal(back.columns["shower"], two.columns["shower"])
    assert about["synthetic"] is True


def test_tables_that_cannot_be_used_say_why(tmp_path):
    import pandas as pd

    table = pd.DataFrame({"E0_GeV": [1e5, float("nan")], "zenith_rad": [0.1, 0.2], "A": [1, 4], "depth": [1500.0, 1600.0]})
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match="no column depth_m. Did you mean 'depth'"):
        next(stream_conditions(tmp_path / "a.csv"))
    table.rename(columns={"depth": "depth_m"}).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match="column E0_GeV is not a finite number in row 1"):
        next(stream_conditions(tmp_path / "a.csv"))
    with pytest.raises(MissingFile):
        read_events(tmp_path / "none.parquet")
