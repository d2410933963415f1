"""Converters, each on a small file with the layout of the real one: pixels, labels, positions and truths arrive."""

import h5py
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from lensfind.data import Store
from lensfind.data.converters import CONVERTERS, open_source
from lensfind.data.converters.galaxiesml import PUBLISHED
from lensfind.data.converters.source import on_grid, squared
from lensfind.data.known_lenses import hits, mark_known, read_lenscat, unique_lenses
from lensfind.prepare import prepare
from skyloom.errors import ConfigError, DataError, MissingFile

RNG = np.random.default_rng(0)


def convert(name, input, tmp_path, **options) -> Store:
    prepare(source=name, input=input, output=tmp_path / "out", processes=1, rows_per_part=4, **options)
    return Store(tmp_path / "out")


def spot(size: int, sigma: float = 3.0, flux: float = 1.0) -> np.ndarray:
    r2 = ((np.indices((size, size)) - (size - 1) / 2) ** 2).sum(0)
    image = np.exp(-0.5 * r2 / sigma**2)
    return (flux * image / image.sum()).astype(np.float32)


# ------------------------------------------------------------------- Bologna


def bologna1(folder, ground: bool, count: int = 10) -> np.ndarray:
    """As the challenge ships it: a folder of bands under Public, the key beside it."""
    filters = ["SDSS_R", "SDSS_I", "SDSS_G", "SDSS_U"] if ground else ["EUC_VIS"]
    pixels = RNG.normal(0, 1e-11, (count, len(filters), 101, 101)).astype(np.float32)
    for b, band in enumerate(filters):
        (folder / "Public" / f"Band{b + 1}").mkdir(parents=True)
        for k in range(count):
            plane = pixels[k, b].copy()
            if ground and k == 3:
                plane[40:44, 50] = 100.0
            fits.PrimaryHDU(plane).writeto(folder / "Public" / f"Band{b + 1}" / f"image{band}-{100000 + k}.fits")
    lines = [f"{100000 + k},{k % 2},{0.3 * (k % 2)},{40 * (k % 2)},{5.5}" for k in range(count)]
    head = "ID,is_lens,Einstein_area,numb_pix_lensed_image,flux_lensed_image_in_sigma"
    (folder / "classifications.csv").write_text("\n".join(["# key of the challenge", head, *lines]))
    return pixels


@pytest.mark.parametrize("ground", [False, True], ids=["space", "ground"])
def test_bologna_challenge_1(tmp_path, ground):
    folder = tmp_path / "nonlens_test"  # the folder's name says nothing
    pixels = bologna1(folder, ground)
    store = convert("bologna1", folder, tmp_path)
    assert store.about["bands"] == (["u", "g", "r", "i"] if ground else ["VIS"])
    assert store.table["label"].tolist() == [k % 2 for k in range(10)]
    assert store.table["pixel_scale"].unique().tolist() == [0.2 if ground else 0.1]
    assert store.about["synthetic"] is True
    order = [3, 2, 0, 1] if ground else [0]
    read = store.read(np.arange(10))
    whole = [k for k in range(10) if k != 3 or not ground]
    assert np.array_equal(read[whole], pixels[whole][:, order])
    assert np.isnan(read[3]).sum() == (4 * 4 if ground else 0)  # the mask value 100 is no flux
    assert store.table["bologna_numb_pix_lensed_image"].tolist() == [40.0 * (k % 2) for k in range(10)]


def test_bologna_images_outside_the_key_stay_unlabeled_and_a_second_key_is_asked_about(tmp_path):
    bologna1(tmp_path / "in", ground=False)
    key = tmp_path / "in" / "classifications.csv"
    key.write_text("\n".join(key.read_text().splitlines()[:-2]))
    store = convert("bologna1", tmp_path / "in", tmp_path)
    assert store.table["label"].tolist()[-2:] == [-1, -1] and store.table["label_confidence"].tolist()[-2:] == [0, 0]
    (tmp_path / "in" / "other.csv").write_text(key.read_text())
    with pytest.raises(DataError, match="several keys"):
        open_source("bologna1", tmp_path / "in")


def test_bologna_challenge_2(tmp_path):
    folder, count = tmp_path / "in", 8
    for band, size in (("EUC_VIS", 200), ("EUC_J", 66), ("EUC_H", 66), ("EUC_Y", 66)):
        (folder / "Public" / band).mkdir(parents=True)
        for k in range(count):
            fits.PrimaryHDU(spot(size, 30.0 if size == 200 else 10.0, 1 + k)).writeto(
                folder / "Public" / band / f"image{band}-{200000 + k}.fits"
            )
    columns = [
        "",
        "ID",
        "x_crit",
        "y_crit",
        "source_ID",
        "z_source",
        "z_lens",
        "mag_source",
        "ein_area",
        "n_crit",
        "r_source",
        "crit_area",
        "n_pix_source",
        "source_flux",
        "n_pix_lens",
        "lens_flux",
        "n_source_im",
        "mag_eff",
        "sb_contrast",
        "color_diff",
        "n_gal_3",
        "n_gal_5",
        "n_gal_10",
        "halo_mass",
        "star_mass",
        "mag_lens",
        "n_sources",
    ]
    source_pixels, images, magnification = (
        [0, 21, 20, 300, 50, 50, 50, 50],
        [0, 1, 1, 2, 0, 1, 1, 4],
        [0, 1.7, 1.7, 5, 2, 1.6, 1.61, 9],
    )
    lines = ["#" + str(n) for n in range(28)] + [",".join(columns)]
    for k in range(count):
        row = dict.fromkeys(columns, "0") | {
            "": str(k),
            "ID": str(200000 + k),
            "n_pix_source": str(source_pixels[k]),
            "n_source_im": str(images[k]),
            "mag_eff": str(magnification[k]),
        }
        lines.append(",".join(row.values()))
    (folder / "image_catalog2.0train.csv").write_text("\n".join(lines))
    store = convert("bologna2", folder, tmp_path)
    assert store.about["bands"] == ["VIS", "Y", "J", "H"]
    assert store.table["label"].tolist() == [0, 1, 0, 1, 0, 0, 1, 1]  # n_source_im > 0, mag_eff > 1.6, n_pix_source > 20
    read = store.read(np.arange(count))
    assert read.shape == (count, 4, 200, 200)
    vis, infrared = read[:, 0], read[:, 2]
    assert np.nansum(infrared, axis=(1, 2)) == pytest.approx(
        np.nansum(vis, axis=(1, 2)), rel=2e-3
    )  # flux kept from 0.3" to 0.1"
    assert np.nanmax(np.abs(infrared[4] - vis[4])) < 0.02 * vis[4].max()


# ------------------------------------------------------------------- surveys and archives


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


# ------------------------------------------------------------------- other programs, folders, tiles


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


# ------------------------------------------------------------------- known lenses


def lenscat(path, rows) -> pd.DataFrame:
    pd.DataFrame(rows, columns=["name", "RA [deg]", "DEC [deg]", "zlens", "type", "grading", "ref"]).to_csv(path, index=False)
    return read_lenscat(path)


ROWS = [
    ("J0011-0845", 2.83435, -8.7643, "-", "galaxy", "confident", "a"),
    ("PSJ0028+0631", 7.09369, 6.5317, "not measured", "galaxy", "probable", "b"),
    ("same lens", 7.09369 + 1.5 / 3600, 6.5317, "0.45", "galaxy", "confident", "c"),
    ("A370", 39.97, -1.58, "0.375", "cluster", "confident", "d"),
    ("at zero", 0.0002, 10.0, "measured", "group", "probable", "e"),
]


def test_lenscat_is_read_with_redshifts_only_where_there_are_numbers(tmp_path):
    table = lenscat(tmp_path / "catalog.csv", ROWS)
    assert table["z_lens"].isna().tolist() == [True, True, False, False, True]
    with pytest.raises(DataError, match="is no position"):
        lenscat(tmp_path / "bad.csv", [("x", 400.0, 0.0, "-", "galaxy", "confident", "r")])
    with pytest.raises(MissingFile):
        read_lenscat(tmp_path / "none.csv")


def test_one_lens_under_two_names_is_one_under_the_best_grade(tmp_path):
    unique = unique_lenses(lenscat(tmp_path / "catalog.csv", ROWS))
    assert len(unique) == 4
    joint = unique[unique["rows"].map(len) == 2].iloc[0]
    assert joint["grading"] == "confident" and joint["names"] == "PSJ0028+0631; same lens"


def test_every_hit_is_listed_with_its_separation(tmp_path):
    catalogue = lenscat(tmp_path / "catalog.csv", ROWS)
    table = pd.DataFrame(
        {
            "object_id": ["near both", "across zero", "far", "nowhere"],
            "ra": [7.09369, 359.9999, 120.0, np.nan],
            "dec": [6.5317 + 2 / 3600, 10.0, 0.0, np.nan],
            "label": -1,
        }
    )
    found = hits(table, catalogue, radius=5)
    assert found["object_id"].tolist() == ["near both", "near both", "across zero"]
    assert found["separation"].tolist() == pytest.approx(
        [2.0, np.hypot(2.0, 1.5 * np.cos(np.radians(6.53))), 0.0003 * 3600 * np.cos(np.radians(10))], abs=1e-3
    )
    assert hits(table, catalogue, radius=1.9)["object_id"].tolist() == ["across zero"]
    with pytest.raises(DataError, match="above 0"):
        hits(table, catalogue, radius=0)


def test_a_non_lens_on_a_confirmed_lens_is_an_error_and_probable_ones_are_marked(tmp_path):
    catalogue = lenscat(tmp_path / "catalog.csv", ROWS)
    table = pd.DataFrame(
        {
            "object_id": ["a", "b"],
            "ra": [2.83435, 0.0002],
            "dec": [-8.7643, 10.0],
            "label": [-1, -1],
            "label_source": "survey",
            "label_confidence": 0.0,
        }
    )
    marked, _ = mark_known(table, catalogue, promote=True)
    assert marked["label"].tolist() == [1, -1] and marked["known_grade"].tolist() == ["confident", "probable"]
    with pytest.raises(DataError, match="labelled no lens, and lies within"):
        mark_known(table.assign(label=0), catalogue)


# ------------------------------------------------------------------- the rest


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
