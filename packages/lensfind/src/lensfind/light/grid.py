"""Pixels of a cutout, and sums and convolutions over them."""

import torch
from torch import Tensor

__all__ = ["bin_pixels", "convolve", "pixel_grid"]


def pixel_grid(size: int, pixel: float, oversample: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Centres (x, y), each [size * oversample]^2, of the cells of a cutout whose centre is the origin; row is y."""
    count = size * oversample
    line = (torch.arange(count, dtype=dtype) - (count - 1) / 2) * (pixel / oversample)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y


def bin_pixels(image: Tensor, factor: int) -> Tensor:
    """Sums `factor` x `factor` cells of [..., H, W] into one pixel; the total is kept."""
    return torch.nn.functional.avg_pool2d(image, factor) * factor**2 if factor > 1 else image


def convolve(image: Tensor, kernel: Tensor) -> Tensor:
    """Linear convolution of [..., N, N] with wrapped kernels [..., M, M], M >= N + the reach of the kernel; nothing wraps."""
    size = kernel.shape[-1]
    spectrum = torch.fft.rfft2(image, s=(size, size)) * torch.fft.rfft2(kernel)
    return torch.fft.irfft2(spectrum, s=(size, size))[..., : image.shape[-2], : image.shape[-1]]
