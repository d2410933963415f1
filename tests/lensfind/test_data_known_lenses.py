"""Known lenses: read, made unique, matched by position."""

import numpy as np
import pandas as pd
import pytest

from lensfind.data.known_lenses import hits, mark_known, read_lenscat, unique_lenses
from skyloom.errors import DataError, MissingFile


def lenscat(path, rows) -> pd.DataFrame:
    pd.DataFrame(rows, columns=["name", "RA [deg]", "DEC [deg]", "zlens", "type", "grading", "ref"]).to_csv(path, index=False)
    return read_lenscat(path)


ROWS = [
    ("J0011-0845", 2.83435, -8.7643, "-", "galaxy", "confident", "a"),
    ("PSJ0028+0631", 7.09369, 6.5317, "not measured", "galaxy", "probable", "b"),
    ("same lens", 7.09369 + 1.5 / 3600, 6.5317, "0.45", "galaxy", "confident", "c"),
    ("A370", 39.97, -1.58, "0.375", "cluster", "confident", "d"),
    ("at zero", 0.0002, 10.0, "measured", "group", "probable", "e"),
]


def test_lenscat_is_read_with_redshifts_only_where_there_are_numbers(tmp_path):
    table = lenscat(tmp_path / "catalog.csv", ROWS)
    assert table["z_lens"].isna().tolist() == [True, True, False, False, True]
    with pytest.raises(DataError, match="is no position"):
        lenscat(tmp_path / "bad.csv", [("x", 400.0, 0.0, "-", "galaxy", "confident", "r")])
    with pytest.raises(MissingFile):
        read_lenscat(tmp_path / "none.csv")


def test_one_lens_under_two_names_is_one_under_the_best_grade(tmp_path):
    unique = unique_lenses(lenscat(tmp_path / "catalog.csv", ROWS))
    assert len(unique) == 4
    joint = unique[unique["rows"].map(len) == 2].iloc[0]
    assert joint["grading"] == "confident" and joint["names"] == "PSJ0028+0631; same lens"


def test_every_hit_is_listed_with_its_separation(tmp_path):
    catalogue = lenscat(tmp_path / "catalog.csv", ROWS)
    table = pd.DataFrame(
        {
            "object_id": ["near both", "across zero", "far", "nowhere"],
            "ra": [7.09369, 359.9999, 120.0, np.nan],
            "dec": [6.5317 + 2 / 3600, 10.0, 0.0, np.nan],
            "label": -1,
        }
    )
    found = hits(table, catalogue, radius=5)
    assert found["object_id"].tolist() == ["near both", "near both", "across zero"]
    assert found["separation"].tolist() == pytest.approx(
        [2.0, np.hypot(2.0, 1.5 * np.cos(np.radians(6.53))), 0.0003 * 3600 * np.cos(np.radians(10))], abs=1e-3
    )
    assert hits(table, catalogue, radius=1.9)["object_id"].tolist() == ["across zero"]
    with pytest.raises(DataError, match="above 0"):
        hits(table, catalogue, radius=0)


def test_a_non_lens_on_a_confirmed_lens_is_an_error_and_probable_ones_are_marked(tmp_path):
    catalogue = lenscat(tmp_path / "catalog.csv", ROWS)
    table = pd.DataFrame(
        {
            "object_id": ["a", "b"],
            "ra": [2.83435, 0.0002],
            "dec": [-8.7643, 10.0],
            "label": [-1, -1],
            "label_source": "survey",
            "label_confidence": 0.0,
        }
    )
    marked, _ = mark_known(table, catalogue, promote=True)
    assert marked["label"].tolist() == [1, -1] and marked["known_grade"].tolist() == ["confident", "probable"]
    with pytest.raises(DataError, match="labelled no lens, and lies within"):
        mark_known(table.assign(label=0), catalogue)
