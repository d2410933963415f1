"""Bring images to a common PSF by the ratio of measured PSFs, and measure a PSF from stars.

Only towards a wider one, and within what can be combined: an HST image brought to a seeing of one arcsec has no arcs left.
"""

import math

import numpy as np
from scipy import fft

from skyloom.errors import DataError

__all__ = ["gaussian_psf", "match_psf", "matching_transfer", "moment_fwhm", "stacked_psf"]

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))


def gaussian_psf(fwhm: float, size: int, pixel_scale: float) -> np.ndarray:
    """[size, size] of unit sum; `fwhm` and `pixel_scale` in arcsec."""
    sigma = fwhm / FWHM_PER_SIGMA / pixel_scale
    axis = np.arange(size) - (size - 1) / 2
    line = np.exp(-0.5 * (axis / sigma) ** 2)
    psf = np.outer(line, line)
    return psf / psf.sum()


def moment_fwhm(image: np.ndarray, pixel_scale: float = 1.0) -> float:
    """FWHM of the Gaussian with the image's mean second moment: 2.3548 sqrt((<dx^2> + <dy^2>) / 2), in arcsec."""
    total = image.sum()
    y, x = np.indices(image.shape)
    cx, cy = (image * x).sum() / total, (image * y).sum() / total
    second = (image * ((x - cx) ** 2 + (y - cy) ** 2)).sum() / total / 2
    return FWHM_PER_SIGMA * math.sqrt(max(second, 0.0)) * pixel_scale


def _placed(psf: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The transform of a PSF of unit sum whose flux-weighted centre lies at the origin of a frame of `shape`."""
    psf = psf / psf.sum()
    y, x = np.indices(psf.shape)
    cy, cx = (psf * y).sum(), (psf * x).sum()
    frame = np.zeros(shape)
    frame[: psf.shape[0], : psf.shape[1]] = psf
    v, u = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])[None, :]
    return fft.rfft2(frame) * np.exp(2j * math.pi * (v * cy + u * cx))


def matching_transfer(source: np.ndarray, target: np.ndarray, shape: tuple[int, int], floor: float = 1e-4) -> np.ndarray:
    """Transfer function of the kernel that turns the PSF `source` into `target`: T S* / (|S|^2 + floor^2).

    `floor` keeps frequencies that the source does not hold from being blown up (Wiener); it is divided out at frequency zero,
    so that flux is conserved exactly.
    """
    s, t = _placed(source, shape), _placed(target, shape)
    transfer = t * np.conj(s) / (np.abs(s) ** 2 + floor**2)
    return transfer / transfer[0, 0].real


def match_psf(
    image: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    variance: np.ndarray | None = None,
    floor: float = 1e-4,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Image [H, W] with PSF `source` as it would look with PSF `target`, and its variance under the squared kernel.

    The frame is padded by the kernel's reach, so that nothing wraps around. NaN pixels stay NaN, and so do those that more than
    a hundredth of their light would come from. A target narrower than the source is an error.
    """
    if moment_fwhm(target) < 0.999 * moment_fwhm(source):
        raise DataError(
            f"the target PSF ({moment_fwhm(target):.2f} pixels) is narrower than the image's ({moment_fwhm(source):.2f}): "
            "matching can only blur. Take the widest PSF of the images that are to be compared."
        )
    pad = max(*source.shape, *target.shape)
    shape = tuple(fft.next_fast_len(side + 2 * pad, real=True) for side in image.shape)
    transfer = matching_transfer(source, target, shape, floor)  # type: ignore[arg-type]
    bad = ~np.isfinite(image)

    def convolved(plane: np.ndarray, by: np.ndarray) -> np.ndarray:
        after = [(pad, full - side - pad) for full, side in zip(shape, plane.shape, strict=True)]
        result = fft.irfft2(fft.rfft2(np.pad(plane, after, mode="constant")) * by, s=shape)
        return result[pad : pad + plane.shape[0], pad : pad + plane.shape[1]]

    matched = convolved(np.where(bad, 0.0, image), transfer)
    kernel = fft.irfft2(transfer, s=shape)
    if bad.any():
        touched = convolved(bad.astype(float), fft.rfft2(np.abs(kernel)) / np.abs(kernel).sum())
        matched = np.where(bad | (touched > 0.01), np.nan, matched)
    if variance is None:
        return matched.astype(image.dtype), None
    spread = convolved(np.where(np.isfinite(variance), variance, 0.0), fft.rfft2(kernel**2))
    return matched.astype(image.dtype), np.where(np.isfinite(matched), spread, np.nan).astype(variance.dtype)


def stacked_psf(image: np.ndarray, positions: np.ndarray, size: int = 25, least: int = 3) -> np.ndarray:
    """[size, size] PSF of unit sum: the median of stars at `positions` [N, 2] (x, y), each centred to a fraction of a pixel.

    `size` is odd. A star nearer to the edge than half of it, or with pixels that are not finite, is left out.
    """
    if size % 2 == 0:
        raise DataError(f"size={size}: a PSF has its centre in the middle of a pixel, so that size must be odd.")
    half, stars = size // 2, []
    for x, y in np.asarray(positions, dtype=float):
        column, row = round(x), round(y)
        if not (half <= column < image.shape[1] - half and half <= row < image.shape[0] - half):
            continue
        star = np.asarray(image[row - half : row + half + 1, column - half : column + half + 1], dtype=float)
        if not np.isfinite(star).all():
            continue
        frame = np.concatenate([star[0], star[-1], star[:, 0], star[:, -1]])
        star = star - np.median(frame)
        dy, dx = _centroid(star)
        v, u = fft.fftfreq(size)[:, None], fft.rfftfreq(size)[None, :]
        star = fft.irfft2(fft.rfft2(star) * np.exp(2j * math.pi * (v * dy + u * dx)), s=star.shape)
        stars.append(star / star.sum())
    if len(stars) < least:
        raise DataError(f"{len(stars)} usable stars: a PSF needs at least {least}. Take the survey's own PSF model instead.")
    psf = np.median(stars, axis=0)
    return psf / psf.sum()


def _centroid(star: np.ndarray, steps: int = 20) -> tuple[float, float]:
    """Offset (dy, dx) of a star from the middle of its frame, by a Gaussian-weighted centroid that follows it."""
    half = star.shape[0] // 2
    y, x = np.indices(star.shape) - half
    width = max(moment_fwhm(np.clip(star, 0, None)) / FWHM_PER_SIGMA, 1.0)
    dy = dx = 0.0
    for _ in range(steps):
        weight = np.exp(-0.5 * ((y - dy) ** 2 + (x - dx) ** 2) / width**2) * star
        dy, dx = dy + 2 * ((weight * y).sum() / weight.sum() - dy), dx + 2 * ((weight * x).sum() / weight.sum() - dx)
    return float(dy), float(dx)
