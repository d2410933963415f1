"""The join: floating-point identifiers, null codes, repeats, two kinds of identifier, and the order of rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings import Catalogue, EmbeddingSet, join
from embeddings.objects.identifiers import NO_IDENTIFIER, as_identifiers, null_mask
from embeddings.samples.matching import match, overlap_table
from skyloom.errors import DataError

EUCLID = 2_700_000_000_000_000_000


def embedded(ids, key="object_id", model="m"):
    vectors = np.arange(2.0 * len(ids), dtype=np.float32).reshape(-1, 2)
    return EmbeddingSet(model, {key: np.asarray(ids)}, {"image": vectors})


def catalogue(n=40, seed=0):
    rng = np.random.default_rng(seed)
    ids = {"object_id": EUCLID + np.arange(n), "TARGETID": 39_600_000_000_000_000 + rng.permutation(n)}
    return Catalogue(ids, {"Z": rng.random(n), "LOGM": 10 + rng.random(n)})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floating_point_identifiers_are_refused_with_their_spacing(dtype):
    with pytest.raises(DataError, match="closer than"):
        EmbeddingSet("m", {"object_id": np.array([EUCLID], dtype=dtype)}, {"image": np.zeros((1, 2), np.float32)})
    for damaged in ("2.7e18", "2700000000000000001.0", 2.7e18):
        with pytest.raises(DataError, match="floating point"):
            as_identifiers(np.array([damaged], dtype=object), "here")


def test_the_float_cast_would_have_merged_what_stays_apart_here():
    table = catalogue()
    assert len(np.unique(table.ids["object_id"].astype(np.float64))) == 1  # the trap is real
    rows = match(embedded(table.ids["object_id"][::-1]), table.ids).row
    assert rows.tolist() == list(range(40))[::-1]


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1, max_size=30))
def test_text_that_spells_integers_keeps_every_digit(numbers):
    found = as_identifiers([str(n) for n in numbers], "here")
    assert found.dtype == np.int64
    assert found.tolist() == numbers


def test_nulls_name_no_object_but_a_small_running_number_is_no_null():
    large = np.array([999999, 39_600_000_000_000_001, NO_IDENTIFIER, -1])
    assert null_mask(large).tolist() == [True, False, True, True]
    assert not null_mask(np.arange(10**6 - 3, 10**6 + 3)).any()
    table = Catalogue({"TARGETID": np.array([999999, 999999, 39_600_000_000_000_001])}, {"Z": np.zeros(3)})
    rows = match(embedded([39_600_000_000_000_001, 999999, 999999], "TARGETID"), table.ids).row
    assert rows.tolist() == [-1, -1, 0]


def test_the_kind_of_identifier_is_found_by_overlap_whatever_it_is_called():
    table = catalogue()
    mislabelled = embedded(table.ids["TARGETID"], "object_id")  # calls them object_id, and they are TARGETIDs
    found = match(mislabelled, table.ids)
    assert found.report["used"] == ["object_id", "TARGETID"]
    assert found.row.tolist() == list(range(40))
    pairs = {(p["embedding"], p["catalogue"]): p["matched"] for p in overlap_table(mislabelled.ids, table.ids)}
    assert pairs == {("object_id", "object_id"): 0, ("object_id", "TARGETID"): 40}


def test_text_and_integer_columns_of_the_same_identifiers_match():
    table = Catalogue({"name": np.array(["17", "b", "18"])}, {"Z": np.zeros(3)})
    assert match(embedded([18, 17]), table.ids, warn_below=0).row.tolist() == [1, -1, 0]


def test_repeats_raise_and_poor_matches_warn_or_raise():
    table = catalogue()
    ids = table.ids["object_id"]
    with pytest.raises(DataError, match="more than once"):
        match(embedded(np.append(ids, ids[3])), table.ids)
    with pytest.warns(UserWarning, match="only 50.0%"):
        match(embedded(np.concatenate([ids, ids + 10**6])), table.ids)
    strangers = embedded(ids + 10**9)
    with pytest.raises(DataError, match="no identifier matches"):
        match(strangers, table.ids)
    with pytest.warns(UserWarning, match="no identifier matches"):
        assert (match(strangers, table.ids, allow_no_match=True).row == -1).all()


def test_permuting_rows_of_any_input_changes_nothing():
    table, rng = catalogue(), np.random.default_rng(1)
    one = embedded(table.ids["object_id"][:30], model="one")
    two = embedded(table.ids["TARGETID"][5:], "TARGETID", model="two")
    first = join([one, two], table)
    order = rng.permutation(40)
    shuffled = Catalogue({k: v[order] for k, v in table.ids.items()}, {k: v[order] for k, v in table.numbers.items()})
    second = join([one.take(rng.permutation(30)), two.take(rng.permutation(35))], shuffled)
    assert first.join_report == second.join_report
    for name in first.properties:
        assert np.array_equal(first.properties[name], second.properties[name])
    for a, b in zip(first.embeddings, second.embeddings, strict=True):
        objects = np.flatnonzero(a.present)
        assert np.array_equal(a.present, b.present)
        assert np.array_equal(a[objects], b[objects])


def test_models_meet_in_the_catalogue_and_not_by_their_own_identifiers():
    table = catalogue()
    z = table.numbers["Z"].astype(np.float32)[:, None]
    one = EmbeddingSet("one", {"object_id": table.ids["object_id"][::-1]}, {"image": z[::-1]})
    two = EmbeddingSet("two", {"TARGETID": table.ids["TARGETID"][7:]}, {"image": z[7:]})
    sample = join([one, two], table)
    a, b = sample.embeddings
    both = np.flatnonzero(a.present & b.present)
    assert len(both) == 33
    assert np.array_equal(a[both], b[both])
    assert np.allclose(a[both][:, 0], sample.properties["redshift"][both])
