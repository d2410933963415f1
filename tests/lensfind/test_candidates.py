"""Lists of candidates: the order, one row per object, the cut, and the files people open."""

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from lensfind.candidates import candidates, shortlist
from lensfind.sky import groups_on_sky, match, separation
from skyloom.data.tables import write_columns
from skyloom.errors import ConfigError, MissingFile
from skyloom.run import Run


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=40), st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_the_cut_is_the_longest_list_of_the_purity(values, purity):
    p = np.array(values)
    chosen = shortlist(p, purity=purity)
    best = np.sort(p)[::-1]
    assert np.array_equal(p[chosen.rows], best[: len(chosen.rows)])
    lengths = [k for k in range(1, len(p) + 1) if best[:k].mean() >= purity]
    assert len(chosen.rows) == max(lengths, default=0)
    if len(chosen.rows):
        assert chosen.expected_purity >= purity - 1e-12


def test_expected_lenses_are_those_that_turn_up():
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 2.0, 5000)
    chosen = shortlist(p, budget=500)
    found = (rng.random((400, 500)) < p[chosen.rows]).sum(axis=1)
    assert found.mean() == pytest.approx(chosen.expected_lenses, abs=4 * chosen.spread / 20)
    assert found.std() == pytest.approx(chosen.spread, rel=0.15)


def test_the_best_row_of_an_object_is_kept():
    ra = np.array([10.0, 10.0002, 50.0, 10.0, np.nan, np.nan])
    dec = np.array([0.0, 0.0, 0.0, 0.1, 0.0, 0.0])
    chosen = shortlist(np.array([0.5, 0.9, 0.8, 0.1, 0.3, 0.4]), ra, dec, radius=2.0)
    assert chosen.rows.tolist() == [1, 2, 5, 4, 3]
    assert chosen.duplicates == 1


def test_rows_without_probability_are_no_candidates_and_nonsense_is_refused():
    assert shortlist(np.array([np.nan, np.nan])).rows.tolist() == []
    assert np.isnan(shortlist(np.array([])).expected_purity)
    with pytest.raises(ConfigError, match="purity"):
        shortlist(np.ones(2), purity=1.5)
    with pytest.raises(ConfigError, match="budget"):
        shortlist(np.ones(2), budget=-1)


def test_matching_on_the_sphere_is_exact_at_poles_and_across_zero():
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 200), np.degrees(np.arcsin(rng.uniform(-1, 1, 200)))
    moved = dec + 1.5 / 3600
    index, away = match(ra, np.clip(moved, -90, 90), ra, dec, radius=2.0)
    assert (index == np.arange(200)).all()
    assert away == pytest.approx(1.5, abs=1e-3)
    assert (match(ra, dec, ra[:0], dec[:0], 2.0)[0] == -1).all()
    assert float(separation(0.0, 89.9999, 180.0, 89.9999)) == pytest.approx(0.72, abs=1e-6)
    assert len(set(groups_on_sky(np.array([359.9999, 0.0001]), np.zeros(2), 1.0))) == 1
    chain = groups_on_sky(np.array([0.0, 0.0004, 0.0008]), np.zeros(3), 1.5)  # linked step by step
    assert len(set(chain)) == 1


@pytest.fixture
def run(small, tmp_path):
    made = Run.create(tmp_path, {"pkg": "lensfind", "experiment": "x"}, directory=tmp_path / "run")
    made.update(synthetic=True)
    import torch

    from skyloom.training import checkpoints

    made.checkpoints.mkdir()
    checkpoints.save({"about": small.about, "task": {}, "x": torch.zeros(1)}, made.checkpoints, "best")
    rows = np.arange(len(small.test))
    columns = {name: small.test[name].numpy() for name in ("labelled", "lens", "kind", "seed", "theta_E")}
    logit = np.where(columns["lens"] > 0, 2.0, -2.0) + 0.01 * rows
    write_columns(
        made.directory / "predictions" / "test.parquet", {"logit": logit, "calibrated": logit, **columns}, small.about
    )
    return made


def test_the_files_of_a_test_split(run, small):
    done = candidates(run, budget=8)
    folder = run.directory / "candidates"
    table = pd.read_csv(folder / "candidates.csv")
    unlabeled = np.flatnonzero(small.test["labelled"].numpy() == 0)
    assert table["rank"].tolist() == list(range(1, 9))
    assert set(table["id"]) <= set(unlabeled)
    assert "lens" not in table  # the truth is not for the eyes of who inspects
    assert table["probability"].is_monotonic_decreasing
    fits = Table.read(folder / "candidates.fits")
    assert fits["id"].tolist() == table["id"].tolist()
    page = (folder / "candidates.html").read_text()
    assert page.count("data:image/png;base64") == 8
    assert "Synthetic" in page
    assert done["candidates"] == 8


def test_scored_tables_with_positions_give_regions_and_leave_out_known_lenses(run, small, tmp_path):
    n = 5
    scored = {
        "id": np.array([f"J{k}" for k in range(n)]), "ra": np.array([10.0, 10.0001, 20.0, 30.0, 40.0]), "dec": np.zeros(n),
        "logit": np.zeros(n), "probability": np.array([0.9, 0.8, 0.7, 0.1, np.nan]),
        "known_lens": np.array(["", "", "SDSS", "", ""]),
    }  # fmt: skip
    write_columns(run.directory / "predictions" / "field.parquet", scored, {})
    done = candidates(run, output=str(tmp_path / "out"), known=False)
    table = pd.read_csv(tmp_path / "out" / "candidates.csv")
    assert table["id"].tolist() == ["J0", "J3"]
    assert done["duplicates left out"] == 1
    lines = (tmp_path / "out" / "candidates.reg").read_text().splitlines()
    assert lines[3] == 'circle(10.0000000,0.0000000,2") # text={1: 0.900}'
    assert len(lines) == 5
    assert "data:image" not in (tmp_path / "out" / "candidates.html").read_text()  # the input is gone: no pictures


def test_a_run_without_predictions_says_so(tmp_path):
    empty = Run.create(tmp_path, {"pkg": "lensfind"}, directory=tmp_path / "run")
    with pytest.raises(MissingFile, match="make predict"):
        candidates(empty)
