"""The Fourier plane of a cutout: frequencies, shifts, and what pixels and PSFs do there.

A cutout of N pixels of side h is computed on a grid of spacing h/s, s the `sampling`, padded to P pixels so that what a PSF
throws over one edge, or a galaxy beside it shines over, does not come back over the other. What is brighter than a PSF can
resolve never needs a finer grid.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lensfind.light.psf import psf_transform
from lensfind.light.sersic import sersic_transform

__all__ = ["WINGS", "Plane", "fast_length"]

_REACH = 5.0  # FWHM of the widest PSF by which a cutout is padded
WINGS = 3.5  # arcsec, at least: seven half-light radii of a large neighbour
_CELLS = 3.0  # cells of the grid across the sharpest PSF, at least


def fast_length(least: int) -> int:
    """The least even product of powers of 2, 3 and 5 that is not below `least`: lengths for which the FFT is fast."""
    length = max(2, least + least % 2)
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 2


@dataclass(frozen=True)
class Plane:
    """Frequencies of a cutout; build one with `Plane.of`."""

    size: int  # pixels on a side
    pixel: float  # arcsec
    sampling: int  # cells per pixel side
    padded: int  # pixels on a side
    device: torch.device
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(
        cls, size: int, pixel: float, sharpest: float, widest: float, device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32, cells: float = _CELLS, wings: float = WINGS,
    ) -> "Plane":  # fmt: skip
        """For PSFs between `sharpest` and `widest` FWHM and galaxies whose light reaches `wings` beyond an edge (arcsec)."""
        sampling = max(1, math.ceil(cells * pixel / sharpest - 1e-6))
        padded = fast_length(size + min(size, math.ceil(max(_REACH * widest, wings) / pixel)))
        return cls(size, pixel, sampling, padded, torch.device(device), dtype)

    @property
    def cell(self) -> float:
        return self.pixel / self.sampling

    def _frequencies(self, function: object) -> Tensor:
        count = self.padded * self.sampling
        return 2 * math.pi * function(count, self.cell, device=self.device, dtype=self.dtype)  # type: ignore[operator]

    @cached_property
    def kx(self) -> Tensor:
        """[X] rad/arcsec, none negative: images are real."""
        return self._frequencies(torch.fft.rfftfreq)

    @cached_property
    def ky(self) -> Tensor:
        return self._frequencies(torch.fft.fftfreq)

    @cached_property
    def _k2(self) -> tuple[Tensor, Tensor, Tensor]:
        """k_x^2 [X], k_y^2 [Y, 1] and k_x k_y [Y, X]."""
        return self.kx**2, self.ky[:, None] ** 2, self.kx * self.ky[:, None]

    @cached_property
    def pixel_response(self) -> tuple[Tensor, Tensor]:
        """Transform of the pixel, a box, along x and along y."""
        return torch.sinc(self.kx * (self.pixel / (2 * math.pi))), torch.sinc(self.ky * (self.pixel / (2 * math.pi)))

    @cached_property
    def spline(self) -> Tensor:
        """What undoes the cubic B-spline with which rays are laid on the grid, and puts the canvas in its place: [Y, X]."""
        x, y = (3 / (2 + torch.cos(k * self.cell)) for k in (self.kx, self.ky))
        margin = self.sampling + 2  # cells of the canvas before the centre of pixel 0
        shift = torch.exp(1j * margin * self.cell * (self.kx + self.ky[:, None]))
        return shift * (x * y[:, None])

    @property
    def canvas(self) -> int:
        """Cells on a side of the canvas that rays are laid on: the cutout, a pixel beyond each edge, and the spline's reach."""
        return (self.size - 1) * self.sampling + 1 + 2 * (self.sampling + 2)

    def line(self) -> Tensor:
        """Positions (arcsec) of the cells on which light is evaluated, from the centre of the cutout: two fewer at each end."""
        count = self.canvas - 4
        return (torch.arange(count, device=self.device, dtype=self.dtype) - (count - 1) / 2) * self.cell

    def shift(self, x: Tensor, y: Tensor) -> Tensor:
        """exp(-i k . x) for positions [M] (arcsec) from the centre of the cutout: [M, Y, X]."""
        corner = (self.size - 1) / 2 * self.pixel
        along_x = torch.exp(-1j * (x + corner)[:, None] * self.kx)
        along_y = torch.exp(-1j * (y + corner)[:, None] * self.ky)
        return along_y[:, :, None] * along_x[:, None, :]

    def sersic(self, x: Tensor, y: Tensor, r_e: Tensor, n: Tensor, q: Tensor, angle: Tensor) -> Tensor:
        """Spectra of Sersic profiles of unit flux, parameters [M]: [M, Y, X]."""
        c, s = torch.cos(angle) ** 2, torch.sin(angle) ** 2
        xx, yy, xy = self._k2
        r2 = (r_e**2)[:, None, None]
        along, across = 1 / q, q
        cxx = ((c * along + s * across)[:, None] * xx)[:, None, :]
        cyy = (s * along + c * across)[:, None, None] * yy
        cxy = (torch.sin(2 * angle) * (along - across))[:, None, None] * xy
        # the long axis in the plane is the short one here: 1/q squeezes k along it
        return self._profile(((cxx + cyy + cxy) * r2).clamp(min=1e-12), n) * self.shift(x, y)

    @staticmethod
    def _profile(k2: Tensor, n: Tensor) -> Tensor:
        return sersic_transform(0.5 * torch.log(k2), n)

    def direct(self, canvas: Tensor) -> Tensor:
        """Spectra of canvases whose cells hold what they cover, not what a spline has spread: [..., Y, X]."""
        x, y = (2 + torch.cos(k * self.cell) for k in (self.kx, self.ky))
        box = [torch.sinc(k * (self.cell / (2 * math.pi))) for k in (self.kx, self.ky)]
        return self.spectrum(canvas) * ((x / (3 * box[0])) * (y / (3 * box[1]))[:, None])

    def spectrum(self, canvas: Tensor) -> Tensor:
        """Spectra of what rays have laid on canvases [..., canvas, canvas]: [..., Y, X]."""
        side = self.padded * self.sampling
        return torch.fft.rfft2(canvas, s=(side, side)) * self.spline

    def transfer(self, fwhm: Tensor, beta: float | None) -> Tensor:
        """Transform of PSF and pixel together, for FWHM [...] in arcsec: [..., Y, X]."""
        return psf_transform(fwhm, self.kx, self.ky, beta, *self.pixel_response)

    def image(self, spectrum: Tensor) -> Tensor:
        """Pixels [..., size, size] of a spectrum [..., Y, X] that includes PSF and pixel."""
        s, padded = self.sampling, self.padded
        if s > 1:  # sampling at every s-th cell folds the spectrum
            spectrum = spectrum.unflatten(-2, (s, padded)).sum(dim=-3)
        image = torch.fft.irfft2(spectrum, s=(padded, padded * s))
        return image[..., : self.size, : self.size * s : s] * s
