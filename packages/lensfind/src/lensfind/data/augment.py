"""Changes of a training cutout that leave a lens a lens: on the device, by the batch, each sample from its own draws.

Lensing is achromatic and a sky has no up: what turns, mirrors or shifts an image, makes all of it brighter, blurs or adds noise
as an observation would, is allowed. What changes colours or radii by itself is refused by name.

    >>> Augment.of({"dihedral": True, "hue": 0.1}, {})
    Traceback (most recent call last):
    skyloom.errors.ConfigError: augmentation 'hue' is refused: it changes colours, which tell a source from its lens.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from skyloom.data import Batch, SampleDraws
from skyloom.errors import ConfigError, nearest

__all__ = ["FORBIDDEN", "TRANSFORMS", "Augment", "dihedral"]

_COLOURS = "it changes colours, which tell a source from its lens"
_RADII = "it changes Einstein radii and curvatures"
FORBIDDEN = {
    "hue": _COLOURS,
    "saturation": _COLOURS,
    "contrast": "it mixes each band with the mean and changes colours",
    "color_jitter": _COLOURS,
    "colour_jitter": _COLOURS,
    "channel_shuffle": "it exchanges bands",
    "channel_dropout": "it takes a band away and leaves a plausible zero",
    "to_gray": "it takes colours away",
    "to_sepia": _COLOURS,
    "rgb_shift": _COLOURS,
    "clahe": "it equalises brightness locally: arcs and galaxy no longer compare",
    "equalize": "it equalises brightness: arcs and galaxy no longer compare",
    "gamma": "it is not linear in flux",
    "jpeg": "it quantises, and faint arcs are gone",
    "image_compression": "it quantises, and faint arcs are gone",
    "cutout": "it can erase the arc and keep the label",
    "random_erasing": "it can erase the arc and keep the label",
    "mixup": "the sum of two fields is no field, and half a label no label",
    "cutmix": "it can cut the arc off and keep the label",
    "elastic": _RADII,
    "scale": _RADII,
    "zoom": _RADII,
    "shear": _RADII,
    "perspective": _RADII,
}
_PLANES = ("image", "mask", "variance", "wide", "wide_mask")


def dihedral(batch: Batch, draws: SampleDraws) -> Batch:
    """One of the eight symmetries of the square for each image: quarter turns and a flip. Every pixel keeps its flux."""
    which = (draws.uniform(1)[:, 0] * 8).long()
    return {name: _symmetry(values, which) if name in _PLANES else values for name, values in batch.items()}


def _symmetry(images: Tensor, which: Tensor) -> Tensor:
    turned = torch.empty_like(images)
    for symmetry in range(8):
        rows = which == symmetry
        some = torch.rot90(images[rows], symmetry % 4, dims=(-2, -1))
        turned[rows] = some.flip(-1) if symmetry >= 4 else some
    return turned


def resampled(images: Tensor, angle: Tensor, dx: Tensor, dy: Tensor, size: int) -> Tensor:
    """Images [B, K, H, W] turned by `angle` [B] radians about the centre, then moved by (dx, dy) [B] pixels, cut to `size`.

    Cubic convolution with a = -1/2 (Keys 1981, IEEE TASSP 29, 1153): its weights sum to one and keep first moments, so that
    neither flux nor centroids change. (torch's bicubic has a = -3/4, and moves a centroid by up to 0.03 pixels.)
    """
    height, width = images.shape[-2:]
    axis = torch.arange(size, device=images.device, dtype=images.dtype) - (size - 1) / 2
    c, s = (f(angle.to(images.dtype))[:, None, None] for f in (torch.cos, torch.sin))
    x = axis[None, None, :] - dx.to(images.dtype)[:, None, None]
    y = axis[None, :, None] - dy.to(images.dtype)[:, None, None]
    return _cubic(images, c * x + s * y + (width - 1) / 2, c * y - s * x + (height - 1) / 2)


def _cubic(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Values [B, K, h, w] at pixel coordinates x, y [B, h, w]; beyond the frame its outermost pixels go on."""
    count, planes, height, width = images.shape
    flat = images.reshape(count, planes, height * width)
    column, row = torch.floor(x), torch.floor(y)
    across, along = _keys(x - column), _keys(y - row)
    column, row = column.long(), row.long()
    shape = (count, planes, *x.shape[1:])
    total = torch.zeros(shape, dtype=images.dtype, device=images.device)
    for j in range(4):
        rows = (row + j - 1).clamp(0, height - 1) * width
        line = torch.zeros_like(total)
        for i in range(4):
            index = (rows + (column + i - 1).clamp(0, width - 1)).reshape(count, 1, -1).expand(-1, planes, -1)
            line += flat.gather(2, index).reshape(shape) * across[i][:, None]
        total += line * along[j][:, None]
    return total


def _keys(t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of the pixels at -1, 0, 1, 2 for a point at t in [0, 1)."""
    t2, t3 = t * t, t * t * t
    return -0.5 * t + t2 - 0.5 * t3, 1 - 2.5 * t2 + 1.5 * t3, 0.5 * t + 2 * t2 - 1.5 * t3, -0.5 * t2 + 0.5 * t3


def gaussian_blur(images: Tensor, sigma: Tensor, reach: int) -> Tensor:
    """Images [B, K, H, W] under a Gaussian of `sigma` [B] pixels, by FFT, mirrored at the edges over `reach` pixels: four
    sigma of the widest that may be drawn, so that an image's result does not depend on the others of its batch."""
    sigma = sigma[:, None].to(images.dtype)
    pad = max(1, min(reach, min(images.shape[-2:]) - 1))
    wide = functional.pad(images, (pad, pad, pad, pad), mode="reflect")
    v = torch.fft.fftfreq(wide.shape[-2], device=images.device, dtype=images.dtype)
    u = torch.fft.rfftfreq(wide.shape[-1], device=images.device, dtype=images.dtype)
    frequency = v[:, None].square() + u.square()  # cycles per pixel, squared
    transfer = torch.exp(-2 * math.pi**2 * sigma[..., None, None].square() * frequency)
    blurred = torch.fft.irfft2(torch.fft.rfft2(wide) * transfer, s=wide.shape[-2:])
    return blurred[..., pad:-pad, pad:-pad]


@dataclass(frozen=True)
class _Setting:
    """What the transforms know of the survey."""

    pixel_scale: float  # arcsec
    noise: Tensor  # [K], of an empty pixel
    size: int


Transform = Callable[[Batch, SampleDraws, Any, _Setting], Batch]


def _dihedral(batch: Batch, draws: SampleDraws, on: Any, setting: _Setting) -> Batch:
    return dihedral(batch, draws) if on else batch


def _move(batch: Batch, angle: Tensor, dx: Tensor, dy: Tensor, setting: _Setting) -> Batch:
    wide = batch.get("wide", batch["image"])
    moved = {**batch, "image": resampled(wide, angle, dx, dy, setting.size)}
    mask = batch.get("wide_mask", batch.get("mask"))
    if mask is not None:  # a pixel is usable if all that it was made of is
        moved["mask"] = (resampled(mask.to(wide.dtype), angle, dx, dy, setting.size) > 0.99).to(mask.dtype)
    return {name: values for name, values in moved.items() if name not in ("wide", "wide_mask", "variance")}


def _shift(batch: Batch, draws: SampleDraws, largest: float, setting: _Setting) -> Batch:
    if not 0 < largest <= 0.05 * setting.size:
        raise ConfigError(f"augment.shift={largest} pixels: it must be above 0 and at most 5% of the {setting.size} pixels.")
    u = (2 * draws.uniform(2) - 1) * largest
    return _move(batch, torch.zeros_like(u[:, 0]), u[:, 0], u[:, 1], setting)


def _rotate(batch: Batch, draws: SampleDraws, on: bool, setting: _Setting) -> Batch:
    if not on:
        return batch
    if "wide" not in batch:
        raise ConfigError(
            "augment.rotate needs cutouts wider than the network sees, or its corners would be empty and give the angle away: "
            f"prepare cutouts of at least {wide_enough(setting.size)} pixels and set data.size={setting.size}."
        )
    angle = 2 * math.pi * draws.uniform(1)[:, 0]
    return _move(batch, angle, torch.zeros_like(angle), torch.zeros_like(angle), setting)


def wide_enough(size: int) -> int:
    """Pixels on a side from which `size` can be cut at any angle, with two to spare for the interpolation."""
    return math.ceil(size * math.sqrt(2)) + 4


def _scaled(batch: Batch, factor: Tensor) -> Batch:
    """Image times `factor` [B, 1 or K], variance times its square."""
    powers = {"image": 1, "wide": 1, "variance": 2}
    return {
        name: values * factor[..., None, None] ** powers[name] if name in powers else values for name, values in batch.items()
    }


def _brightness(batch: Batch, draws: SampleDraws, deviation: float, setting: _Setting) -> Batch:
    """One factor 1 + N(0, deviation) for all bands: colours stay."""
    return _scaled(batch, (1 + deviation * draws.normal(1)).clamp(min=0.5))


def _zero_point(batch: Batch, draws: SampleDraws, magnitudes: float, setting: _Setting) -> Batch:
    """Each band by N(0, magnitudes): the error of a survey's calibration, a few hundredths at most."""
    if not 0 < magnitudes <= 0.05:
        raise ConfigError(f"augment.zero_point={magnitudes} mag: calibrations are good to 0.05 mag, more is another colour.")
    return _scaled(batch, 10 ** (-0.4 * magnitudes * draws.normal(batch["image"].shape[1])))


def _psf(batch: Batch, draws: SampleDraws, widest: float, setting: _Setting) -> Batch:
    """A further Gaussian PSF of FWHM uniform in [0, widest] arcsec, the same in all bands, and the noise that it took away."""
    sigma = widest * draws.uniform(1)[:, 0] / 2.354820045 / setting.pixel_scale
    image = batch["image"]
    blurred = gaussian_blur(image, sigma, math.ceil(4 * widest / 2.354820045 / setting.pixel_scale))
    left = 1 / torch.sqrt(1 + 4 * math.pi * sigma.square())  # share of the pixel noise that a blur leaves, about
    lost = setting.noise.to(image)[None] * torch.sqrt((1 - left.square()).clamp(min=0))[:, None]
    return {**batch, "image": blurred + _normal_like(blurred, draws) * lost[..., None, None]}


def _depth(batch: Batch, draws: SampleDraws, shallowest: float, setting: _Setting) -> Batch:
    """Noise as of a survey shallower by a number of magnitudes uniform in [0, shallowest], the same in all bands."""
    factor = 10 ** (0.4 * shallowest * draws.uniform(1))
    extra = setting.noise.to(batch["image"])[None] * torch.sqrt(factor.square() - 1)
    return {**batch, "image": batch["image"] + _normal_like(batch["image"], draws) * extra[..., None, None]}


def _normal_like(images: Tensor, draws: SampleDraws) -> Tensor:
    return draws.normal(images[0].numel()).reshape(images.shape).to(images)


def _stars(batch: Batch, draws: SampleDraws, probability: float, setting: _Setting) -> Batch:
    """With a probability, one round star mask in the outer half of the frame: its pixels become sky, and are masked."""
    image = batch["image"]
    u = draws.uniform(4)
    radius = setting.size * (0.04 + 0.04 * u[:, 1])
    away, angle = setting.size * (0.3 + 0.15 * u[:, 2]), 2 * math.pi * u[:, 3]
    axis = torch.arange(setting.size, device=image.device) - (setting.size - 1) / 2
    dx = axis[None, None, :] - (away * torch.cos(angle))[:, None, None]
    dy = axis[None, :, None] - (away * torch.sin(angle))[:, None, None]
    covered = (torch.hypot(dx, dy) < radius[:, None, None]) & (u[:, 0] < probability)[:, None, None]
    mask = batch.get("mask", torch.ones_like(image, dtype=torch.uint8))
    sky = _normal_like(image, draws) * setting.noise.to(image)[None, :, None, None]
    return {**batch, "image": torch.where(covered[:, None], sky, image), "mask": torch.where(covered[:, None], 0, mask)}


TRANSFORMS: dict[str, Transform] = {  # in the order in which they are applied: geometry, photometry, then the sky
    "rotate": _rotate,  # true: any angle, from a wider cutout
    "dihedral": _dihedral,  # true: the eight symmetries of the square
    "shift": _shift,  # largest, pixels
    "brightness": _brightness,  # deviation of a factor common to all bands
    "zero_point": _zero_point,  # deviation per band, mag
    "psf": _psf,  # widest further FWHM, arcsec
    "depth": _depth,  # shallowest, mag
    "stars": _stars,  # probability of a masked star
}


@dataclass(frozen=True)
class Augment:
    """Named transforms with their strengths, in a fixed order."""

    strengths: tuple[tuple[str, Any], ...]
    setting: _Setting

    @classmethod
    def of(cls, strengths: Mapping[str, Any] | None, about: Mapping[str, Any]) -> "Augment":
        """From names and strengths, for a data set; None is the dihedral group, {} nothing. Off: null or false."""
        strengths = {"dihedral": True} if strengths is None else strengths
        for name in strengths:
            if reason := FORBIDDEN.get(name.lower()):
                raise ConfigError(f"augmentation {name!r} is refused: {reason}.")
            if name not in TRANSFORMS:
                raise ConfigError(f"there is no augmentation {name!r}.{nearest(name, TRANSFORMS)}")
        on = tuple((name, strengths[name]) for name in TRANSFORMS if strengths.get(name))
        noise = torch.tensor(about.get("statistics", {}).get("noise", [math.nan]))
        survey = about.get("survey", {})
        return cls(on, _Setting(float(survey.get("pixel_scale", math.nan)), noise, int(about.get("size", 0))))

    @property
    def wide(self) -> bool:
        """Whether training cutouts must be wider than what the network sees."""
        return any(name == "rotate" for name, _ in self.strengths)

    def __call__(self, batch: Batch, draws: SampleDraws) -> Batch:
        for name, strength in self.strengths:
            batch = TRANSFORMS[name](batch, draws, strength, self.setting)
        return {name: values for name, values in batch.items() if name not in ("wide", "wide_mask")}
