"""Scores for files: every format alike, and what a model was not trained for is refused."""

import h5py
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from lensfind.predict import predict
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
    (tmp_path / "g.csv").touch()
    refuse(".h5, .hdf5, .npz", tmp_path / "g.csv")
    assert not out.exists()
    predict(None, small.about, tmp_path / "a.npz", out, apply, other_survey=True)
    predict(None, small.about, tmp_path / "b.npz", out, apply, survey="lsst")
    assert out.exists()
