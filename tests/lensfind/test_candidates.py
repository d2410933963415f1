"""Lists of candidates: the order, one row per object, the cut, and the files people open."""

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from lensfind.candidates.predicting import predict
from lensfind.candidates.shortlists import candidates, shortlist
from lensfind.candidates.sky import groups_on_sky, match, separation
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


def test_an_empty_list_says_how_far_the_best_is_from_the_purity(run, small):
    done = candidates(run, purity=0.9999)
    assert done["candidates"] == 0 and 0 < done["highest probability"] < 0.9999
    page = (run.directory / "candidates" / "candidates.html").read_text()
    assert f"the highest probability in test.parquet is {done['highest probability']:.2f}" in page
    assert "nan" not in page


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


def test_positions_and_tiles_become_scores_and_a_page_with_pictures(run, small, tmp_path):
    """A cutout from a tile that holds it is the cutout; the tile's header says the survey, the table of scores the tiles."""
    from astropy.io import fits
    from astropy.wcs import WCS

    images, side = small.test["image"][:4].numpy(), int(small.about["size"])
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [2 * side, side / 2]
    pixel = small.about["survey"]["pixel_scale"] / 3600
    wcs.wcs.cdelt = [-pixel, pixel]
    tiles = {}
    for k, band in enumerate(small.about["bands"]):
        header = wcs.to_header()
        header["SURVEY"] = small.about["survey"]["name"]
        tiles[band] = [str(tmp_path / f"{band}.fits")]
        fits.PrimaryHDU(np.concatenate(list(images[:, k]), axis=1), header).writeto(tiles[band][0])
    ra, dec = wcs.wcs_pix2world(np.arange(4) * side + (side - 1) / 2, np.full(4, (side - 1) / 2), 0)
    pd.DataFrame({"ra": ra, "dec": dec}).to_csv(tmp_path / "positions.csv", index=False, float_format="%.9f")

    def means(dataset):
        return {"logit": dataset.__getitems__(np.arange(4))["image"].mean(dim=(1, 2, 3)).numpy() / 1e3}

    predict(None, small.about, tmp_path / "positions.csv", tmp_path / "scores.parquet", means, tiles=tiles)
    scored = pd.read_parquet(tmp_path / "scores.parquet")
    assert scored["logit"].to_numpy() == pytest.approx(images.mean(axis=(1, 2, 3)) / 1e3, rel=1e-4)
    candidates(run, scores=str(tmp_path / "scores.parquet"), output=str(tmp_path / "out"), radius=0.5)
    assert (tmp_path / "out" / "candidates.html").read_text().count("data:image/png;base64") == 4
