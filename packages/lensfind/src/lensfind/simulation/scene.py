"""One row of numbers per cutout: the galaxy in the middle, its mass, the source behind it, and what else there is to see.

The numbers of the foreground do not depend on what else the cutout holds: a lens and a non-lens of one seed have the same
galaxy, neighbours, PSF and noise, so that no property of the galaxy tells the classes apart.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from lensfind.rendering.rays import CLUMPS, Lensed
from lensfind.simulation.draws import Uniforms
from lensfind.simulation.population import BLUE, RED, STAR, Population, colour_magnitudes
from lensfind.survey import Survey, nanojansky

__all__ = ["Galaxies", "Scene", "Stars", "draw_scenes"]

_MOST = 6  # field galaxies or stars in one cutout


@dataclass
class Galaxies:
    """Sersic profiles, any number per cutout: columns [M], fluxes [M, bands] in nJy."""

    row: Tensor  # of the cutout in the batch
    x: Tensor  # arcsec
    y: Tensor
    r_e: Tensor
    n: Tensor
    q: Tensor
    angle: Tensor
    flux: Tensor

    @staticmethod
    def joined(parts: list["Galaxies"]) -> "Galaxies":
        return Galaxies(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Galaxies)})


@dataclass
class Stars:
    """Points of light: columns [M], fluxes [M, bands] in nJy."""

    row: Tensor
    x: Tensor
    y: Tensor
    flux: Tensor


@dataclass
class Scene:
    """Columns [B] of numbers per cutout; fluxes [B, bands] in nJy."""

    seed: Tensor
    kind: Tensor
    seeing: Tensor  # factor on the survey's PSF width
    x: Tensor  # centre of the galaxy, arcsec
    y: Tensor
    theta_e: Tensor
    q: Tensor
    angle: Tensor  # radians
    gamma1: Tensor
    gamma2: Tensor
    slope: Tensor
    lens_radius: Tensor
    lens_index: Tensor
    envelope: Tensor  # share of the lens light
    source_radius: Tensor
    source_index: Tensor
    source_q: Tensor
    source_angle: Tensor
    offset: Tensor  # of the source from the galaxy, in units of theta_E
    offset_angle: Tensor
    lens_flux: Tensor  # [B, bands]
    source_flux: Tensor  # [B, bands], not magnified
    clumps: Tensor  # [B, CLUMPS, 4]: place (two, in half-light radii), width, share of the light
    stamp: Tensor  # index of the source's image, where the population has stamps
    field: Galaxies
    stars: Stars

    def __len__(self) -> int:
        return len(self.seed)

    def lensed(self, rows: Tensor) -> Lensed:
        """Mass and source of some rows, as rays need them."""
        beta = self.offset * self.theta_e
        columns = {
            "x": self.x, "y": self.y, "theta_e": self.theta_e, "q": self.q, "angle": self.angle, "gamma1": self.gamma1,
            "gamma2": self.gamma2, "slope": self.slope, "source_x": beta * torch.cos(self.offset_angle),
            "source_y": beta * torch.sin(self.offset_angle), "r_e": self.source_radius, "n": self.source_index,
            "source_q": self.source_q, "source_angle": self.source_angle, "clumps": self.clumps, "stamp": self.stamp,
        }  # fmt: skip
        return Lensed(**{name: values[rows] for name, values in columns.items()})

    def deflectors(self) -> Galaxies:
        """The light of the galaxies in the middle: a bulge and an envelope."""
        row = torch.arange(len(self), device=self.x.device)
        n = torch.cat([self.lens_index, torch.ones_like(self.lens_index)])
        radius = torch.cat([self.lens_radius, 2.2 * self.lens_radius])
        share = torch.cat([1 - self.envelope, self.envelope])
        twice = [torch.cat([v, v]) for v in (row, self.x, self.y, self.q, self.angle, self.lens_flux)]
        both = Galaxies(twice[0], twice[1], twice[2], radius, n, twice[3], twice[4], twice[5] * share[:, None])
        shining = share > 0
        return Galaxies(**{f.name: getattr(both, f.name)[shining] for f in fields(Galaxies)})


def _source_magnitude(u: Uniforms, p: Population) -> Tensor:
    """[B] i magnitudes: most between the ends of the range, the more the fainter, and a share beyond the faint end."""
    (bright, faint), place = p.source_magnitude, u("source magnitude")
    beyond = u("faint source") < p.faint_sources
    return torch.where(beyond, faint + p.faint_reach * place, bright + (faint - bright) * torch.sqrt(place))


def draw_scenes(seeds: Tensor, kinds: Tensor, population: Population, survey: Survey, size: int = 64) -> Scene:
    """Scenes [B] from their seeds, on the device of the seeds; row i depends on `seeds[i]` alone.

    `size` pixels on a side bound where neighbours and stars may lie. Drawn in double precision and then rounded, so that no
    difference between vector and scalar arithmetic reaches a row.
    """
    u, p = Uniforms(seeds), population
    wavelengths = survey.column("wavelength").to(seeds.device)
    theta_e = u.between("theta_e", *p.einstein_radius)
    lens_i = p.lens_magnitude - 5 * torch.log10(theta_e) + u.between("lens magnitude", -1, 1) * p.lens_magnitude_scatter
    source_i = _source_magnitude(u, p)
    shear, shear_angle = u.between("shear", *p.shear), u.between("shear angle", 0, 2 * math.pi)
    lens_tilt, source_tilt = u.between("lens colour", -0.1, 0.1), u.between("source colour", -0.1, 0.15)
    columns = {
        "theta_e": theta_e,
        "lens_flux": nanojansky(colour_magnitudes(lens_i, RED, lens_tilt, wavelengths)),
        "source_flux": nanojansky(colour_magnitudes(source_i, BLUE, source_tilt, wavelengths)),
        "gamma1": shear * torch.cos(shear_angle),
        "gamma2": shear * torch.sin(shear_angle),
        "slope": u.between("slope", *p.slope),
        "seeing": u.between("seeing", 1 - survey.seeing_scatter, 1 + survey.seeing_scatter),
        "x": u.between("x", -0.5, 0.5) * survey.pixel_scale,
        "y": u.between("y", -0.5, 0.5) * survey.pixel_scale,
        "q": u.between("q", *p.axis_ratio),
        "angle": u.between("angle", 0, math.pi),
        "lens_radius": u.between("lens radius", *p.lens_radius),
        "lens_index": u.between("lens index", *p.lens_index),
        "envelope": u.between("envelope", *p.envelope),
        "source_radius": u.between("source radius", *p.source_radius),
        "source_index": u.between("source index", *p.source_index),
        "source_q": u.between("source q", 0.4, 1.0),
        "source_angle": u.between("source angle", 0, math.pi),
        "offset": p.source_offset * torch.sqrt(u("offset")),
        "offset_angle": u.between("offset angle", 0, 2 * math.pi),
        "clumps": _clumps(u, p),
    }
    half = size * survey.pixel_scale / 2
    return Scene(
        seed=seeds, kind=kinds, stamp=(u("stamp") * 2**31).long(), field=_field(u, p, half, wavelengths),
        stars=_stars(u, p, half, wavelengths), **{name: values.float() for name, values in columns.items()},
    )  # fmt: skip


def _clumps(u: Uniforms, p: Population) -> Tensor:
    """[B, CLUMPS, 4]; a source without clumps has shares of 0. Two to CLUMPS of unequal light, within the half-light radius."""
    place, phi = torch.sqrt(u("clump radius", CLUMPS)) * 1.2, 2 * math.pi * u("clump angle", CLUMPS)
    width, weight = 0.13 + 0.12 * u("clump width", CLUMPS), -torch.log(u("clump light", CLUMPS))
    number = 2 + torch.floor((CLUMPS - 1) * u("clumps"))
    weight = weight * (torch.arange(CLUMPS, device=weight.device) < number[:, None])
    light = u.between("clump share", *p.clump_light) * (u("clumpy") < p.clumpy)
    share = light[:, None] * weight / weight.sum(dim=1, keepdim=True)
    return torch.stack([place * torch.cos(phi), place * torch.sin(phi), width, share], dim=-1)


def _scatter(u: Uniforms, name: str, mean: float, half: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Row, slot, and position of Poisson numbers of objects, anywhere in the cutout."""
    count = u.counts(f"{name} number", mean, _MOST)
    row, slot = torch.nonzero(torch.arange(_MOST, device=count.device) < count[:, None], as_tuple=True)
    x, y = ((2 * u(f"{name} {axis}", _MOST) - 1)[row, slot] * half for axis in ("x", "y"))
    return row, slot, x, y


def _field(u: Uniforms, p: Population, half: float, wavelengths: Tensor) -> Galaxies:
    """Galaxies along the line of sight, blue ones mostly; none within 1.5 arcsec of the middle: that would be another kind."""
    row, slot, x, y = _scatter(u, "field", p.field_galaxies * (half / 30) ** 2, half)
    apart = torch.hypot(x, y) > 1.5
    row, slot, x, y = row[apart], slot[apart], x[apart], y[apart]

    def pick(name: str, low: float, high: float) -> Tensor:
        return low + (high - low) * u(f"field {name}", _MOST)[row, slot]

    low, high = 10 ** (0.3 * 20.0), 10 ** (0.3 * 25.0)
    magnitude = torch.log10(pick("magnitude", low, high)) / 0.3
    red = u("field red", _MOST)[row, slot] < 0.2
    tilt = pick("colour", -0.1, 0.15)
    colours = [colour_magnitudes(magnitude, curve, tilt, wavelengths) for curve in (RED, BLUE)]
    flux = nanojansky(torch.where(red[:, None], colours[0], colours[1]))
    radius = pick("radius", 0.15, 0.4) * 10 ** (-0.08 * (magnitude - 24))
    index = torch.where(red, pick("index", 2.5, 4.0), pick("index", 0.7, 1.6))
    values = (x, y, radius, index, pick("q", 0.3, 1.0), pick("angle", 0, math.pi), flux)
    return Galaxies(row, *(v.float() for v in values))


def _stars(u: Uniforms, p: Population, half: float, wavelengths: Tensor) -> Stars:
    row, slot, x, y = _scatter(u, "star", p.field_stars * (half / 30) ** 2, half)
    apart = torch.hypot(x, y) > 1.5
    row, slot, x, y = row[apart], slot[apart], x[apart], y[apart]
    magnitude = 19 + 5 * torch.sqrt(u("star magnitude", _MOST)[row, slot])
    tilt = (0.4 * u("star colour", _MOST) - 0.2)[row, slot]
    flux = nanojansky(colour_magnitudes(magnitude, STAR, tilt, wavelengths))
    return Stars(row, x.float(), y.float(), flux.float())
