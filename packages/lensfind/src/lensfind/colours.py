"""Colour as a clue: lensed sources are bluer than the galaxies that lens them."""

import torch
from torch import Tensor

__all__ = ["blue_excess"]


def blue_excess(images: Tensor, noise: Tensor, aperture: float) -> Tensor:
    """The bluest band less the reddest, scaled so that the central galaxy vanishes, in units of its noise: [B, 1, H, W].

    D = (F_b - a F_r) / sqrt(s_b^2 + a^2 s_r^2), with a the ratio of the two bands within `aperture` pixels of the centre
    (RINGFINDER: Gavazzi et al. 2014, A&A 566, A63). Images [B, bands, H, W] with the bands from blue to red, noise
    [bands, 1, 1] of an empty pixel. What is as red as the centre is gone, whatever its shape; where the PSF differs between the
    bands, a faint residual stays in the core.
    """
    size = images.shape[-1]
    line = torch.arange(size, device=images.device, dtype=images.dtype) - (size - 1) / 2
    core = (line[:, None] ** 2 + line**2 <= aperture**2).to(images.dtype)
    blue, red = images[:, 0], images[:, -1]
    weight = (red * core).sum(dim=(1, 2)).clamp(min=float(torch.finfo(images.dtype).eps))
    ratio = ((blue * core).sum(dim=(1, 2)) / weight).clamp(0, 10)[:, None, None]
    return ((blue - ratio * red) / torch.sqrt(noise[0] ** 2 + ratio**2 * noise[-1] ** 2))[:, None]
