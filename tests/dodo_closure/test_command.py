"""The command line: train at smoke size, figures that show the predictions, predict on a file in the public layout."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dodo_closure import asymptotic_state, draw_states
from dodo_closure.figures import changes, crossing_depth, error_distributions
from dodo_closure.fluxes import to_public, total_density
from dodo_closure.readers import open_source
from skyloom.data.tables import read_columns
from skyloom.errors import DataError
from skyloom.launch.__main__ import main

ROOT = Path(__file__).resolve().parents[2]


def test_the_run_conserves_and_says_that_it_is_synthetic(run):
    result = run.result
    assert result["synthetic"] is True
    metrics = result["metrics"]
    assert metrics["test/conservation"]["value"] < 1e-13
    assert metrics["test/unphysical"]["value"] == 0
    assert metrics["test/mae_smooth"]["value"] < metrics["test/mae_box3d"]["value"] < metrics["test/mae_identity"]["value"]
    figures = (run.directory / "figures" / "figures.json").read_text()
    assert figures.count("ynthetic") >= 3


def test_figures_show_the_saved_predictions(run, tmp_path):
    predictions, about = read_columns(run.directory / "predictions" / "test.parquet")
    shown = error_distributions(predictions, about, tmp_path / "errors.png")
    seen = np.concatenate([panel["predicted"] for panel in shown.values()])
    metric = run.result["metrics"]
    assert seen.size == len(predictions["final"])
    assert shown["families seen in training"]["predicted"].mean() == pytest.approx(metric["test/mae"]["value"], rel=1e-4)
    depth = crossing_depth(predictions, tmp_path / "depth.png", bins=4)
    assert bool((np.diff(depth["ratio"]) > 0).all())
    drawn = changes(predictions, tmp_path / "changes.png")
    truth = predictions["final"][:, 0, 0, 3] - predictions["initial"][:, 0, 0, 3]
    np.testing.assert_array_equal(drawn["truth"], truth)


def write(path: Path, F: torch.Tensor) -> Path:
    with h5py.File(path, "w") as file:
        file["F4_initial(1|ccm)"] = to_public(F).numpy()
    return path


def test_predict_keeps_stable_rows_and_names_what_it_rejects(run, tmp_path):
    F = torch.cat([draw_states("merger", 6, seed=1), draw_states("isotropic", 2, seed=1)])
    F[0, 0, 0, 0] = torch.nan
    F[1, 1, 0, 3] *= -1
    source, target = write(tmp_path / "states.h5", F), tmp_path / "final.parquet"
    here = Path.cwd()
    os.chdir(ROOT)
    try:
        assert main(["predict", f"run={run.directory}", f"input={source}", f"output={target}"]) == 0
    finally:
        os.chdir(here)
    table, about = read_columns(target)
    assert about["synthetic"] is True
    assert table["rejected"].tolist() == ["not finite", "negative density", *[""] * 6]
    assert np.isnan(table["F4_final"][:2]).all()
    np.testing.assert_array_equal(table["F4_final"][6:], to_public(F).numpy()[6:])
    box = to_public(asymptotic_state(F[2:6])[0]).numpy()
    scale = total_density(F[2:6]).numpy()[:, None, None, None]
    assert np.abs((table["F4_final"][2:6] - box) / scale).max() < 0.05


def test_files_that_cannot_be_read_say_why(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["other"] = [1.0]
    with pytest.raises(DataError, match="F4_initial"):
        open_source(tmp_path / "other.h5")
    with pytest.raises(DataError, match="layout="):
        open_source(write(tmp_path / "four.h5", draw_states("merger", 4)))
    whole = write(tmp_path / "whole.h5", draw_states("merger", 5)).read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cut short"):
        open_source(tmp_path / "cut.h5")
