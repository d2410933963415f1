"""No object, sky patch or simulation stands on two sides; strata keep their shares; new rows do not reshuffle old ones."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensfind.data.leakage import leakage
from lensfind.data.splits import assign_splits, balance, groups, strata
from skyloom.errors import DataError


def table(count: int, seed: int = 0, lenses: float = 0.3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "object_id": [f"o{k:05d}" for k in range(count)],
            "label": (rng.random(count) < lenses).astype(int),
            "survey": rng.choice(["hsc", "des"], count, p=[0.8, 0.2]),
            "seeing": rng.uniform(0.5, 1.6, count),
            "ra": rng.uniform(0, 0.4, count),
            "dec": rng.uniform(0, 0.4, count),
        }
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(30, 300), st.integers(0, 10**6))
def test_no_group_crosses_and_every_row_has_a_side(count, seed):
    rows = table(count, seed)
    rows["group_id"] = [f"cluster {k % 40}" if k % 3 == 0 else "" for k in range(count)]
    split = assign_splits(rows)
    assert set(split["split"]) <= {"train", "val", "test"}
    for name in ("sky_group_id", "object_id"):
        assert split.groupby(name)["split"].nunique().max() == 1
    linked = split[split["group_id"] != ""]
    assert linked.groupby("group_id")["split"].nunique().max() == 1


def test_neighbours_on_the_sky_are_one_group_whatever_the_order():
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(0, 360, 200), np.degrees(np.arcsin(rng.uniform(-1, 1, 200)))
    near = pd.DataFrame({"object_id": [f"a{k}" for k in range(200)] + [f"b{k}" for k in range(200)], "label": 0})
    near["ra"] = np.concatenate([ra, (ra + 4.9 / 3600 / np.cos(np.radians(dec))) % 360])
    near["dec"] = np.concatenate([dec, dec])
    found = groups(near)
    assert (found[:200] == found[200:]).all()
    assert len(set(found)) == 200
    shuffled = near.sample(frac=1, random_state=0)
    assert dict(zip(shuffled["object_id"], groups(shuffled), strict=True)) == dict(zip(near["object_id"], found, strict=True))
    near["ra"] = np.concatenate([ra, (ra + 5.1 / 3600 / np.cos(np.radians(dec))) % 360])
    assert len(set(groups(near))) == 400


def test_a_chain_of_links_is_one_group():
    rows = pd.DataFrame({
        "object_id": ["a", "b", "c", "d"], "label": 0, "group_id": ["", "A2744", "A2744", ""], "seed": [1, 2, 3, 3],
        "ra": [10, 10 + 3 / 3600, 50, 90], "dec": 0.0,
    })  # fmt: skip
    assert set(groups(rows)) == {"a"}  # a~b on the sky, b~c by cluster, c~d by seed


def test_shares_of_lenses_agree_within_two_points_and_fractions_hold():
    split = assign_splits(table(3000))
    shares = balance(split)
    assert [shares[name]["rows"] / 3000 for name in ("train", "val", "test")] == pytest.approx([0.7, 0.15, 0.15], abs=0.01)
    for name in ("train", "val", "test"):
        assert shares[name]["lenses"] == pytest.approx((split["label"] == 1).mean(), abs=0.02)
        assert shares[name]["survey hsc"] == pytest.approx(0.8, abs=0.03)


def test_class_sorted_rows_do_not_make_a_validation_set_of_one_class():
    """Validation was the last tenth of a class-sorted table, and nine tenths of it were trained on too."""
    split = assign_splits(table(400).sort_values("label", ignore_index=True))
    for name in ("train", "val", "test"):
        assert split.loc[split["split"] == name, "label"].nunique() == 2
    assert len(set(split.index[split["split"] == "train"]) & set(split.index[split["split"] == "val"])) == 0


def test_singleton_strata_are_merged_and_do_not_stop_the_split():
    """Seven factors made 1,500 strata of 2,000 rows, 1,100 of them singletons, and the splitter raised."""
    rows = table(200)
    rows.loc[0, "survey"] = "kids"
    assert pd.Series(strata(rows)).value_counts().min() >= 1
    assert not any(name.startswith(("0|kids", "1|kids")) for name in strata(rows))
    assert assign_splits(rows)["split"].notna().all()


def test_adding_rows_leaves_the_old_ones_where_they_are():
    old = assign_splits(table(500))
    new = table(200, seed=9).assign(object_id=lambda t: "n" + t["object_id"], ra=lambda t: t["ra"] + 10)
    both = assign_splits(pd.concat([old, new], ignore_index=True))
    assert (both["split"][:500] == old["split"]).all()
    fresh = assign_splits(pd.concat([old.drop(columns=["split", "sky_group_id"]), new], ignore_index=True))
    assert (fresh["split"][:500] == old["split"]).mean() > 0.9  # by a hash of the name: only those beside a cut move


def test_a_group_that_was_split_before_is_an_error():
    rows = table(20).assign(group_id="one", split=["train"] * 19 + ["test"])
    with pytest.raises(DataError, match="stands in 'train' and in 'test'"):
        assign_splits(rows)


def test_labels_that_noise_or_seeing_tell_are_found_and_fair_ones_pass():
    """Positives from one telescope and negatives from another teach the telescope."""
    rng = np.random.default_rng(2)
    rows = assign_splits(table(900))
    images = rng.normal(0, 1, (900, 2, 12, 12)).astype(np.float32)
    fair = leakage(rows, images)
    assert not fair.leaks and fair.auroc < 0.6
    noisier = images * np.where(rows["label"] == 1, 1.3, 1.0)[:, None, None, None]
    assert leakage(rows, noisier).leaks
    assert next(iter(leakage(rows, noisier).features)).startswith("noise")
    blurred = rows.assign(seeing=rows["seeing"] + 0.3 * rows["label"])
    assert leakage(blurred, images).leaks
    known_of_lenses = rows.assign(exposure=np.where(rows["label"] == 1, 100.0, np.nan))
    assert leakage(known_of_lenses).leaks  # what is known of lenses only tells them, even where its value does not
    missing = images.copy()
    missing[(rows["label"] == 0).to_numpy(), :, :3] = np.nan
    assert leakage(rows, missing).leaks
