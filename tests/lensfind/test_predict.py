"""Scores for files: every format alike, in shards that no stop loses, and what a model was not trained for is refused."""

import h5py
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from lensfind.candidates.predicting import predict
from skyloom.errors import DataError

BANDS = ["g", "r", "i"]


@pytest.fixture
def images(small):
    return small.test["image"][:6].numpy().copy()


def apply(dataset):
    """Stands for the network: the mean of each image."""
    rows = [dataset.__getitems__(np.array(part))["image"].mean(dim=(1, 2, 3)).numpy() for part in ([0, 1, 2], [5, 3, 4])]
    together = np.concatenate(rows)
    return {"logit": together[[0, 1, 2, 4, 5, 3]] - together.mean()}


def write(path, images, survey="lsst", bands=BANDS, ids=None):
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["images"] = images
            if ids is not None:
                file["ids"] = ids
            if survey:
                file.attrs["survey"] = survey
            file.attrs["bands"] = bands
    elif path.suffix == ".npz":
        extra = {k: v for k, v in {"survey": survey, "bands": bands, "ids": ids}.items() if v is not None}
        np.savez(path, images=images, **extra)
    else:
        hdu = fits.PrimaryHDU(images)
        hdu.header["SURVEY"], hdu.header["BANDS"] = survey, ",".join(bands)
        hdu.writeto(path)
    return path


@pytest.mark.parametrize("ending", [".h5", ".npz", ".fits"])
def test_every_format_gives_the_same_scores(ending, images, small, tmp_path):
    summary = predict(None, small.about, write(tmp_path / f"in{ending}", images), tmp_path / "out.parquet", apply)
    table = pd.read_parquet(tmp_path / "out.parquet")
    means = images.mean(axis=(1, 2, 3))
    assert table["logit"].to_numpy() == pytest.approx(means - means.mean(), rel=1e-4, abs=1e-3)
    assert table["score"].to_numpy() == pytest.approx(1 / (1 + np.exp(-table["logit"].to_numpy(dtype=float))))
    assert table["id"].tolist() == list(range(6))
    assert summary["cutouts"] == 6


def test_identifiers_are_kept(images, small, tmp_path):
    ids = [f"J{k:04d}" for k in range(6)]
    predict(None, small.about, write(tmp_path / "in.h5", images, ids=ids), tmp_path / "out.parquet", apply)
    assert pd.read_parquet(tmp_path / "out.parquet")["id"].tolist() == ids


def test_a_missing_pixel_is_never_scored(images, small, tmp_path):
    images[2, 1, 5, 5] = np.nan
    summary = predict(
        None, small.about, write(tmp_path / "in.npz", images), tmp_path / "out.parquet", lambda d: {"logit": np.zeros(6)}
    )
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert table["score"].isna().tolist() == [False, False, True, False, False, False]
    assert summary["not finite"] == 1


def test_what_the_model_does_not_know_is_refused(images, small, tmp_path):
    out = tmp_path / "out.parquet"

    def refuse(match, path, **options):
        with pytest.raises(DataError, match=match):
            predict(None, small.about, path, out, apply, **options)

    refuse("trained for 'lsst'", write(tmp_path / "a.npz", images, survey="hsc"))
    refuse("which survey", write(tmp_path / "b.npz", images, survey=None))
    refuse(r"bands \['r', 'g', 'i'\]", write(tmp_path / "c.npz", images, bands=["r", "g", "i"]))
    refuse(r"\[3, 40, 40\]", write(tmp_path / "d.npz", images[..., 4:-4, 4:-4]))
    refuse("N, bands, rows, columns", write(tmp_path / "e.npz", images[0]))
    np.savez(tmp_path / "f.npz", pictures=images)
    refuse("no array `images`", tmp_path / "f.npz")
    (tmp_path / "g.txt").touch()
    refuse(".h5, .hdf5, .npz", tmp_path / "g.txt")
    assert not out.exists()
    predict(None, small.about, tmp_path / "a.npz", out, apply, other_survey=True)
    predict(None, small.about, tmp_path / "b.npz", out, apply, survey="lsst")
    assert out.exists()


def test_shards_give_the_same_table_and_are_taken_up_again(images, small, tmp_path):
    path = write(tmp_path / "in.h5", images, ids=[f"J{k}" for k in range(6)])
    calls = []

    def each(dataset):
        calls.append(len(dataset))
        return {"logit": dataset.__getitems__(np.arange(len(dataset)))["image"].mean(dim=(1, 2, 3)).numpy()}

    def stopped(dataset):
        if len(calls) == 2:
            raise KeyboardInterrupt
        return each(dataset)

    predict(None, small.about, path, tmp_path / "whole.parquet", each)
    assert calls == [6]
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        predict(None, small.about, path, tmp_path / "out.parquet", stopped, shard=2)
    assert not (tmp_path / "out.parquet").exists()
    summary = predict(None, small.about, path, tmp_path / "out.parquet", each, shard=2)
    assert calls == [2, 2, 2]  # two before the stop, one after it
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), pd.read_parquet(tmp_path / "whole.parquet"))
    assert summary["cutouts"] == 6
    assert not list(tmp_path.glob(".*parts"))


def test_shards_of_other_work_are_not_taken_up(images, small, tmp_path):
    path = write(tmp_path / "in.h5", images)

    def fails(dataset):
        if len(dataset) < 3:
            raise KeyboardInterrupt
        return {"logit": np.full(len(dataset), 5.0)}

    with pytest.raises(KeyboardInterrupt):
        predict(None, small.about, path, tmp_path / "out.parquet", fails, shard=4)
    predict(None, small.about, path, tmp_path / "out.parquet", lambda d: {"logit": np.zeros(len(d))}, shard=4, prior=0.01)
    assert (pd.read_parquet(tmp_path / "out.parquet")["logit"] == 0).all()


def test_a_prior_moves_probabilities_and_not_the_ranking(images, small, tmp_path):
    path = write(tmp_path / "in.npz", images)
    logit = np.linspace(-3, 3, 6)

    def calibrated(dataset):
        return {"logit": logit, "calibrated": 0.5 * logit - 1}

    for prior in (None, 1e-3):
        predict(None, small.about, path, tmp_path / f"{prior}.parquet", calibrated, prior=prior)
    usual, rare = (pd.read_parquet(tmp_path / f"{prior}.parquet") for prior in (None, 1e-3))
    assert usual["probability"].to_numpy() == pytest.approx(1 / (1 + np.exp(1 - 0.5 * logit)))
    shift = np.log(1e-3 / 0.999) - np.log(0.1 / 0.9)
    assert rare["probability"].to_numpy() == pytest.approx(1 / (1 + np.exp(1 - 0.5 * logit - shift)))
    assert (rare["score"] == usual["score"]).all()


def test_missing_pixels_may_be_filled_and_are_flagged(images, small, tmp_path):
    images[1, 0, :2, :2] = np.nan
    images[2] = np.nan
    path = write(tmp_path / "in.npz", images)
    predict(None, small.about, path, tmp_path / "out.parquet", lambda d: {"logit": np.zeros(6)}, bad_pixels=0.01)
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert table["flags"].tolist() == ["", "missing pixels", "no score", "", "", ""]
    assert table["probability"].isna().tolist() == [False, False, True, False, False, False]


def test_a_folder_of_files_with_a_broken_one(images, small, tmp_path):
    folder = tmp_path / "cutouts"
    folder.mkdir()
    for k, image in enumerate(images):
        fits.PrimaryHDU(image).writeto(folder / f"c{k}.fits")
    (folder / "c3.fits").write_bytes(b"torn")
    summary = predict(None, small.about, folder, tmp_path / "out.parquet", lambda d: {"logit": np.zeros(len(d))}, survey="lsst")
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert table["id"].tolist() == [f"c{k}.fits" for k in range(6)]
    assert table["flags"].tolist() == ["", "", "", "unreadable,no score", "", ""]
    assert summary["unreadable"] == 1
    assert summary["not finite"] == 0


def test_larger_cutouts_are_cut_about_their_centre(images, small, tmp_path):
    wide = np.pad(images, ((0, 0), (0, 0), (5, 5), (5, 5)), constant_values=np.nan)
    means = []

    def mean(dataset):
        means.append(dataset.__getitems__(np.arange(6))["image"].numpy())
        return {"logit": np.zeros(6)}

    predict(None, small.about, write(tmp_path / "wide.npz", wide), tmp_path / "out.parquet", mean)
    assert np.array_equal(means[0], images)


def test_known_lenses_are_named_with_their_distance(images, small, tmp_path):
    np.savez(
        tmp_path / "in.npz", images=images, survey="lsst", bands=BANDS, ra=np.array([10.0, 10.0, 0.0, 359.9999, 5.0, np.nan]),
        dec=np.array([0.0, 0.001, 0.0, 0.0, 89.9999, 0.0]),
    )  # fmt: skip
    known = pd.DataFrame({"name": ["A", "B", "C"], "ra": [10.0, 0.0001, 185.0], "dec": [0.0002, 0.0, 89.9999]})
    known.to_csv(tmp_path / "known.csv", index=False)
    path = tmp_path / "out.parquet"
    predict(None, small.about, tmp_path / "in.npz", path, lambda d: {"logit": np.zeros(6)}, known=str(tmp_path / "known.csv"))
    table = pd.read_parquet(path)
    assert table["known_lens"].tolist() == ["A", "", "B", "B", "C", ""]
    assert table["known_separation"].to_numpy() == pytest.approx(
        [0.72, np.nan, 0.36, 0.72, 0.72, np.nan], abs=0.01, nan_ok=True
    )
    pd.DataFrame({"ra": [1.0], "dec": [2.0]}).to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(DataError, match="missing: name"):
        predict(None, small.about, tmp_path / "in.npz", tmp_path / "o.parquet", apply, known=str(tmp_path / "bad.csv"))


def test_a_conditioned_model_is_given_what_a_manifest_knows(images, small, tmp_path):
    """Depth and seeing of a data set on disk reach the network; a row without them gets no score."""
    from types import SimpleNamespace

    from lensfind.data.storage import write_store

    table = pd.DataFrame({
        "object_id": [f"o{k}" for k in range(6)], "label": -1, "label_source": "sim:lensfind", "label_confidence": 1.0,
        "seeing": [0.6, 0.7, 0.8, 0.9, 1.0, np.nan],
    })  # fmt: skip
    about = {"bands": BANDS, "size": 40, "unit": "nJy", "synthetic": True, "survey": small.about["survey"]}
    write_store(tmp_path / "store", images, table, about)
    task = SimpleNamespace(conditions={"seeing": [0.8, 0.1]})

    def seeing(dataset):
        return {"logit": dataset.__getitems__(np.arange(6))["seeing"].numpy()}

    predict(task, small.about, tmp_path / "store", tmp_path / "out.parquet", seeing)
    written = pd.read_parquet(tmp_path / "out.parquet")
    assert written["logit"].to_numpy()[:5] == pytest.approx([0.6, 0.7, 0.8, 0.9, 1.0], rel=1e-6)
    assert written["flags"].tolist()[5] == "no score"
