"""Nine ways in which earlier analyses went wrong without anyone noticing, each with the guard that notices."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings import Catalogue, EmbeddingSet, compare, join
from embeddings.objects.properties import PROPERTIES, values
from embeddings.probes.held_out import shuffled
from muonflow import Events
from muonflow.plateau import torn
from skyloom.data import Columns, Data, group_split
from skyloom.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
SENTINELS = (-32768.0, -9999.0, 999999.0, 2.0**31, -(2.0**63), np.inf)
EUCLID = 2_700_000_000_000_000_000


def tagged(counts: list[int]) -> Events:
    """Events whose muons carry the number of the event that they belong to."""
    count = torch.tensor(counts)
    owner = torch.repeat_interleave(torch.arange(len(count)), count).float()
    condition = torch.arange(len(count)).float()[:, None].expand(-1, 4) + 1.0
    return Events(condition, count, torch.stack([0.1 + 0 * owner, owner + 1], 1))


def belong(events: Events) -> bool:
    owner = torch.repeat_interleave(torch.arange(len(events)), events.count)
    assert events.muons is not None
    return bool((events.muons[:, 1] == events.condition[owner, 0]).all())


@given(st.lists(st.integers(0, 6), min_size=4, max_size=30), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_1_rows_stay_with_their_owner_through_shuffle_filter_and_join(counts, seed):
    rng, events = np.random.default_rng(seed), tagged([*counts, 400])
    moved = events.take(rng.permutation(len(events))).where(torch.as_tensor(rng.random(len(events)) < 0.7))
    assert belong(moved) and belong(moved.shard(0, 2)) and belong(moved.where(moved.count > 0))
    columns = Columns({"row": torch.arange(30), "value": torch.arange(30.0)})
    batch = columns.take(rng.permutation(30)).__getitems__(rng.permutation(30)[:9])
    assert torch.equal(batch["row"].float(), batch["value"])


@pytest.mark.parametrize("seed", range(8))
def test_1_the_wrong_order_is_told_from_the_right_one(seed):
    assert not belong(torn(tagged([3, 1, 4, 0, 5, 2, 6, 400]), seed))


def test_2_a_code_for_missing_is_never_a_measurement():
    for wanted in PROPERTIES:
        if wanted.needs:
            continue
        assert np.isfinite(wanted.support).all(), f"{wanted.name} declares no support"
        assert not np.isfinite(values(wanted, {wanted.columns[0]: np.array(SENTINELS)})).any(), wanted.name


@given(st.lists(st.integers(0, 40), min_size=60, max_size=200), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_3_a_split_wants_groups_and_no_group_stands_on_two_sides(groups, seed):
    assert inspect.signature(group_split).parameters["groups"].default is inspect.Parameter.empty
    if len(set(groups)) < 6:
        return
    sides = [set(np.asarray(groups)[rows]) for rows in group_split(groups, (0.6, 0.2, 0.2), seed)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    tables = [Columns({"g": torch.tensor([k, k])}) for k in (0, 1, 0)]
    with pytest.raises(DataError, match="group column"):
        Data(*tables, {"synthetic": True, "fingerprint": "0"}, carry=(), group="g")


def test_4_an_identifier_in_floating_point_is_refused():
    vectors = {"image": np.zeros((2, 3), np.float32)}
    for dtype in (np.float32, np.float64):
        with pytest.raises(DataError, match="floating point|closer than"):
            EmbeddingSet("m", {"object_id": np.array([EUCLID, EUCLID + 1], dtype)}, vectors)
    kept = EmbeddingSet("m", {"object_id": np.array([EUCLID, EUCLID + 1])}, vectors)
    assert len(set(kept.ids["object_id"].tolist())) == 2


def test_5_a_score_comes_with_what_it_is_where_nothing_is_known():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6))
    for one in compare(x, x @ rng.normal(size=(6, 5)), permutations=9, rows=None).values():
        assert np.isfinite([one.null_mean, one.null_sd]).all() and 0 < one.p <= 0.1, one
        assert one.value > one.null_mean + 3 * one.null_sd, one
    copies = shuffled(x[:, :1], np.ones(300, bool), 3, seed=0)
    assert len(copies) == 3 and all(abs(np.corrcoef(x[:, 0], c[:, 0])[0, 1]) < 0.3 for c in copies)


def test_6_axes_state_the_unit_that_the_values_are_in():
    for wanted in PROPERTIES:
        assert (f"[{wanted.unit}]" in wanted.axis) == bool(wanted.unit)
        logarithm = wanted.name.startswith("log_")
        assert logarithm == wanted.label.startswith("log "), f"{wanted.name} is labelled {wanted.label}"


def test_7_every_object_is_drawn_or_counted_as_missing():
    from embeddings.figures.pieces import scatter
    from skyloom.plots import panels

    shown = np.r_[np.linspace(0, 1, 90), np.full(10, 1e6), np.full(23, np.nan)]
    _, axes = panels(1, 1)
    layer, (coloured, grey) = scatter(axes, np.random.default_rng(0).normal(size=(123, 2)), shown, (0.0, 1.0), "viridis")
    assert (coloured, grey) == (100, 23)  # values beyond the colour limits saturate, they do not vanish
    assert sum(len(drawn.get_offsets()) for drawn in axes.collections) == 123 and len(layer.get_offsets()) == 100


def test_8_an_identifier_that_names_two_objects_is_an_error():
    once = EmbeddingSet("m", {"object_id": EUCLID + np.arange(5)}, {"image": np.zeros((5, 2), np.float32)})
    twice = EmbeddingSet("m", {"object_id": EUCLID + np.array([0, 1, 1, 2, 3])}, {"image": np.zeros((5, 2), np.float32)})
    table = Catalogue({"object_id": EUCLID + np.arange(5)}, {"Z": np.arange(5.0)})
    repeated = Catalogue({"object_id": EUCLID + np.array([0, 1, 2, 3, 3])}, {"Z": np.arange(5.0)})
    assert join([once], table).embeddings[0].present.all()
    for sets, against in (([twice], table), ([once], repeated)):
        with pytest.raises(DataError, match="more than once"):
            join(sets, against)


def test_9_no_path_of_one_machine_and_nothing_that_runs_when_it_is_read():
    absolute = re.compile(r"""["'\s:=](/(home|Users|scratch|data|mnt|work|root)/[\w.-]+)""")
    unsafe = re.compile(r"pickle\.loads?\(|weights_only=False|allow_pickle=True|joblib\.load\(|yaml\.load\((?!.*Safe)")
    for path in [*ROOT.glob("conf/**/*.yaml"), *ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("shared/src/**/*.py")]:
        text = path.read_text()
        assert not absolute.findall(text), f"{path.relative_to(ROOT)} names a place of one machine"
        assert not unsafe.findall(text), f"{path.relative_to(ROOT)} reads what may run code"
