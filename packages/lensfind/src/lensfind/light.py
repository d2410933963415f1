"""Surface brightness of galaxies, as pure functions of tensors, and what a telescope makes of it.

Angles in arcsec, fluxes in whatever unit the total is given in; shapes as in `lensfind.lensing`.
"""

import torch
from torch import Tensor

from lensfind.lensing import rotate

__all__ = ["bin_pixels", "convolve", "gaussian_ring", "pixel_grid", "psf_kernel", "sersic", "sersic_b", "spiral_arms"]


def sersic_b(n: Tensor) -> Tensor:
    """b_n, for which R_e holds half the light (Ciotti and Bertin 1999, A&A 352, 447).

    It is off by 3e-4 of the light at n = 0.5 and by less above.
    """
    return 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2)


def sersic(x: Tensor, y: Tensor, flux: Tensor, r_e: Tensor, n: Tensor, q: Tensor, angle: Tensor, cell: float = 0.0) -> Tensor:
    """I(R) = I_e exp(-b_n [(R/R_e)^(1/n) - 1]) with R^2 = q x'^2 + y'^2/q, so that the total flux is

        F = 2 pi n R_e^2 I_e e^(b_n) b_n^(-2n) Gamma(2n),    R_e the half-light radius of the circle of equal area.

    Flux per arcsec^2. `cell` (arcsec) is the side of the cells on which the profile will be summed: radii are kept above the
    mean radius of a cell about the centre, without which one sample on the cusp of n = 4 carries a fifth of the light.
    """
    px, py = rotate(x, y, angle)
    b = sersic_b(n)
    log_total = torch.log(2 * torch.pi * n * r_e**2) + b - 2 * n * torch.log(b) + torch.lgamma(2 * n)
    r2 = q * px**2 + py**2 / q
    floor = torch.finfo(x.dtype).tiny ** 0.5 + (0.35 * cell) ** 2
    r2 = r2 + floor * torch.exp(-r2 / max(cell, 1e-6) ** 2) if cell else r2 + floor
    return flux * torch.exp(b - b * torch.exp((0.5 * torch.log(r2) - torch.log(r_e)) / n) - log_total)


def gaussian_ring(x: Tensor, y: Tensor, radius: Tensor, width: Tensor, q: Tensor, angle: Tensor, lopsided: Tensor) -> Tensor:
    """exp(-(R - radius)^2 / (2 width^2)) (1 + lopsided cos phi): the ring of a ring galaxy, not normalised."""
    px, py = rotate(x, y, angle)
    r = torch.sqrt(q * px**2 + py**2 / q + 1e-12)
    return torch.exp(-0.5 * ((r - radius) / width) ** 2) * (1 + lopsided * px / r)


def spiral_arms(x: Tensor, y: Tensor, scale: Tensor, pitch: Tensor, q: Tensor, angle: Tensor, phase: Tensor) -> Tensor:
    """Two logarithmic arms on an exponential disc with a hollow centre, not normalised.

    I = exp(-R/h) (1 - exp(-(R/h)^2)) [0.2 + cos^4(phi - ln(R/h)/tan(pitch) + phase)], disc of axis ratio q.
    """
    px, py = rotate(x, y, angle)
    py = py / q
    r = torch.sqrt(px**2 + py**2 + 1e-12) / scale
    arm = torch.cos(torch.atan2(py, px) - torch.log(r) / torch.tan(pitch) + phase) ** 4
    return torch.exp(-r) * (1 - torch.exp(-(r**2))) * (0.2 + arm)


def pixel_grid(size: int, pixel: float, oversample: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Centres (x, y), each [size * oversample]^2, of the cells of a cutout whose centre is the origin; row is y."""
    count = size * oversample
    line = (torch.arange(count, dtype=dtype) - (count - 1) / 2) * (pixel / oversample)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y


def bin_pixels(image: Tensor, factor: int) -> Tensor:
    """Sums `factor` x `factor` cells of [..., H, W] into one pixel; the total is kept."""
    return torch.nn.functional.avg_pool2d(image, factor) * factor**2 if factor > 1 else image


def psf_kernel(fwhm: Tensor, size: int, pixel: float, beta: float | None) -> Tensor:
    """Unit-sum kernels [..., size, size] with the peak at index 0, wrapped for the FFT.

    Moffat (1969): (1 + (R/a)^2)^-beta with FWHM = 2 a sqrt(2^(1/beta) - 1); a Gaussian where beta is None.
    """
    line = torch.fft.fftfreq(size, 1 / size).to(fwhm.dtype) * pixel
    r2 = line[:, None] ** 2 + line**2
    width = fwhm[..., None, None]
    if beta is None:
        kernel = torch.exp(-4 * torch.log(torch.tensor(2.0, dtype=fwhm.dtype)) * r2 / width**2)
    else:
        kernel = (1 + r2 * (4 * (2 ** (1 / beta) - 1)) / width**2) ** -beta
    return kernel / kernel.sum(dim=(-2, -1), keepdim=True)


def convolve(image: Tensor, kernel: Tensor) -> Tensor:
    """Linear convolution of [..., N, N] with wrapped kernels [..., M, M], M >= N + the reach of the kernel; nothing wraps."""
    size = kernel.shape[-1]
    spectrum = torch.fft.rfft2(image, s=(size, size)) * torch.fft.rfft2(kernel)
    return torch.fft.irfft2(spectrum, s=(size, size))[..., : image.shape[-2], : image.shape[-1]]
