"""Scenes as a telescope sees them: every light is carried to the Fourier plane, where PSF and pixel await it.

Profiles and stars go there in closed form, rays by way of a canvas. Rays are traced once for all bands: gravity is achromatic.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lensfind.rendering.fourier import WINGS, Plane
from lensfind.rendering.psf_files import file_transfer
from lensfind.rendering.rays import lay_rays
from lensfind.rendering.shapes import lay_shape
from lensfind.survey import Survey

__all__ = ["plane_for", "render_scene"]


@lru_cache(maxsize=32)
def _plane(size: int, pixel: float, sharpest: float, widest: float, device: str, wings: float) -> Plane:
    return Plane.of(size, pixel, sharpest, widest, device, wings=wings)


def plane_for(survey: Survey, size: int, device: torch.device | str = "cpu", wings: float = WINGS) -> Plane:
    """The Fourier plane of a survey's cutouts: fine enough for its sharpest PSF, wide enough for its widest, and for galaxies
    whose light reaches `wings` arcsec beyond an edge."""
    fwhm = survey.column("psf_fwhm")
    low, high = 1 - survey.seeing_scatter, 1 + survey.seeing_scatter
    return _plane(size, survey.pixel_scale, float(fwhm.min()) * low, float(fwhm.max()) * high, str(device), wings)


def _transfer(survey: Survey, plane: Plane, seeing: Tensor) -> Tensor:
    """PSF and pixel of each row and band: [B, bands, Y, X]."""
    fwhm = survey.column("psf_fwhm").to(seeing) * seeing[:, None]
    transfer = plane.transfer(fwhm, survey.moffat_beta)
    for index, band in enumerate(survey.bands.values()):
        if band.psf_file is not None:
            pixel = band.psf_pixel or survey.pixel_scale
            transfer = transfer.to(torch.complex64)
            transfer[:, index] = file_transfer(band.psf_file, pixel, plane, survey.psf_has_pixel)
    return transfer


def _add(total: Tensor, row: Tensor, flux: Tensor, spectra: Tensor) -> None:
    """Adds unit spectra [M, Y, X] times fluxes [M, bands] to the spectra of their rows [B, bands, Y, X]."""
    if len(row) == len(total) and bool((row == torch.arange(len(row), device=row.device)).all()):
        total += flux[:, :, None, None] * spectra[:, None]
        return
    total.index_add_(0, row, flux[:, :, None, None] * spectra[:, None])


def _profiles(total: Tensor, plane: Plane, galaxies: Any, step: int) -> None:
    for part in torch.arange(len(galaxies.row), device=plane.device).split(step):
        g = {name: getattr(galaxies, name)[part] for name in ("row", "x", "y", "r_e", "n", "q", "angle", "flux")}
        _add(total, g["row"], g["flux"], plane.sersic(g["x"], g["y"], g["r_e"], g["n"], g["q"], g["angle"]))


def render_scene(
    scene: Any,
    survey: Survey,
    plane: Plane,
    lens: Tensor,
    galaxies: list[Any],
    shapes: list[Any],
    rays: int = 4,
    stamps: Tensor | None = None,
    lay: Callable[..., Tensor] = lay_rays,
) -> tuple[Tensor, Tensor, Tensor]:
    """Expected images and lensed light [B, bands, size, size] in nJy, and magnifications [B], NaN off the rows in `lens`."""
    batch, bands = len(scene.seed), len(survey.bands)
    side = plane.padded * plane.sampling
    transfer = _transfer(survey, plane, scene.seeing)
    total = torch.zeros(batch, bands, side, side // 2 + 1, dtype=torch.complex64, device=plane.device)
    for group in galaxies:
        _profiles(total, plane, group, step=64)
    if len(scene.stars.row):
        _add(total, scene.stars.row, scene.stars.flux, plane.shift(scene.stars.x, scene.stars.y))
    for shape in shapes:
        canvas = lay_shape(plane, shape.kind, shape.x, shape.y, shape.parameters)
        _add(total, shape.row, shape.flux, plane.direct(canvas))
    image = plane.image(total * transfer)
    arcs = torch.zeros_like(image)
    magnification = torch.full((batch,), math.nan, device=plane.device)
    if len(lens):
        canvas = lay(scene.lensed(lens), plane, rays, stamps)
        light = scene.source_flux[lens][:, :, None, None] * plane.spectrum(canvas)[:, None]
        every = len(lens) == batch
        arcs_of = plane.image(light * (transfer if every else transfer[lens]))
        if every:
            arcs = arcs_of
            image += arcs_of
        else:
            arcs[lens] = arcs_of
            image[lens] += arcs_of
        magnification[lens] = canvas.sum(dim=(-2, -1))
    return image, arcs, magnification
