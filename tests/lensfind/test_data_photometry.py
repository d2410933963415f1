"""PSF matching, units and stretch: moments, fluxes and ratios come out as the formulas say."""

import numpy as np
import pytest

from lensfind.data.photometry import arcsinh_stretch, mask_saturated, normalise, survey_of, to_nanojansky, zero_point_of
from lensfind.data.psf import gaussian_psf, match_psf, moment_fwhm, stacked_psf
from skyloom.errors import DataError

SCALE = 0.168  # arcsec, HSC


def star(shape: tuple[int, int], fwhm: float, x: float, y: float, flux: float = 1.0) -> np.ndarray:
    """A Gaussian star, integrated over pixels finely."""
    rows, columns = np.indices(shape)
    sigma = fwhm / 2.354820045 / SCALE
    image = np.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2) / sigma**2)
    return flux * image / image.sum()


@pytest.mark.parametrize("shape", [(127, 127), (128, 96), (128, 128), (64, 65)])
def test_psf_matching_keeps_flux_and_reaches_the_target_on_any_frame(shape):
    """Integer frequency grids gave 2.2% less flux on odd frames, and two widths on oblong ones."""
    image = star(shape, 0.6, shape[1] / 2 - 0.3, shape[0] / 2 + 0.2)
    source, target = gaussian_psf(0.6, 41, SCALE), gaussian_psf(1.0, 41, SCALE)
    matched, _ = match_psf(image, source, target)
    assert matched.sum() == pytest.approx(1, abs=1e-6)
    assert moment_fwhm(matched, SCALE) == pytest.approx(1.0, abs=0.005)
    y, x = np.indices(shape)
    centre = (matched * x).sum(), (matched * y).sum()
    assert centre == pytest.approx((shape[1] / 2 - 0.3, shape[0] / 2 + 0.2), abs=1e-6)
    second = [(matched * (axis - c) ** 2).sum() for axis, c in zip((x, y), centre, strict=True)]
    assert second[0] == pytest.approx(second[1], rel=1e-3)


def test_matching_uses_the_measured_psfs_not_their_widths():
    """A Moffat source: a Gaussian kernel of the right width would leave its wings."""
    size = 61
    r2 = ((np.indices((size, size)) - size // 2) ** 2).sum(0)
    moffat = (1 + r2 / 3.0**2) ** -3.5
    moffat /= moffat.sum()
    target = gaussian_psf(1.6, size, SCALE)
    image = np.zeros((121, 121))
    image[30:91, 30:91] = moffat
    matched, _ = match_psf(image, moffat, target)
    expected = np.zeros_like(image)
    expected[30:91, 30:91] = target
    assert np.abs(matched - expected).max() < 2e-3 * expected.max()
    sigma2 = moment_fwhm(target) ** 2 - moment_fwhm(moffat) ** 2
    blurred, _ = match_psf(
        image, gaussian_psf(0.6, 41, SCALE), gaussian_psf(np.sqrt(0.36 + max(sigma2, 0) * SCALE**2), 41, SCALE)
    )
    assert np.abs(blurred - expected).max() > 5 * np.abs(matched - expected).max()


def test_light_does_not_wrap_around_the_frame():
    image = star((64, 64), 0.6, 2.0, 32.0)
    matched, _ = match_psf(image, gaussian_psf(0.6, 41, SCALE), gaussian_psf(1.4, 41, SCALE))
    assert np.abs(matched[:, -10:]).max() < 1e-6 * matched.max()


def test_variance_is_convolved_with_the_squared_kernel():
    rng = np.random.default_rng(0)
    source, target = gaussian_psf(0.6, 31, SCALE), gaussian_psf(1.0, 31, SCALE)
    noise = rng.normal(0, 2.0, (300, 300))
    matched, variance = match_psf(noise, source, target, variance=np.full_like(noise, 4.0))
    inner = slice(40, -40)
    assert variance[inner, inner].mean() == pytest.approx(matched[inner, inner].var(), rel=0.05)
    assert variance[inner, inner].mean() < 1.0  # a blur correlates noise and lowers it


def test_a_target_narrower_than_the_source_is_refused():
    with pytest.raises(DataError, match="narrower"):
        match_psf(np.zeros((64, 64)), gaussian_psf(1.0, 31, SCALE), gaussian_psf(0.6, 31, SCALE))


def test_bad_pixels_stay_bad_and_do_not_spread_as_zeros():
    image = np.ones((64, 64))
    image[30:33, 30:33] = np.nan
    matched, _ = match_psf(image, gaussian_psf(0.6, 31, SCALE), gaussian_psf(0.8, 31, SCALE))
    assert np.isnan(matched[31, 31])
    good = np.isfinite(matched)
    good[:8], good[-8:], good[:, :8], good[:, -8:] = False, False, False, False
    assert np.abs(matched[good] - 1).max() < 0.02


def test_psf_is_measured_from_stars_to_a_fraction_of_a_pixel():
    rng = np.random.default_rng(3)
    positions = rng.uniform(30, 270, (14, 2))
    field = sum(star((300, 300), 0.9, x, y, 1e4) for x, y in positions) + rng.normal(0, 0.3, (300, 300))
    rough = positions + rng.uniform(-0.5, 0.5, positions.shape)
    psf = stacked_psf(field, rough, size=31)
    assert psf.sum() == pytest.approx(1)
    assert np.abs(psf - gaussian_psf(0.9, 31, SCALE)).max() < 0.02 * psf.max()
    with pytest.raises(DataError, match="needs at least 3"):
        stacked_psf(field, rough[:2], size=31)


def test_the_same_star_has_the_same_flux_in_two_surveys():
    magnitude = 21.3
    hsc, _ = normalise(np.array([[10 ** (-0.4 * (magnitude - 27.0))]]), zero_point_of({"TELESCOP": "Subaru"}))
    sdss, _ = normalise(np.array([[10 ** (-0.4 * (magnitude - 22.5))]]), zero_point_of({"BUNIT": "nanomaggy"}))
    assert hsc == pytest.approx(sdss, rel=1e-6)
    assert hsc[0, 0] == pytest.approx(10 ** (-0.4 * (magnitude - 31.4)), rel=1e-6)
    # ACS F814W, from the header's own cards: 25.94, and not the 25.0 of a table
    assert zero_point_of({"TELESCOP": "HST", "PHOTFLAM": 7.0723e-20, "PHOTPLAM": 8045.0}) == pytest.approx(25.94, abs=0.01)
    assert zero_point_of({"BUNIT": "MJy/sr", "PIXAR_SR": 1e-15}) == pytest.approx(31.4)
    assert zero_point_of({"FLUXMAG0": 10 ** (0.4 * 27)}) == pytest.approx(27)


def test_an_unknown_telescope_is_an_error_and_not_hsc():
    assert survey_of({"TELESCOP": "HST", "INSTRUME": "ACS"}) == "hst"
    with pytest.raises(DataError, match="mis-calibrate"):
        survey_of({"TELESCOP": "Backyard 8in"})
    with pytest.raises(DataError, match="no zero point"):
        zero_point_of({"TELESCOP": "HST"})


def test_variance_scales_with_the_square_and_saturation_is_masked_not_clipped():
    image, variance = normalise(np.array([[1.0, 60000.0]]), 27.0, np.array([[4.0, 4.0]]), saturation=60000)
    factor = to_nanojansky(1.0, 27.0)
    assert variance[0, 0] == pytest.approx(4 * factor**2)
    assert np.isnan(image[0, 1])
    assert np.isnan(mask_saturated(np.array([57000.0]), 60000)).all()


def test_the_stretch_keeps_colours_and_is_the_survey_s_own():
    """Per-image min-max to 8 bits lost both brightness and colour."""
    faint = np.array([1.0, 0.5, 2.0])[:, None, None] * np.full((3, 4, 4), 1e-3)
    noise = np.array([1.0, 1.0, 1.0])
    once, twice = arcsinh_stretch(faint, noise), arcsinh_stretch(2 * faint, noise)
    assert np.allclose(twice, 2 * once, rtol=1e-5)  # linear where it is faint: differences between bands scale
    values = np.linspace(0, 1e4, 1000)[None, :, None] * np.array([1.0, 0.3])[:, None, None]
    back = np.sinh(arcsinh_stretch(values, noise[:2])) * noise[:2, None, None]
    assert np.allclose(back[0, 1:] / back[1, 1:], 1 / 0.3, rtol=1e-6)
