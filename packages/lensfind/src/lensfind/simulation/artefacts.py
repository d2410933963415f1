"""What cameras and satellites add to images: it survives reductions now and then, and a finder must have seen it.

Nothing here knows of lenses; a share of all cutouts has one of these, and so has every row of the kind `artefact`.
"""

import math

import torch
from torch import Tensor

from lensfind.simulation.draws import Uniforms
from lensfind.simulation.population import KINDS, Population
from lensfind.survey import Survey

__all__ = ["ARTEFACTS", "add_artefacts"]

ARTEFACTS = ("cosmic ray", "satellite", "bad column", "saturated star", "ghost")

_SILICON = 1000.0  # nm, up to which cameras are CCDs: charge bleeds along their columns, and in infrared detectors nowhere


def add_artefacts(
    image: Tensor, variance: Tensor, seeds: Tensor, kinds: Tensor, survey: Survey, population: Population
) -> Tensor:
    """Adds them in place; returns the index of the artefact of each row, -1 for none: [B]."""
    u = Uniforms(seeds)
    struck = (u("artefact") < population.artefacts) | (kinds == KINDS.index("artefact"))
    which = torch.where(struck, (u("artefact kind") * len(ARTEFACTS)).long(), -torch.ones_like(seeds))
    draw = (_cosmic_ray, _satellite, _bad_column, _saturated_star, _ghost)
    sigma = variance.amin(dim=(-2, -1)).sqrt()  # of an empty pixel
    for index, make in enumerate(draw):
        rows = torch.nonzero(which == index)[:, 0]
        if len(rows):
            image[rows] += make(Uniforms(seeds[rows]), image.shape[-1], sigma[rows], survey).to(image)
    return which


def _grid(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    line = torch.arange(size, device=device, dtype=torch.float64) - (size - 1) / 2
    return line[None, None, :], line[None, :, None]


def _c(value: Tensor) -> Tensor:
    return value[:, None, None]


def _one_band(light: Tensor, u: Uniforms, bands: int) -> Tensor:
    """[B, bands, H, W] with the light in one band alone, as it happened in one exposure."""
    band = (u("artefact band") * bands).long()
    return light[:, None] * torch.nn.functional.one_hot(band, bands)[:, :, None, None]


def _segment(u: Uniforms, size: int, name: str, length: Tensor, width: Tensor) -> Tensor:
    """A straight track of unit peak: [B, H, W]."""
    x, y = _grid(size, u.seeds.device)
    x0, y0 = (u.between(f"{name} {axis}", -0.35, 0.35) * size for axis in ("x", "y"))
    phi = u.between(f"{name} angle", 0, math.pi)
    along = (x - _c(x0)) * _c(torch.cos(phi)) + (y - _c(y0)) * _c(torch.sin(phi))
    across = (y - _c(y0)) * _c(torch.cos(phi)) - (x - _c(x0)) * _c(torch.sin(phi))
    beyond = (along.abs() - _c(length) / 2).clamp(min=0)
    return torch.exp(-0.5 * (across**2 + beyond**2) / _c(width) ** 2)


def _cosmic_ray(u: Uniforms, size: int, sigma: Tensor, survey: Survey) -> Tensor:
    """A sharp track of 2 to 15 pixels in one band: narrower than any PSF."""
    track = _segment(u, size, "cosmic ray", u.between("cosmic ray length", 2, 15), u.between("cosmic ray width", 0.35, 0.6))
    height = torch.exp(u.between("cosmic ray height", math.log(20), math.log(300)))
    return _one_band(track * _c(height), u, sigma.shape[1]) * sigma[:, :, None, None]


def _satellite(u: Uniforms, size: int, sigma: Tensor, survey: Survey) -> Tensor:
    """A trail through the whole cutout, as wide as the PSF, in one band."""
    width = torch.full_like(sigma[:, 0].double(), float(survey.column("psf_fwhm").max()) / survey.pixel_scale / 2.35)
    trail = _segment(u, size, "satellite", torch.full_like(width, 4.0 * size), width)
    height = torch.exp(u.between("satellite height", math.log(3), math.log(60)))
    return _one_band(trail * _c(height), u, sigma.shape[1]) * sigma[:, :, None, None]


def _bad_column(u: Uniforms, size: int, sigma: Tensor, survey: Survey) -> Tensor:
    """One or two columns off by 5 to 40 times the noise, up or down, in one band."""
    x, y = _grid(size, u.seeds.device)
    at = torch.floor(u("bad column") * size) - (size - 1) / 2
    column = ((x - _c(at)).abs() < _c(0.6 + torch.floor(2 * u("bad column width")))) & (y.abs() < size)
    height = u.between("bad column height", 5, 40) * torch.sign(u("bad column sign") - 0.3)
    return _one_band(column * _c(height), u, sigma.shape[1]) * sigma[:, :, None, None]


def _saturated_star(u: Uniforms, size: int, sigma: Tensor, survey: Survey) -> Tensor:
    """A saturated star near the edge: a flat top in all bands, and charge that has bled along its column in those of CCDs."""
    x, y = _grid(size, u.seeds.device)
    phi = u.between("bleeding place", 0, 2 * math.pi)
    x0, y0 = 0.42 * size * torch.cos(phi), 0.42 * size * torch.sin(phi)
    fwhm = survey.column("psf_fwhm").to(sigma.device).double() / survey.pixel_scale
    r = torch.hypot(x - _c(x0), y - _c(y0))[:, None] / fwhm[:, None, None]
    star = torch.minimum((1 + 2.1 * r**2) ** -2.5 * 2e4, torch.full_like(r, 2e3))
    reach = u.between("bleeding length", 0.1, 0.4) * size
    ccd = survey.column("wavelength").to(sigma.device) < _SILICON
    bleed = 2e3 * ((x - _c(x0)).abs() < 1.0) * ((y - _c(y0)).abs() < _c(reach))
    return torch.maximum(star, bleed[:, None] * ccd[:, None, None]) * sigma[:, :, None, None]


def _ghost(u: Uniforms, size: int, sigma: Tensor, survey: Survey) -> Tensor:
    """The image of the pupil by a bright star outside: a faint wide ring with a sharp rim, in all bands."""
    x, y = _grid(size, u.seeds.device)
    x0, y0 = (u.between(f"ghost {axis}", -0.5, 0.5) * size for axis in ("x", "y"))
    outer = u.between("ghost radius", 0.3, 0.7) * size
    r = torch.hypot(x - _c(x0), y - _c(y0))
    disc = torch.sigmoid(_c(outer) - r) - torch.sigmoid(0.45 * _c(outer) - r)
    colour = 1 + 0.3 * (u("ghost colour", sigma.shape[1]) - 0.5)
    return (
        disc[:, None]
        * (_c(u.between("ghost height", 1.5, 8)) * 1.0)[:, None]
        * colour[:, :, None, None]
        * sigma[:, :, None, None]
    )
