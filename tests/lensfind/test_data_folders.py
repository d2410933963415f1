"""Other programs' output, folders and tiles: pixels, labels and positions arrive."""

import h5py
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from converted import convert
from lensfind.data.converters import open_source
from skyloom.errors import ConfigError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("form", ["npy", "h5"])
def test_deeplenstronomy_output(tmp_path, form):
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = {name: RNG.normal(0, 1, (5, 3, 30, 30)) for name in ("CONFIGURATION_1", "CONFIGURATION_2")}
    for name, images in pixels.items():
        if form == "npy":
            np.save(folder / f"{name}_images.npy", images)
        else:
            with h5py.File(folder / f"{name}_images.h5", "w") as file:
                file["MyDeepLenstronomyDataset"] = images
        metadata = {f"PLANE_1-OBJECT_1-MASS_PROFILE_1-theta_E-{band}": np.linspace(1, 2, 5) for band in "gri"}
        metadata |= {f"seeing-{band}": 0.9 for band in "gri"} | {"PLANE_1-REDSHIFT-g": 0.5}
        pd.DataFrame(metadata).to_csv(folder / f"{name}_metadata.csv", index=False)
    with pytest.raises(ConfigError, match="which configurations are lenses"):
        open_source("deeplenstronomy", folder)
    with pytest.raises(ConfigError, match="Did you mean"):
        open_source("deeplenstronomy", folder, lenses="CONFIGURATION_3")
    store = convert("deeplenstronomy", folder, tmp_path, lenses="CONFIGURATION_2")
    assert store.table["label"].tolist() == [0] * 5 + [1] * 5
    assert store.table["theta_E"].iloc[5:].tolist() == pytest.approx(np.linspace(1, 2, 5))
    assert store.table["theta_E"].iloc[:5].isna().all()  # a dummy profile of a non-lens is no Einstein radius
    assert np.array_equal(store.read([7])[0], pixels["CONFIGURATION_2"][2].astype(np.float32))


def test_any_folder_with_a_table(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = RNG.normal(0, 1, (6, 2, 31, 31)).astype(np.float32)
    for k in range(6):
        np.savez(folder / f"{k}.npz", image=pixels[k])
    pd.DataFrame(
        {
            "object_id": [f"o{k}" for k in range(6)],
            "filepath": [f"{k}.npz" for k in range(6)],
            "label": [1, 0] * 3,
            "bands": "g,i",
            "label_source": "obs:graded",
            "label_confidence": 1.0,
            "pixel_scale": 0.2,
        }
    ).to_csv(folder / "manifest.csv")
    store = convert("folder", folder, tmp_path, size=25)
    assert np.array_equal(store.read(np.arange(6)), pixels[:, :, 3:28, 3:28])
    assert store.table["label"].tolist() == [1, 0] * 3


def test_cutouts_from_tiles_with_known_lenses_marked(tmp_path):
    folder = tmp_path / "in"
    for band in "gi":
        (folder / band).mkdir(parents=True)
        cards = fits.Header(
            {
                "CTYPE1": "RA---TAN",
                "CTYPE2": "DEC--TAN",
                "CRVAL1": 10.0,
                "CRVAL2": 0.0,
                "CRPIX1": 100.0,
                "CRPIX2": 100.0,
                "CDELT1": -0.2 / 3600,
                "CDELT2": 0.2 / 3600,
                "BUNIT": "nJy",
                "TELESCOP": "Rubin",
            }
        )
        fits.PrimaryHDU(RNG.normal(0, 1, (200, 200)).astype(np.float32), cards).writeto(folder / band / "tile.fits")
    positions = pd.DataFrame({"object_id": list("abcd"), "ra": [10.0, 10.003, 9.997, 50.0], "dec": [0.0, 0.001, -0.002, 0.0]})
    positions.to_csv(folder / "positions.csv", index=False)
    catalogue = pd.DataFrame(
        {
            "name": ["J0040"],
            "RA [deg]": [10.003],
            "DEC [deg]": [0.0005],
            "zlens": ["-"],
            "type": ["galaxy"],
            "grading": ["confident"],
            "ref": ["x"],
        }
    )
    catalogue.to_csv(tmp_path / "catalog.csv", index=False)
    store = convert("tiles", folder, tmp_path, bands="g,i", size=32, known_lenses=tmp_path / "catalog.csv")
    assert store.table["object_id"].tolist() == ["a", "b", "c"]  # d lies in no tile
    assert store.table["label"].tolist() == [-1, 1, -1]
    assert store.table["label_source"].tolist() == ["survey", "obs:lenscat", "survey"]
    listed = pd.read_csv(tmp_path / "out" / "known_lenses.csv")
    assert listed["separation"].tolist() == pytest.approx([1.8], abs=1e-3)
