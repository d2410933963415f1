"""Cutouts from survey tiles land where the sky says, whatever the form of the WCS."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from lensfind.data.tiles import Tile, cut_out, pixel_scale
from skyloom.errors import DataError

RA, DEC = 150.1, 2.2


def header(form: str, scale: float = 0.2, angle: float = 30.0, size: int = 200) -> fits.Header:
    degrees = scale / 3600
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    cards = {
        "NAXIS": 2, "NAXIS1": size, "NAXIS2": size, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": RA, "CRVAL2": DEC, "CRPIX1": size / 2, "CRPIX2": size / 2,
    }  # fmt: skip
    if form == "CD":
        cards |= {"CD1_1": -degrees * c, "CD1_2": degrees * s, "CD2_1": degrees * s, "CD2_2": degrees * c}
    elif form == "PC":
        cards |= {"CDELT1": -degrees, "CDELT2": degrees, "PC1_1": c, "PC1_2": -s, "PC2_1": s, "PC2_2": c}
    elif form == "CDELT":
        cards |= {"CDELT1": -degrees, "CDELT2": degrees}
    elif form == "swapped":  # declination first
        cards |= {
            "CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": DEC, "CRVAL2": RA, "CDELT1": degrees, "CDELT2": -degrees,
        }  # fmt: skip
    elif form == "galactic":
        cards |= {
            "CTYPE1": "GLON-CAR",
            "CTYPE2": "GLAT-CAR",
            "CRVAL1": 236.8,
            "CRVAL2": 0.0,
            "CDELT1": -degrees,
            "CDELT2": degrees,
        }
    made = fits.Header()
    for key, value in cards.items():
        made[key] = value
    return made


def write(path, cards, stars, flux=1000.0, size=200):
    y, x = np.indices((size, size))
    image = np.zeros((size, size), dtype=np.float32)
    sky = WCS(cards)
    for ra, dec in stars:
        px, py = sky.all_world2pix(*((dec, ra) if cards["CTYPE1"].startswith("DEC") else (ra, dec)), 0)
        spot = np.exp(-0.5 * ((x - px) ** 2 + (y - py) ** 2) / 2.0**2)
        image += flux * spot / spot.sum() if spot.sum() else 0
    fits.PrimaryHDU(image, cards).writeto(path)
    return path


def centroid(image):
    y, x = np.indices(image.shape)
    image = np.nan_to_num(image)
    return float((image * x).sum() / image.sum()), float((image * y).sum() / image.sum())


@pytest.mark.parametrize("form", ["CD", "PC", "CDELT", "swapped"])
def test_a_star_lies_where_the_cutout_says(form, tmp_path):
    ra, dec = RA + 0.0007, DEC - 0.0011
    path = write(tmp_path / "tile.fits", header(form), [(ra, dec)])
    cutout = cut_out({"i": [path]}, [ra], [dec], size=40)[0]
    assert cutout.image.shape == (1, 40, 40) and cutout.coverage == 1
    assert centroid(cutout.image[0]) == pytest.approx((cutout.x, cutout.y), abs=0.02)
    assert abs(cutout.x - 19.5) <= 0.5 and abs(cutout.y - 19.5) <= 0.5
    again = WCS(fits.Header.fromstring(cutout.wcs, sep="\n"))
    position = again.celestial.all_world2pix(*((dec, ra) if form == "swapped" else (ra, dec)), 0)
    assert [float(v) for v in position] == pytest.approx([cutout.x, cutout.y], abs=1e-3)


@pytest.mark.parametrize(("form", "degrees", "expected"), [("CD", 1e-4, 0.36), ("CDELT", 2e-4, 0.72), ("PC", 1e-4, 0.36)])
def test_the_pixel_scale_is_that_of_the_whole_matrix(form, degrees, expected):
    """|CD1_1| x 3600 gave 0.312 arcsec for 0.360 under a turn of 30 degrees."""
    assert pixel_scale(WCS(header(form, degrees * 3600))) == pytest.approx(expected, rel=1e-6)


def test_a_tile_in_galactic_coordinates_shows_the_same_sky(tmp_path):
    """RA and Dec fed to a Galactic WCS as they are would land elsewhere."""
    cards, star = header("galactic"), SkyCoord(236.801, 0.002, unit="deg", frame="galactic")
    path = write(tmp_path / "tile.fits", cards, [(star.l.deg, star.b.deg)])
    cutout = cut_out({"i": [path]}, [star.icrs.ra.deg], [star.icrs.dec.deg], size=40)[0]
    assert centroid(cutout.image[0]) == pytest.approx((cutout.x, cutout.y), abs=0.02)


def test_at_the_edge_pixels_are_missing_and_the_target_does_not_move(tmp_path):
    """int() truncation and negative starts gave shifted or empty slices."""
    cards = header("CD", angle=0)
    ra, dec = (float(v) for v in WCS(cards).all_pix2world(5.3, 100.2, 0))
    path = write(tmp_path / "tile.fits", cards, [(ra, dec)])
    cutout = cut_out({"i": [path]}, [ra], [dec], size=40)[0]
    assert 0.6 < cutout.coverage < 0.7
    assert np.isnan(cutout.image[0, :, 0]).all() and np.isfinite(cutout.image[0, :, -1]).all()
    assert centroid(cutout.image[0]) == pytest.approx((cutout.x, cutout.y), abs=0.05)
    assert cut_out({"i": [path]}, [ra], [dec], size=40, least_coverage=0.9) == {}


def test_bands_on_other_grids_keep_flux_and_place(tmp_path):
    ra, dec = RA - 0.0004, DEC + 0.0006
    one = write(tmp_path / "i.fits", header("CD", 0.2, 0), [(ra, dec)])
    other = write(tmp_path / "j.fits", header("PC", 0.3, 25), [(ra, dec)])
    cutout = cut_out({"i": [one], "j": [other]}, [ra], [dec], size=64)[0]
    assert cutout.coverage == 1
    assert cutout.image[1].sum() == pytest.approx(1000, rel=2e-3)
    assert centroid(cutout.image[1]) == pytest.approx((cutout.x, cutout.y), abs=0.05)


def test_every_object_comes_from_the_tile_it_lies_deepest_in_and_processes_do_not_matter(tmp_path):
    left, right = header("CDELT"), header("CDELT")
    right["CRVAL1"] = RA - 30 / 3600  # overlaps by ten arcsec
    stars = [(RA + 0.001, DEC), (RA - 30 / 3600, DEC + 0.001), (RA - 16 / 3600, DEC)]
    tiles = {"i": [write(tmp_path / "a.fits", left, stars), write(tmp_path / "b.fits", right, stars)]}
    ra, dec = np.array(stars).T
    alone = cut_out(tiles, np.append(ra, 10.0), np.append(dec, -60.0), size=30)
    assert sorted(alone) == [0, 1, 2]  # the fourth is nowhere
    for row, cutout in alone.items():
        assert cutout.coverage == 1, row
        assert centroid(cutout.image[0]) == pytest.approx((cutout.x, cutout.y), abs=0.05)


def test_what_is_no_tile_is_named(tmp_path):
    fits.PrimaryHDU(np.zeros((8, 8))).writeto(tmp_path / "plain.fits")
    with pytest.raises(DataError, match="no HDU holds an image with a celestial WCS"):
        Tile(tmp_path / "plain.fits")
    with pytest.raises(DataError, match="arcsec per pixel"):
        pixel_scale(WCS(header("CDELT", 20.0)))
