"""What a survey's camera does to the sky: the physics that simulation, preprocessing and prediction read."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from skyloom.errors import ConfigError, nearest

__all__ = ["AB_NANOJANSKY", "Band", "Survey", "nanojansky"]

AB_NANOJANSKY = 31.4  # AB magnitude of one nanojansky (Oke and Gunn 1983)


def nanojansky(magnitude: Tensor) -> Tensor:
    """Flux density in nJy of an AB magnitude: 10^(-0.4 (m - 31.4))."""
    return 10 ** (-0.4 * (magnitude - AB_NANOJANSKY))


@dataclass(frozen=True)
class Band:
    """One filter of a survey, for the whole depth of its coadd."""

    wavelength: float  # effective, nm
    psf_fwhm: float  # median, arcsec
    zero_point: float  # AB magnitude that gives one electron per second
    sky: float  # AB magnitude per square arcsec
    exposure: float  # total, seconds
    exposures: int  # read-outs in the total
    depth: float | None = None  # AB magnitude, as published, defined in the survey's file; only to check the others by
    psf_file: str | None = None  # FITS image of the PSF, instead of the analytic one
    psf_pixel: float | None = None  # arcsec per pixel of that image; by default that of the survey
    read_noise: float | None = None  # electrons per pixel and read-out, where a band has a detector of its own


@dataclass(frozen=True)
class Survey:
    """Bands and camera; build one with `Survey.of` from plain numbers, as the files in conf/survey hold them."""

    name: str
    pixel_scale: float  # arcsec
    gain: float  # electrons per ADU; simulated fluxes are nJy, so it only converts to a survey's own counts
    read_noise: float  # electrons per pixel and read-out
    moffat_beta: float | None  # wings of the PSF; None is a Gaussian
    seeing_scatter: float  # relative half range of the PSF width from cutout to cutout
    bands: dict[str, Band]
    psf_has_pixel: bool = False  # whether the files hold the effective PSF, in which the pixel is included

    @classmethod
    def of(cls, bands: Mapping[str, Mapping[str, Any]], use: list[str] | None = None, **camera: Any) -> "Survey":
        """`use` picks and orders bands; by default all of them."""
        unknown = [name for name in use or () if name not in bands]
        if unknown:
            raise ConfigError(f"survey {camera.get('name')!r} has no band {unknown[0]!r}.{nearest(unknown[0], bands)}")
        return cls(bands={name: Band(**bands[name]) for name in use or bands}, **camera)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; a band says its read noise only where it has one of its own."""
        value = asdict(self)
        for band in value["bands"].values():
            if band["read_noise"] is None:
                del band["read_noise"]
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Survey":
        return cls.of(**value)

    def column(self, name: str) -> Tensor:
        """One property of all bands: [bands]."""
        return torch.tensor([getattr(band, name) for band in self.bands.values()])

    def electrons(self) -> Tensor:
        """Electrons per nJy over the whole exposure: [bands]."""
        return self.column("exposure") * 10 ** (-0.4 * (AB_NANOJANSKY - self.column("zero_point")))

    def sky_electrons(self) -> Tensor:
        """Sky electrons per pixel over the whole exposure: [bands]."""
        rate = 10 ** (-0.4 * (self.column("sky") - self.column("zero_point"))) * self.pixel_scale**2
        return rate * self.column("exposure")

    def read_variance(self) -> Tensor:
        """Read noise of all read-outs together, electrons squared per pixel: [bands]."""
        own = (band.read_noise for band in self.bands.values())
        squares = torch.tensor([(self.read_noise if one is None else one) ** 2 for one in own])
        return self.column("exposures") * squares

    def noise_terms(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """Sky electrons, read variance (electrons squared) and electrons per nJy of a pixel: [bands, 1, 1] each."""
        sky, read, gain = (v[:, None, None].to(device) for v in (self.sky_electrons(), self.read_variance(), self.electrons()))
        return sky, read, gain

    def sky_sigma(self) -> Tensor:
        """Standard deviation of an empty pixel in nJy: [bands]."""
        return torch.sqrt(self.sky_electrons() + self.read_variance()) / self.electrons()
