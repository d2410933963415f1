"""PSFs given as FITS images."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lensfind.rendering.fourier import Plane
from skyloom.errors import DataError

__all__ = ["file_transfer", "read_psf"]


def read_psf(path: str) -> np.ndarray:
    """A PSF [H, W] of unit sum: the first image in the file."""
    from astropy.io import fits

    if not Path(path).exists():
        raise DataError(f"{path}: there is no such PSF file.")
    with fits.open(path, memmap=False) as file:
        images = [hdu.data for hdu in file if hdu.data is not None and np.ndim(hdu.data) == 2]
    if not images:
        raise DataError(f"{path}: no two-dimensional image in it.")
    psf = np.asarray(images[0], dtype=np.float64)
    if not np.isfinite(psf).all() or psf.sum() <= 0:
        raise DataError(f"{path}: a PSF must be finite and hold light.")
    return psf / psf.sum()


@lru_cache(maxsize=64)
def file_transfer(path: str, pixel: float, plane: Plane, has_pixel: bool) -> Tensor:
    """Transform of a PSF file, sampled at `pixel` arcsec, and of the pixel unless it `has_pixel` already: [Y, X] complex.

    The peak, to the nearest pixel of the file, is where a point source is seen.
    """
    psf = torch.from_numpy(read_psf(path)).to(plane.device)
    row, column = (int(v) for v in np.unravel_index(int(psf.argmax()), tuple(psf.shape)))
    y, x = ((torch.arange(n, device=plane.device) - c).double() * pixel for n, c in zip(psf.shape, (row, column), strict=True))
    ky, kx = plane.ky.double(), plane.kx.double()
    transform = torch.exp(-1j * ky[:, None] * y) @ psf.to(torch.complex128) @ torch.exp(-1j * x[:, None] * kx)
    # frequencies that the file does not resolve hold copies of those that it does
    transform = transform * ((ky.abs()[:, None] <= torch.pi / pixel) & (kx <= torch.pi / pixel))
    if not has_pixel:
        along_x, along_y = plane.pixel_response
        transform = transform * along_x * along_y[:, None]
    return transform.to(torch.complex64)
