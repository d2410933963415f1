"""Writing a data set: the same whether interrupted, in parallel, or in one go; and looking at it."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lensfind.data import Store, fresh, stored
from lensfind.data.leakage import leakage
from lensfind.data.manifest import read_manifest, write_manifest
from lensfind.data.synthetic import compose, images_of
from lensfind.data.synthetic_source import simulated_source
from lensfind.look import look
from lensfind.prepare import prepare
from lensfind.simulation.population import Population
from skyloom.errors import ConfigError, DataError

from .conftest import load_survey


def digest(directory: Path) -> dict[str, str]:
    names = [*directory.glob("cutouts-*.h5"), *directory.glob("cutouts-*.tar")]
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(names)}
    rows = pd.read_parquet(directory / "manifest.parquet")
    return files | {"rows": hashlib.sha256(rows.to_json().encode()).hexdigest()}


@pytest.fixture(scope="module")
def prepared(lsst, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("prepared") / "whole"
    prepare(survey=lsst, n=100, output=directory, rows_per_part=32, processes=1, variance=True)
    return directory


def test_what_is_written_is_what_would_be_simulated(prepared, lsst):
    store = Store(prepared)
    assert len(store) == 100 and store.about["synthetic"] is True
    rows = compose(0, "val", 10, 0.2, 0.1, Population())
    drawn = images_of(rows, lsst, Population(), 40, 4)
    index = np.flatnonzero(store.table["split"] == "val")
    assert np.allclose(store.read(index), drawn["image"].numpy(), rtol=1e-5, atol=1e-4)
    assert store.table["seed"].iloc[index].tolist() == rows.seeds.tolist()
    assert store.table["theta_E"].iloc[index].to_numpy() == pytest.approx(drawn["theta_E"].numpy(), nan_ok=True, rel=1e-6)
    assert store.variance(index).min() > 0


def test_labels_kinds_and_truths_agree(prepared):
    """Labels came from folder names; the writer's own records are the manifest."""
    table = Store(prepared).table
    assert ((table["kind"] == "lens") == (table["label"] == 1)).all()
    assert (table["theta_E"].notna() == (table["label"] == 1)).all()
    assert (table["label"][table["labelled"]] == 1).all()
    assert read_manifest(prepared / "manifest.parquet")["object_id"].is_unique


def test_it_trains_with_the_prior_that_it_was_drawn_with(prepared):
    data = stored(prepared)
    assert data.about["class_prior"] == 0.1
    assert data.sizes() == {"train": 80, "val": 10, "test": 10}
    assert {"lens", "theta_E", "arc_snr", "kind", "seed", "labelled"} <= set(data.carry)


def test_an_interrupted_call_goes_on_and_ends_with_the_same_bytes(prepared, lsst, tmp_path, monkeypatch):
    from lensfind.data.writing import Writer

    whole, count = Writer.write, []

    def failing(self, number):
        count.append(number)
        if len(count) == 3:
            raise KeyboardInterrupt
        return whole(self, number)

    arguments = {"survey": lsst, "n": 100, "output": tmp_path / "again", "rows_per_part": 32, "processes": 1, "variance": True}
    monkeypatch.setattr(Writer, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        prepare(**arguments)
    assert not (tmp_path / "again" / "dataset.json").exists()  # an unfinished one cannot be opened
    prepare(**arguments)
    assert count == [0, 1, 2, 2, 3]  # what was written is not written again
    assert digest(tmp_path / "again") == digest(prepared)


def test_a_finished_data_set_is_left_alone_and_another_recipe_is_refused(prepared, lsst, capsys):
    before = digest(prepared)
    arguments = {"survey": lsst, "output": prepared, "rows_per_part": 32, "processes": 1, "variance": True}
    prepare(n=100, **arguments)
    assert "complete already" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="another recipe"):
        prepare(n=200, **arguments)
    assert digest(prepared) == before
    with pytest.raises(ConfigError, match="not empty"):
        prepare(n=100, **{**arguments, "output": prepared.parent})


def test_mistakes_are_named_before_anything_is_written(lsst, tmp_path):
    with pytest.raises(ConfigError, match="say of which survey"):
        prepare(n=100, output=tmp_path / "a")
    with pytest.raises(ConfigError, match="storage='zarr'"):
        prepare(survey=lsst, storage="zarr", output=tmp_path / "a")
    with pytest.raises(ConfigError, match="have no such option"):
        prepare(survey=lsst, lenses="x", output=tmp_path / "a")
    with pytest.raises(ConfigError, match="at least 20"):
        prepare(survey=lsst, n=5, output=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def folder_of_files(folder: Path, count: int, broken: tuple[int, ...] = ()) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(count):
        np.save(folder / f"{k}.npy", rng.normal(0, 1, (2, 16, 16)).astype(np.float32))
    for k in broken:
        (folder / f"{k}.npy").write_bytes(b"not an array")
    table = pd.DataFrame(
        {
            "object_id": [f"o{k}" for k in range(count)],
            "filepath": [f"{k}.npy" for k in range(count)],
            "bands": "g,i",
            "label": np.arange(count) % 2,
            "label_source": "obs:graded",
            "label_confidence": 1.0,
            "pixel_scale": 0.2,
            "checksum": 0,
        }
    )
    write_manifest(folder / "manifest.csv", table)
    return folder


def test_unreadable_objects_are_listed_and_left_out_up_to_a_limit(tmp_path):
    folder = folder_of_files(tmp_path / "in", 40, broken=(5, 17))
    done = prepare(source="folder", input=folder, output=tmp_path / "out", processes=1, bad_limit=0.1, rows_per_part=8)
    assert done["could not be read"].startswith("2 objects")
    store = Store(tmp_path / "out")
    assert len(store) == 38 and not {"o5", "o17"} & set(store.table["object_id"])
    assert [line.split(":")[0] for line in store.about["skipped"]] == ["o5", "o17"]
    with pytest.raises(DataError, match="2 of 40 objects could not be read, more than bad_limit=0.01"):
        prepare(source="folder", input=folder, output=tmp_path / "strict", processes=1)


def test_rows_of_both_storages_are_the_same(tmp_path):
    folder = folder_of_files(tmp_path / "in", 20)
    for storage in ("hdf5", "webdataset"):
        prepare(source="folder", input=folder, output=tmp_path / storage, processes=1, storage=storage, rows_per_part=6)
    one, other = Store(tmp_path / "hdf5"), Store(tmp_path / "webdataset")
    assert np.array_equal(one.read(np.arange(20)), other.read(np.arange(20)))
    assert one.table["checksum"].tolist() == other.table["checksum"].tolist()


def test_the_page_shows_every_kind_with_its_truths(prepared, tmp_path):
    data = stored(prepared)
    done = look(data, output=tmp_path / "page.html", n=3)
    page = (tmp_path / "page.html").read_text()
    assert "synthetic" in page and "LSST" in page
    kinds = {data.about["kinds"][int(k)] for k in data.train["kind"]}
    for kind in kinds:
        assert f"<h2>{kind.replace('_', '-')} <small>" in page
    assert page.count("<article>") == done["cutouts"] > 3
    assert page.count("<figcaption>g</figcaption>") == done["cutouts"]
    assert "http" not in page  # it needs nothing from elsewhere
    assert "θ<sub>E</sub>" in page


def test_the_page_of_fresh_scenes_and_of_augmented_cutouts(prepared, lsst, tmp_path):
    data = fresh(lsst, 24, 8, 8, size=40, seed=0, cache_dir=tmp_path)
    assert look(data, output=tmp_path / "fresh.html", n=2)["cutouts"] > 2
    look(stored(prepared), output=tmp_path / "turned.html", n=2, augmented=True)
    assert "augmented" in (tmp_path / "turned.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lsst", "euclid"])
def test_the_default_sky_tells_no_label_by_noise_psf_or_metadata(name):
    """Measured on 1,200 cutouts: boosted trees and a logistic regression on what is not the galaxy stay below AUROC 0.6."""
    source = simulated_source(load_survey(name), 1200, seed=5)
    pixels = [np.stack([item.image for item in source.read_many(np.arange(k, k + 60))]) for k in range(0, 1200, 60)]
    checked = leakage(source.table, np.concatenate(pixels))
    assert checked.auroc < 0.6 and not checked.leaks


@pytest.mark.slow
def test_processes_do_not_matter(prepared, lsst, tmp_path):
    prepare(survey=lsst, n=100, output=tmp_path / "two", rows_per_part=32, processes=2, variance=True)
    one, two = Store(prepared), Store(tmp_path / "two")
    noise = lsst.sky_sigma().numpy()[:, None, None]
    assert np.abs((two.read(np.arange(100)) - one.read(np.arange(100))) / noise).max() < 1e-3  # a Fourier transform's last bits
    same = ["object_id", "seed", "label", "kind", "split", "filepath", "member"]
    pd.testing.assert_frame_equal(one.table[same], two.table[same])


@pytest.mark.slow
def test_a_killed_call_is_taken_up(tmp_path):
    """Every file that is there is whole, after SIGKILL too."""
    root = Path(__file__).parents[2]
    words = [
        sys.executable,
        "-m",
        "skyloom.launch",
        "prepare",
        "pkg=lensfind",
        "n=600",
        "rows_per_part=50",
        "processes=1",
        f"output={tmp_path / 'killed'}",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SKYLOOM_CACHE": str(tmp_path)}
    process = subprocess.Popen(words, cwd=root, env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "killed").glob("*.rows.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "dataset.json").exists()
    assert subprocess.run(words, cwd=root, env=environment, capture_output=True).returncode == 0
    store = Store(tmp_path / "killed")
    assert len(store) == 600 and len(store.corrupt()) == 0
    assert not list((tmp_path / "killed").glob(".*"))  # no half-written file is left among the whole ones
    assert torch.isfinite(torch.from_numpy(store.read(np.arange(600)))).all()
