"""What a network must know of the pixels, measured once on the training split: one constant per band for a whole survey."""

import torch
from torch import Tensor

from skyloom.errors import DataError

__all__ = ["pixel_noise", "statistics"]


def pixel_noise(images: Tensor) -> Tensor:
    """[bands] noise of an empty pixel, from differences along the frame: 1.4826 median |difference| / sqrt 2.

    Galaxies hardly change from one pixel to the next out there. Pixels that are not finite are left out.
    """
    edge = torch.cat([images[..., 0, :], images[..., -1, :]], dim=0).diff(dim=-1)
    return 1.4826 / 2**0.5 * edge.transpose(0, 1).flatten(1).abs().nanmedian(dim=1).values


def statistics(images: Tensor, bands: list[str] | None = None) -> dict[str, list[float]]:
    """Per band: the noise of an empty pixel, and mean and deviation of arcsinh(flux / noise), over at most 4096 images."""
    images = images[:4096]
    noise = pixel_noise(images)
    if not (torch.isfinite(noise) & (noise > 0)).all():
        names = bands or [str(k) for k in range(len(noise))]
        bad = [name for name, value in zip(names, noise.tolist(), strict=True) if not value > 0]
        raise DataError(
            f"band {', '.join(bad)}: no noise can be measured along the frame of the training images (constant or empty). "
            "Leave the band out with bands=[...], or give images with their sky."
        )
    stretched = torch.asinh(images / noise[:, None, None])
    usable = torch.isfinite(stretched)
    count = usable.sum(dim=(0, 2, 3))
    mean = torch.nan_to_num(stretched).sum(dim=(0, 2, 3)) / count
    away = torch.where(usable, stretched - mean[:, None, None], 0.0)
    return {
        "noise": noise.tolist(),
        "mean": mean.tolist(),
        "deviation": torch.sqrt(away.square().sum(dim=(0, 2, 3)) / (count - 1)).tolist(),
    }
