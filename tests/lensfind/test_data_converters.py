"""Surveys and archives, each on a small file with the layout of the real one: pixels, labels, positions and truths arrive."""

import h5py
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from converted import convert, spot
from lensfind.data.converters import CONVERTERS, open_source
from lensfind.data.converters.galaxiesml import PUBLISHED
from lensfind.data.converters.source import on_grid, squared
from skyloom.errors import ConfigError, DataError, MissingFile

RNG = np.random.default_rng(0)


def galaxiesml(path, count: int = 10, **changes) -> np.ndarray:
    pixels = RNG.normal(0, 1, (count, 5, 64, 64)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["image"] = pixels
        file["object_id"] = np.arange(40158992189641871, 40158992189641871 + count)
        file["specz_redshift"] = np.linspace(0.01, 3.9, count)
        for band in "grizy":
            file[f"{band}_cmodel_mag"] = np.full(count, 21.5)
            file[f"{band}_sersic_index"] = np.full(count, 1.5)
        for name, values in changes.items():
            del file[name]
            if values is not None:
                file[name] = values
    return pixels


def test_galaxiesml_keeps_all_bits_and_has_no_labels(tmp_path):
    """A median over what was taken for bands, min-max per image, and keys that are not in the file."""
    pixels = galaxiesml(tmp_path / "10_5x64x64_training_with_morphology.hdf5")
    store = convert("galaxiesml", tmp_path / "10_5x64x64_training_with_morphology.hdf5", tmp_path)
    assert np.array_equal(store.read(np.arange(10)), pixels)
    assert store.about["bands"] == ["g", "r", "i", "z", "y"]
    assert (store.table["label"] == -1).all() and (store.table["label_source"] == "pretrain:galaxiesml").all()
    assert store.table["z_spec"].to_numpy() == pytest.approx(np.linspace(0.01, 3.9, 10))
    assert store.table["seeing"].isna().all()  # a constant 0.6 would be invented
    assert store.table["object_id"].iloc[0] == "galaxiesml-40158992189641871"
    assert (store.table["split"] == "train").all()


def test_galaxiesml_for_anything_but_pretraining_is_refused(tmp_path):
    galaxiesml(tmp_path / "a.hdf5")
    with pytest.raises(DataError, match="no lens labels"):
        open_source("galaxiesml", tmp_path / "a.hdf5", usage="train")


def test_galaxiesml_with_other_keys_or_band_last_lists_what_is_there(tmp_path):
    galaxiesml(tmp_path / "a.hdf5", specz_redshift=None)
    with pytest.raises(DataError, match="no data set 'specz_redshift', only .*g_cmodel_mag"):
        open_source("galaxiesml", tmp_path / "a.hdf5")
    galaxiesml(tmp_path / "b.hdf5", image=np.zeros((10, 64, 64, 5), np.float32))
    with pytest.raises(DataError, match="bands before rows and columns"):
        open_source("galaxiesml", tmp_path / "b.hdf5")


def test_a_download_that_broke_off_is_refused(tmp_path):
    name = next(iter(PUBLISHED))
    galaxiesml(tmp_path / name)
    with pytest.raises(DataError, match="download it again"):
        open_source("galaxiesml", tmp_path / name)


def castles(folder, name, band, scale=0.05, extra=(), **cards):
    header = fits.Header(
        {
            "OBJECT": name,
            "FILTER": band,
            "TELESCOP": "HST",
            "PIXSCALE": scale,
            "PHOTFLAM": 7.07e-20,
            "PHOTPLAM": 8045.0,
            "RA": 242.3,
            "DEC": 65.5,
            "EXPTIME": 1000.0,
            "BUNIT": "ELECTRONS/S",
            **cards,
        }
    )
    image = spot(200, 8.0 / (scale / 0.05), 50.0)
    hdus = [fits.PrimaryHDU(image, header), *extra]
    fits.HDUList(hdus).writeto(folder / f"{name.replace('+', 'p')}_{band}.fits")


def test_castles(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    castles(
        folder, "B1608+656", "F814W", REDSHIFT=0.63, extra=[fits.ImageHDU(np.full((200, 200), 4.0, np.float32), name="VAR")]
    )
    castles(folder, "B1608+656", "F555W", scale=0.1)
    castles(
        folder, "Q0957+561", "F814W", REDSHIFT=-1, extra=[fits.ImageHDU(np.ones((200, 200), np.float32))], BUNIT="ELECTRONS"
    )
    store = convert("castles", folder, tmp_path, size=160, variance=True)
    table = store.table
    assert table["label"].tolist() == [1, 1] and table["label_source"].unique().tolist() == ["obs:castles"]
    assert store.about["bands"] == ["F555W", "F814W"]
    assert table["bands"].tolist() == ["F555W,F814W", "F814W"]
    assert table["z_spec"].iloc[0] == 0.63 and np.isnan(table["z_spec"].iloc[1])  # -1 is no redshift
    read = store.read([0, 1])
    factor = 10 ** (0.4 * (31.4 - 25.94))
    assert np.nansum(read[0, 1]) == pytest.approx(50 * factor, rel=5e-3)
    assert np.nansum(read[0, 0]) == pytest.approx(50 * factor, rel=5e-3)  # 0.1" pixels brought to 0.05"
    assert np.nansum(read[1, 1]) == pytest.approx(50 * factor / 1000, rel=5e-3)  # electrons, not electrons per second
    assert np.isnan(read[1, 0]).all()  # no F555W image: unknown, not zero
    assert "lenses only" in capsys.readouterr().err
    found = open_source("castles", folder, size=160).read(0)
    assert np.nanmedian(found.variance[1]) == pytest.approx(4 * factor**2, rel=5e-3)
    assert open_source("castles", folder, size=160).read(1).variance is None  # a second extension alone is no variance


def test_an_empty_folder_of_castles_is_an_error_that_names_it(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="no FITS file"):
        open_source("castles", tmp_path / "in")


def test_galaxy_zoo_votes_make_no_lens_labels(tmp_path):
    """A ring score above 0.5 was taken for a lens."""
    folder = tmp_path / "in"
    (folder / "images").mkdir(parents=True)
    for k in range(6):
        np.save(folder / "images" / f"{k}.npy", RNG.normal(0, 1, (3, 32, 32)).astype(np.float32))
    votes = pd.DataFrame(
        {
            "filename": [f"{k}.npy" for k in range(7)],
            "ra": np.linspace(10, 11, 7),
            "dec": 0.0,
            "t08_odd_feature_a19_ring_debiased": 0.9,
            "t01_smooth_or_features_a01_smooth_debiased": 0.1,
        }
    )
    votes.to_csv(folder / "labels.csv", index=False)
    source = open_source("galaxy_zoo", folder)
    assert any("1 of 7 files are missing" in note for note in source.notes)
    store = convert("galaxy_zoo", folder, tmp_path)
    assert (store.table["label"] == -1).all() and (store.table["label_confidence"] == 0.3).all()
    assert (store.table["gzoo_t08_odd_feature_a19_ring_debiased"] == 0.9).all()


def test_legacy_survey_cutouts(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = RNG.normal(0, 0.05, (5, 3, 64, 64)).astype(np.float32)
    pixels[2, 1] = 0  # no data in r
    for k in range(5):
        cards = fits.Header(
            {
                "SURVEY": "LegacySurvey",
                "BANDS": "grz",
                "CTYPE1": "RA---TAN",
                "CTYPE2": "DEC--TAN",
                "CRVAL1": 150.0 + k,
                "CRVAL2": 2.0,
                "CRPIX1": 32.5,
                "CRPIX2": 32.5,
                "CD1_1": -0.262 / 3600,
                "CD1_2": 0.0,
                "CD2_1": 0.0,
                "CD2_2": 0.262 / 3600,
            }
        )
        fits.PrimaryHDU(pixels[k], cards).writeto(folder / f"cutout_{k}.fits")
    labels = pd.DataFrame(
        {
            "object_id": [f"cutout_{k}" for k in range(5)],
            "label": [1, 0, 0, 1, 0],
            "label_source": "obs:graded",
            "label_confidence": 0.9,
        }
    )
    labels.to_csv(folder / "labels.csv", index=False)
    store = convert("legacy", folder, tmp_path, table="labels.csv")
    assert store.about["bands"] == ["g", "r", "z"] and store.about["survey"]["pixel_scale"] == pytest.approx(0.262, rel=1e-6)
    assert store.table["label"].tolist() == [1, 0, 0, 1, 0]
    assert store.table["ra"].tolist() == pytest.approx([150, 151, 152, 153, 154])
    assert store.read([0]) == pytest.approx(pixels[:1] * 3630.78, rel=1e-4)  # nanomaggies to nJy
    assert np.isnan(store.read([2])[0, 1]).all() and store.table["bands"].iloc[2] == "g,z"
    assert (open_source("legacy", folder).table["label"] == -1).all()  # nobody labelled it: a sample of the sky
    labels[:3].to_csv(folder / "labels.csv", index=False)
    with pytest.raises(DataError, match="no row for 2 objects"):
        open_source("legacy", folder, table="labels.csv")


@pytest.mark.filterwarnings("ignore:Keyword name")
def test_hsc_cutouts(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    cards = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": 150.1,
        "CRVAL2": 2.2,
        "CRPIX1": 20.5,
        "CRPIX2": 20.5,
        "CD1_1": -0.168 / 3600,
        "CD2_2": 0.168 / 3600,
        "CD1_2": 0.0,
        "CD2_1": 0.0,
    }
    for number in (2, 3):
        for band in "GRI" if number == 2 else "GI":
            mask = np.zeros((40, 40), np.int32)
            mask[5, 6] = (1 << 1) | (1 << 5)  # saturated, detected
            mask[7, 8] = 1 << 5  # detected only
            mask_hdu = fits.ImageHDU(
                mask, fits.Header({"MP_BAD": 0, "MP_SAT": 1, "MP_CR": 3, "MP_DETECTED": 5, "MP_NO_DATA": 8}), name="MASK"
            )
            fits.HDUList(
                [
                    fits.PrimaryHDU(header=fits.Header({"FLUXMAG0": 10 ** (0.4 * 27.0)})),
                    fits.ImageHDU(np.full((40, 40), 2.0, np.float32), fits.Header(cards), name="IMAGE"),
                    mask_hdu,
                    fits.ImageHDU(np.full((40, 40), 0.25, np.float32), name="VARIANCE"),
                ]
            ).writeto(folder / f"{number}-cutout-HSC-{band}-9813-pdr2_dud.fits")
    store = convert("hsc_cutouts", folder, tmp_path)
    assert store.about["bands"] == ["g", "r", "i"] and store.about["survey"]["pixel_scale"] == pytest.approx(0.168)
    assert store.table["object_id"].tolist() == ["2", "3"]
    assert store.table["bands"].tolist() == ["g,r,i", "g,i"]
    factor = 10 ** (0.4 * 4.4)
    read = store.read([0, 1])
    assert read[0, 0, 10, 10] == pytest.approx(2 * factor, rel=1e-5)
    assert np.isnan(read[0, :, 5, 6]).all() and np.isfinite(read[0, :, 7, 8]).all()
    assert np.isnan(read[1, 1]).all()
    assert store.table["ra"].tolist() == pytest.approx([150.1, 150.1], abs=1e-6)
    assert open_source("hsc_cutouts", folder).read(0).variance[0, 0, 0] == pytest.approx(0.25 * factor**2, rel=1e-5)


def test_resampling_keeps_flux_and_cropping_keeps_the_centre():
    image = spot(99, 6.0, 100.0)[None]
    for scale in (0.5, 1.0, 1.7, 3.0):
        out = on_grid(image, 1.0, scale, int(99 / scale) // 2 * 2 - 3)
        assert np.nansum(out) == pytest.approx(100, rel=1e-3), scale
    assert squared(image, 31)[0].argmax() == 15 * 31 + 15
    assert np.isnan(squared(image, 101)[0, 0]).all()
    bad = image.copy()
    bad[0, 50, 50] = np.nan
    assert 0 < np.isnan(on_grid(bad, 1.0, 0.5, 60)).sum() < 80


def test_unknown_converters_options_and_inputs_are_mistakes(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean"):
        open_source("bologna3", tmp_path)
    with pytest.raises(ConfigError, match="say where the files are"):
        open_source("legacy", None)
    with pytest.raises(MissingFile):
        open_source("legacy", tmp_path / "none")
    with pytest.raises(ConfigError, match="unexpected keyword argument 'lenses'"):
        open_source("legacy", tmp_path, lenses="x")
    assert set(CONVERTERS) >= {
        "galaxiesml",
        "castles",
        "bologna1",
        "bologna2",
        "galaxy_zoo",
        "legacy",
        "hsc_cutouts",
        "deeplenstronomy",
    }
