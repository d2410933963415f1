"""The commands that a user types: train at smoke size, then bundles from the run it left."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from muonflow import BundleGenerator, read_events
from skyloom.launch.__main__ import main
from skyloom.run import list_runs
from skyloom.run.files import read_json

FIGURES = (
    *("energy", "lateral", "multiplicity", "multiplicity_mass", "survival", "mean_multiplicity", "published", "likelihood"),
    *("energy_bins", "lateral_bins", "density", "spread", "pit", "two_sample", "reweighting", "learning"),
)
ROOT = Path(__file__).resolve().parents[2]


def launch(*words: str) -> None:
    assert main(list(words)) == 0


def test_train_then_generate(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in ("SKYLOOM_OVERRIDES", "MAKEFLAGS", "MAKEOVERRIDES"):
        monkeypatch.delenv(name, raising=False)
    where = f"runs_dir={tmp_path / 'runs'}"
    launch(
        "train", "pkg=muonflow", "+experiment=nsf_small", "scale=smoke", "hardware.threads=1", where, "evaluation.every=true"
    )
    (run,) = list_runs(tmp_path / "runs", "muonflow", "nsf_small")
    assert run.result["synthetic"] is True
    assert {"test/nll_excess", "test/cond_gain", "test/multiplicity_tv"} <= run.result["metrics"].keys()
    drawn = read_json(run.directory / "figures" / "figures.json")
    assert [d["file"] for d in drawn] == [f"{n}.png" for n in FIGURES]
    assert all("Synthetic" in d["caption"] and (run.directory / "figures" / d["file"]).stat().st_size > 5000 for d in drawn)
    primaries = pd.DataFrame({"E0_GeV": [1e5, 1e6], "zenith_rad": 0.3, "A": [1, 56], "depth_m": 1500.0, "event_id": ["a", "b"]})
    primaries.to_parquet(tmp_path / "primaries.parquet")
    launch(
        "predict", f"run={run.directory}", f"input={tmp_path / 'primaries.parquet'}", f"output={tmp_path / 'bundles.parquet'}"
    )
    bundles, about = read_events(tmp_path / "bundles.parquet")
    assert about["trained_on"] == "synthetic showers"
    assert pd.read_parquet(tmp_path / "bundles.parquet")["event_id"].tolist() == ["a", "b"]
    assert np.allclose(bundles.condition[:, 0], [1e5, 1e6])
    again = BundleGenerator.from_run(run.directory)([1e5, 1e6], 0.3, [1, 56], 1500.0, seed=3)
    assert torch.equal(again.energy, BundleGenerator.from_run(run.directory)([1e5, 1e6], 0.3, [1, 56], 1500.0, seed=3).energy)
