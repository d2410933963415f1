"""One small run of the default experiment, shared by the tests that look at runs."""

import os
from pathlib import Path

import pytest

from skyloom.launch.__main__ import main
from skyloom.run import Run, list_runs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Run:
    folder, here = tmp_path_factory.mktemp("dodo"), Path.cwd()
    os.chdir(ROOT)
    words = ["train", "pkg=dodo_closure", "+experiment=equivariant", "scale=smoke", "hardware.threads=1", "hardware=cpu"]
    try:
        assert main([*words, "logger=none", f"runs_dir={folder}/runs", f"cache_dir={folder}/cache"]) == 0
    finally:
        os.chdir(here)
    return list_runs(folder / "runs")[0]
