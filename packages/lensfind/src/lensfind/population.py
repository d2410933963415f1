"""What is in the sky: lens galaxies, the sources behind them, and the things that are mistaken for lenses.

A scene is a row of numbers drawn from its own seed alone. The first numbers describe the foreground galaxy and the seeing,
and do not depend on what else the cutout holds: a lens and a non-lens of one seed have the same galaxy, PSF and noise, so
that no property of the galaxy tells the classes apart.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lensfind.survey import Survey, nanojansky
from skyloom.errors import ConfigError, nearest
from skyloom.run.seeds import derive, numpy_generator

__all__ = ["KINDS", "LENS", "Population", "Scene", "draw_kinds", "draw_scenes", "row_seeds"]

KINDS = ("lens", "elliptical", "companions", "merger", "spiral", "ring", "projected")
LENS = 0
_NEGATIVES = {"elliptical": 0.15, "companions": 0.25, "merger": 0.1, "spiral": 0.15, "ring": 0.2, "projected": 0.15}

# Colours of an early type at z = 0.4 and of a star-forming galaxy at z = 1 to 2 against wavelength: differences to the i
# band (755 nm), straight lines between the filters' wavelengths, level beyond y. Scatter is added per galaxy.
_WAVELENGTHS = (485.0, 625.0, 755.0, 870.0, 970.0)  # nm: g, r, i, z, y
_RED = (2.15, 0.65, 0.0, -0.3, -0.45)  # mag
_BLUE = (0.5, 0.2, 0.0, -0.1, -0.15)  # mag


@dataclass(frozen=True)
class Population:
    """Ranges are uniform unless a comment says otherwise; angles on the sky in arcsec, magnitudes AB in the i band."""

    einstein_radius: tuple[float, float] = (0.8, 2.0)  # arcsec
    axis_ratio: tuple[float, float] = (0.5, 1.0)  # of the lens, mass and light alike
    shear: tuple[float, float] = (0.0, 0.1)
    source_offset: float = 0.8  # largest |beta| / theta_E of a lens, uniform over the disc
    lens_magnitude: float = 20.0  # at theta_E = 1 arcsec; follows theta_E as L ~ sigma^4 ~ theta_E^2 (Faber and Jackson 1976)
    lens_magnitude_scatter: float = 0.6  # mag, half range
    lens_radius: tuple[float, float] = (0.5, 1.2)  # half-light radius, arcsec
    lens_index: tuple[float, float] = (3.0, 5.0)  # Sersic
    source_magnitude: tuple[float, float] = (22.0, 24.5)  # before magnification; density rises linearly to the faint end
    source_radius: tuple[float, float] = (0.1, 0.5)  # half-light radius, arcsec
    source_index: tuple[float, float] = (0.5, 2.0)  # Sersic
    negatives: dict[str, float] = field(default_factory=lambda: dict(_NEGATIVES))  # shares among the non-lenses

    def __post_init__(self) -> None:
        for name in self.negatives:
            if name not in KINDS[1:]:
                raise ConfigError(f"there is no kind of non-lens {name!r}.{nearest(name, KINDS[1:])}")
        if not self.negatives or min(self.negatives.values()) < 0 or sum(self.negatives.values()) <= 0:
            raise ConfigError(f"shares of non-lenses must be positive, not {self.negatives}.")
        for name in ("einstein_radius", "axis_ratio", "lens_radius", "source_radius"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"population.{name} must be 0 < low <= high, not {[low, high]}.")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Scene:
    """Columns [B] of numbers per cutout; fluxes [B, bands] in nJy."""

    kind: Tensor
    seeing: Tensor  # factor on the survey's PSF width
    x: Tensor  # centre of the galaxy, arcsec
    y: Tensor
    theta_e: Tensor
    q: Tensor
    angle: Tensor  # radians
    gamma1: Tensor
    gamma2: Tensor
    lens_radius: Tensor
    lens_index: Tensor
    source_radius: Tensor
    source_index: Tensor
    source_q: Tensor
    source_angle: Tensor
    offset: Tensor  # of the source from the galaxy, in units of theta_E
    offset_angle: Tensor
    spare: Tensor  # [B, 24] further uniform numbers, for what only non-lenses have
    lens_flux: Tensor  # [B, bands]
    source_flux: Tensor  # [B, bands], not magnified

    def rows(self, index: Tensor) -> "Scene":
        return Scene(**{name: value[index] for name, value in self.__dict__.items()})


def row_seeds(seed: int, split: str, part: str, count: int) -> Tensor:
    """One 63-bit seed per row; a row keeps its seed whatever the number of rows."""
    return torch.tensor([derive(seed, split, part, row) for row in range(count)], dtype=torch.int64)


def draw_kinds(seed: int, split: str, part: str, count: int, lens_share: float, population: Population) -> Tensor:
    """[count] indices into KINDS: each row is a lens with probability `lens_share`, else a non-lens of the given shares."""
    u = numpy_generator(seed, split, part, "kinds").random((count, 2))
    names = list(population.negatives)
    edges = np.cumsum([population.negatives[name] for name in names])
    which = np.minimum(np.searchsorted(edges, u[:, 1] * edges[-1], side="right"), len(names) - 1)
    negative = np.array([KINDS.index(name) for name in names])[which]
    return torch.from_numpy(np.where(u[:, 0] < lens_share, LENS, negative))


def _uniforms(seeds: Tensor, count: int) -> Tensor:
    generator = torch.Generator()
    draw = [torch.rand(count, generator=generator.manual_seed(int(seed)), dtype=torch.float64) for seed in seeds]
    return torch.stack(draw)


def _magnitudes(i_magnitude: Tensor, colour: tuple[float, ...], scatter: Tensor, wavelengths: Tensor) -> Tensor:
    """[B, bands] from the i magnitude [B], a colour curve, and a tilt [B] in mag per 100 nm."""
    curve = torch.from_numpy(np.interp(wavelengths.numpy(), _WAVELENGTHS, colour))
    return i_magnitude[:, None] + curve + scatter[:, None] * (755.0 - wavelengths) / 100


def draw_scenes(seeds: Tensor, kinds: Tensor, population: Population, survey: Survey) -> Scene:
    """Scenes [B] from their seeds; row i depends on `seeds[i]` alone, and only its extras on `kinds[i]`.

    Drawn in double precision and then rounded, so that no difference between vector and scalar arithmetic reaches a row.
    """
    u = iter(_uniforms(seeds, 48).T)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * next(u)

    p = population
    wavelengths = survey.column("wavelength")
    theta_e = between(*p.einstein_radius)
    lens_i = p.lens_magnitude - 5 * torch.log10(theta_e) + between(-1, 1) * p.lens_magnitude_scatter
    faint, bright = p.source_magnitude[1], p.source_magnitude[0]
    source_i = bright + (faint - bright) * torch.sqrt(next(u))
    shear, shear_angle = between(*p.shear), between(0, 2 * torch.pi)
    columns = {
        "theta_e": theta_e,
        "lens_flux": nanojansky(_magnitudes(lens_i, _RED, between(-0.1, 0.1), wavelengths)),
        "source_flux": nanojansky(_magnitudes(source_i, _BLUE, between(-0.1, 0.15), wavelengths)),
        "gamma1": shear * torch.cos(shear_angle),
        "gamma2": shear * torch.sin(shear_angle),
        "seeing": between(1 - survey.seeing_scatter, 1 + survey.seeing_scatter),
        "x": between(-0.5, 0.5) * survey.pixel_scale,
        "y": between(-0.5, 0.5) * survey.pixel_scale,
        "q": between(*p.axis_ratio),
        "angle": between(0, torch.pi),
        "lens_radius": between(*p.lens_radius),
        "lens_index": between(*p.lens_index),
        "source_radius": between(*p.source_radius),
        "source_index": between(*p.source_index),
        "source_q": between(0.4, 1.0),
        "source_angle": between(0, torch.pi),
        "offset": p.source_offset * torch.sqrt(next(u)),
        "offset_angle": between(0, 2 * torch.pi),
        "spare": torch.stack([next(u) for _ in range(24)], dim=1),
    }
    return Scene(kind=kinds, **{name: values.float() for name, values in columns.items()})
