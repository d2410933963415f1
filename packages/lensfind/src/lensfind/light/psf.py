"""What the air and the telescope make of a point of light."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["psf_kernel", "psf_transform"]


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


_FWHM = 2.3548200450309493  # of a Gaussian, in units of its sigma


@cache
def _mixture(beta: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Weights w_j and scales t_j with (1 + r^2/a^2)^-beta = sum of Gaussians of sigma^2 = a^2/(2 t_j), each of flux w_j.

    A Moffat profile is a mixture of Gaussians exactly: int t^(beta-1) e^-t / Gamma(beta) e^(-t r^2/a^2) dt; the trapezoidal
    rule in ln t converges exponentially.
    """
    log_t = np.arange(-14.0 / (beta - 1), 3.0, 0.6)
    weights = np.exp((beta - 1) * log_t - np.exp(log_t))
    keep = weights > 1e-6 * weights.max()
    return tuple((weights / weights[keep].sum())[keep]), tuple(np.exp(log_t)[keep])


def psf_transform(fwhm: Tensor, kx: Tensor, ky: Tensor, beta: float | None, along_x: Tensor, along_y: Tensor) -> Tensor:
    """Transforms of unit-flux PSFs, times `along_x` [X] and `along_y` [Y]: [..., Y, X] for fwhm [...].

    A Gaussian is a product of a function of k_x and one of k_y, so the transform is an outer product, and a Moffat profile,
    a mixture of Gaussians, a short sum of them. Errors are below 1e-4 of the peak.
    """
    if beta is None:
        weights: tuple[float, ...] = (1.0,)
        scales: tuple[float, ...] = (1.0,)
        a = fwhm * (2**0.5 / _FWHM)  # a^2 = 2 sigma^2
    else:
        weights, scales = _mixture(float(beta))
        a = fwhm / (2 * (2 ** (1 / beta) - 1) ** 0.5)
    each = torch.tensor(scales, dtype=fwhm.dtype, device=fwhm.device)
    weight = torch.tensor(weights, dtype=fwhm.dtype, device=fwhm.device)
    width = a[..., None] ** 2 / (4 * each)
    x = torch.exp(-(width[..., None] * kx**2).clamp(max=30)) * along_x  # products below e^-87 denormal and slow
    y = torch.exp(-(width[..., None, :] * (ky**2)[:, None]).clamp(max=30)) * (along_y[:, None] * weight)
    return y @ x
