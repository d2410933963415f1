"""The two Bologna challenges, each on a small file with the layout of the real one."""

import numpy as np
import pytest
from astropy.io import fits

from converted import convert, spot
from lensfind.data.converters import open_source
from skyloom.errors import DataError

RNG = np.random.default_rng(0)


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
